"""What a table or a caller may say of an eye, in one place: which of the two it is, and how large a pixel is on its retina."""

from __future__ import annotations

#: Words for the eye, in lower case.
EYES = {"r": "R", "od": "R", "right": "R", "re": "R", "dex": "R", "l": "L", "os": "L", "left": "L", "le": "L", "sin": "L"}
#: What a message asks for where the eye is none of :data:`EYES`.
EYE_WORDS = "R, L, OD, OS, right or left"

#: Micrometres per pixel that a photograph can have: a 45-degree field of 13 mm over 500 to 6,000 px; ten times either way is a wrong unit.
UM_PER_PX = (0.2, 300.0)
#: What a message asks for where the pixel size is outside :data:`UM_PER_PX`, and how to mend it.
UM_PER_PX_WORDS = f"{UM_PER_PX[0]:g} to {UM_PER_PX[1]:g} um"
UM_PER_PX_MEND = "micrometres a pixel on the retina (often 3 to 30); leave the cell empty if not known"


def eye_of(word: str | None) -> str | None:
    """``R``, ``L``, or None where nothing is said.

    Raises
    ------
    ValueError
        If the word is none of :data:`EYES` (in any case of letters).
    """
    said = "" if word is None else str(word).strip().lower()
    if said and said not in EYES:
        raise ValueError(f"expected {EYE_WORDS}, found {word!r}")
    return EYES.get(said)
