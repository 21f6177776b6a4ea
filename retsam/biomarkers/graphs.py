"""Vessel graphs on disk: one Parquet table an image, one row a segment, centrelines in native pixels."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.csv import write_csv

from retsam.biomarkers.config import BiomarkersConfig
from retsam.biomarkers.context import Context
from retsam.biomarkers.tables import neutralise
from retsam.masks.masks import Failure, Masks

log = logging.getLogger(__name__)

_LINE = pa.list_(pa.float64())
#: Columns of a graph's table, the same for an eye without vessels, so that the tables of a cohort can be read as one.
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("image_id", "structure"), pa.string()), "segment": pa.int64(), "kind": pa.string(),
        **dict.fromkeys(("node_a", "node_b"), pa.int64()), **dict.fromkeys(("node_a_kind", "node_b_kind"), pa.string()),
        **dict.fromkeys(("length_px", "width_px", "tortuosity_distance", "curvature_squared", "turns"), pa.float64()),
        "x": _LINE, "y": _LINE,
    }
)  # fmt: skip
FAILURES = "_failures.csv"
"""Photographs without a graph; readers of a folder of Parquet files pass over names that begin so."""


def graph_table(masks: Masks, config: BiomarkersConfig | None = None) -> pd.DataFrame:
    """Vessel graph of one eye.

    Returns
    -------
    DataFrame
        One row a segment, as :func:`retsam.biomarkers.vessels.vessel_graphs` describes, with ``image_id`` in front and the centreline's
        ``x`` and ``y`` (lists) in native pixels, ready to be plotted over the photograph.
    """
    from retsam.biomarkers.vessels import vessel_graphs

    context = Context(masks, config)
    table = vessel_graphs(context)
    if not len(table):
        return SCHEMA.empty_table().to_pandas()
    points = [context.masks.frame.to_native(np.stack([x, y], axis=-1)) for x, y in zip(table["x"], table["y"], strict=True)]
    table["x"], table["y"] = [p[:, 0].tolist() for p in points], [p[:, 1].tolist() for p in points]
    return table.assign(image_id=masks.image_id).reindex(columns=SCHEMA.names)


def write_graphs(masks: Iterable[Masks | Failure], folder: Path, config: BiomarkersConfig | None = None) -> list[Path]:
    """Write :func:`graph_table` of each eye to ``folder/<image_id>.parquet`` (characters that no file name may have are percent-coded).

    A photograph without masks, and an eye whose graph cannot be built, is a row of ``folder/_failures.csv``: ``image_id``, ``reason``,
    ``detail``. The file is always written, so that none left out can be told from nobody having looked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, failures = [], []
    for item in masks:
        if isinstance(item, Failure):
            failures.append({"image_id": item.image_id, "reason": item.reason, "detail": item.detail})
            continue
        try:
            table = graph_table(item, config)
        except Exception as error:  # noqa: BLE001 (one odd mask must not cost the other graphs; its row says what happened)
            log.exception("image %s: no vessel graph", item.image_id)
            failures.append({"image_id": item.image_id, "reason": "graph_failed", "detail": f"{type(error).__name__}: {error}"})
            continue
        name = quote(item.image_id, safe=" ")
        if name.startswith(("_", ".")):  # readers of folders would pass over it
            name = f"%{ord(name[0]):X}{name[1:]}"
        path = folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pandas(table, SCHEMA, preserve_index=False), path)
        written.append(path)
    columns = pa.schema([(name, pa.string()) for name in ("image_id", "reason", "detail")])
    write_csv(neutralise(pa.Table.from_pylist(failures, columns)), folder / FAILURES)
    return written
