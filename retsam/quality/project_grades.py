"""Grades that the project gave by eye to photographs of ODIR and PALM, read as probabilities of EyeQ's grades.

EyeQ and DRIMDB know few cameras, and a model fitted on them alone is too sure of itself on others. So ``project_grades.csv`` holds grades
of photographs of ODIR (a hospital cohort) and PALM (myopic eyes): one grader, no clinician, blind to disease, keywords and scores, by
EyeQ's criteria, from pictures of 256 px. Photographs were drawn in strata of the then model's probability of a reject; column ``weight``
is how many photographs of the stratum (of the subset measured then) each stands for. Among them, unmarked, were EyePACS photographs with
EyeQ's own grades: they say what a grade given here is worth in EyeQ's terms (`as_eyeq`), and never count as labels themselves.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

#: Grades in the file. ``borderline`` lies between usable and reject.
GRADES = ("gradable", "usable", "borderline", "reject")
FILE = Path(__file__).with_name("project_grades.csv")
# Photographs, in EyeQ's proportions, that are added to what was seen for a grade given here: no share from a few is 0 or 1.
_PRIOR = 1.0


def held_back(groups: pd.Series) -> pd.Series:
    """Whether a group (subject or photograph) of ODIR or PALM is kept out of fitting, to judge the result: half of them, by hash.

    Parameters
    ----------
    groups : Series of str, [n]

    Returns
    -------
    Series of bool, [n]
    """
    return groups.map(lambda g: int(hashlib.sha256(str(g).encode()).hexdigest(), 16) % 2 == 1).astype(bool)


def as_eyeq(grades: pd.DataFrame, eyeq: pd.Series) -> pd.DataFrame:
    """What each grade given here means in EyeQ's terms: ``P(EyeQ grade | grade)``.

    Parameters
    ----------
    grades : DataFrame
        ``image, grade, weight`` of photographs that EyeQ graded too.
    eyeq : Series of str
        EyeQ's grade (``good``, ``usable``, ``reject``) by image.

    Returns
    -------
    DataFrame [4, 3]
        Rows are `GRADES`, columns EyeQ's grades; rows sum to 1.
    """
    seen = grades.assign(eyeq=grades["image"].map(eyeq)).dropna(subset=["eyeq"])
    counts = seen.pivot_table(index="grade", columns="eyeq", values="weight", aggfunc="sum").reindex(GRADES).fillna(0.0)
    prior = counts.sum() / counts.to_numpy().sum()
    counts = counts + _PRIOR * prior
    return counts.div(counts.sum(axis=1), axis=0)


def project_grades(manifest: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The project's grades of photographs without a grade of another source, and what they mean in EyeQ's terms.

    Parameters
    ----------
    manifest : DataFrame
        Columns image, dataset, group, quality.

    Returns
    -------
    graded : DataFrame
        ``image_id, project_grade, p_reject_label, p_gradable_label, stands_for``.
    meaning : DataFrame
        See `as_eyeq`.

    Raises
    ------
    ValueError
        If the file names images that the manifest lacks, or unknown grades.
    """
    table = pd.read_csv(FILE)
    faults = [f"{FILE.name}: unknown grade {g!r}; known are {', '.join(GRADES)}" for g in sorted(set(table["grade"]) - set(GRADES))]
    lacking = table.loc[~table["image"].isin(manifest["image"]), "image"].tolist()
    if lacking:
        some = ", ".join(lacking[:3])
        faults.append(f"{FILE.name}: {len(lacking)} images are not in the manifest, for example {some}; is it that of other data?")
    if faults:
        raise ValueError("\n".join(faults))
    quality = manifest.drop_duplicates("image").set_index("image")["quality"]
    both = table["image"].map(quality).notna()
    meaning = as_eyeq(table[both], quality)
    own = table[~both]
    graded = pd.DataFrame(
        {
            "image_id": own["image"],
            "project_grade": own["grade"],
            "p_reject_label": own["grade"].map(meaning["reject"]),
            "p_gradable_label": own["grade"].map(meaning["good"]),
            "stands_for": own["weight"],
        }
    )
    return graded.reset_index(drop=True), meaning
