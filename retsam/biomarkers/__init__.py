"""Biomarkers of the eye from its masks: ``retsam.biomarkers.measure(masks)`` and the dictionary behind it.

``measure`` is imported on first use, so that reading a configuration does not wait for the numerical libraries.
"""

__all__ = ["measure"]


def __getattr__(name):
    if name == "measure":
        from retsam.biomarkers.eye import measure

        return measure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
