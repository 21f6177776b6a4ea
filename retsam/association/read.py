"""The biomarker table, read for an analysis: only the columns that its plan uses, and words as categories.

A biobank's table is 1,300 numbers and as many reasons an eye. As text the reasons alone of 100,000 photographs take two gigabytes, though
they are a dozen words; as categories they take a byte a cell. What the plan leaves out is not read at all.
"""

from __future__ import annotations

import os

import pandas as pd
import pyarrow.parquet as pq
from pyarrow import types

from retsam.association.analysis import Known, dictionary_of_biomarkers
from retsam.association.config import AssociationConfig
from retsam.association.design import idle_patterns, select_biomarkers
from retsam.association.sample import PlanError
from retsam.biomarkers.registry import registry

#: Columns of the biomarker table that the analysis reads besides biomarkers and their reasons.
KEYS = ("image_id", "status", "reason", "detail")

#: Biomarkers that are read from the file at a time.
COLUMNS = 50


def read_biomarkers(path: str | os.PathLike, config: AssociationConfig) -> pd.DataFrame:
    """Biomarkers that the plan tests, with their reasons, and the state of each photograph.

    Parameters
    ----------
    path : path
        ``biomarkers.parquet`` (see ``docs/contracts.md``).
    config : AssociationConfig

    Returns
    -------
    DataFrame
        ``image_id``, ``status``, ``reason``, ``detail`` where the file has them; a column a biomarker, and its reasons as categories.

    Raises
    ------
    PlanError
        If the plan names biomarkers that the table lacks.
    """
    schema = pq.read_schema(path)
    names = set(schema.names)
    numbers = [
        f.name
        for f in schema
        if f"{f.name}__reason" in names
        and (types.is_integer(f.type) or types.is_floating(f.type) or types.is_boolean(f.type) or types.is_null(f.type))
    ]
    known = dictionary_of_biomarkers()
    chosen, faults = select_biomarkers(numbers, {b: known.get(b, Known()).family for b in numbers}, config.exposures)
    faults += idle_patterns(config, [*numbers, *registry(extra=True)])
    if faults:
        raise PlanError(faults)
    reasons = [f"{b}__reason" for b in chosen]
    words = {r for r in reasons if types.is_string(schema.field(r).type) or types.is_large_string(schema.field(r).type)}
    file = pq.ParquetFile(path, read_dictionary=sorted(words))
    parts = [file.read([c for c in KEYS if c in names]).to_pandas()]
    # some columns at a time: Arrow's own copy of them, with four bytes a word, is gone before the next are read
    for first in range(0, len(chosen), COLUMNS):
        pairs = zip(chosen[first : first + COLUMNS], reasons[first : first + COLUMNS], strict=True)
        part = file.read([c for pair in pairs for c in pair]).to_pandas(self_destruct=True)
        small = {r: pd.Categorical.from_codes(part[r].cat.codes, part[r].cat.categories) for r in part.columns if r in words}
        parts.append(part.assign(**small))
    return pd.concat(parts, axis=1)
