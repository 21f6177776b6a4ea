"""retsam: colour fundus photographs to segmentations, biomarkers and associations.

The library in three calls::

    import retsam
    masks = retsam.segment("eye.jpg")        # retsam.masks.masks.Masks
    biomarkers = retsam.measure(masks)       # pandas.Series
    picture = retsam.overlay("eye.jpg", masks)

A whole study is run by the command ``retsam`` or by Snakemake; see README.md.
"""

from retsam._version import __version__

__all__ = ["__version__", "measure", "overlay", "segment"]

#: Where the public functions live. They are imported on first use: torch alone takes seconds.
_HOMES = {
    "segment": "retsam.segmentation",
    "measure": "retsam.biomarkers",
    "overlay": "retsam.masks",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'retsam' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__():
    return sorted(__all__)
