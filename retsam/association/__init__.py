"""Association of biomarkers with outcomes: the analysis sample, models, multiplicity, robustness.

The public function is :func:`retsam.association.associate`; the tables that it leaves are described in
``docs/association-tables.md``.
"""

from __future__ import annotations

__all__ = ["AssociationConfig", "associate"]


def __getattr__(name: str):
    if name == "AssociationConfig":
        from retsam.association.config import AssociationConfig

        return AssociationConfig
    if name == "associate":
        from retsam.association.analysis import associate

        return associate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
