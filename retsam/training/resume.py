"""What a run is, kept in its checkpoint: it goes on only with the data and settings that it began with."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from retsam.segmentation.weights import file_sha256
from retsam.training.run import Run

log = logging.getLogger(__name__)

# Where things lie, how long the run is, and what changes nothing that is learned. Data and weights are known by their content.
_FREE = ("manifest", "root", "out", "pseudo_labels", "init", "base", "steps", "threads", "loaders", "checkpoint_every", "keep")
# Of weak heads: how they are judged after training.
_AFTERWARDS = ("outlines", "judged", "most_healthy", "least_auc")


def describe(config: Run, data: Mapping[str, str]) -> dict[str, object]:
    """A run in words that JSON holds: settings, digest of the weights that it begins with, digests of its data by name."""
    settings = config.model_dump(mode="json", exclude={*_FREE, *_AFTERWARDS})
    init = getattr(config, "init", None)
    begun = file_sha256(Path(init)) if init is not None and Path(init).suffix == ".safetensors" else init
    return {**settings, "init": begun, "data": dict(data)}


def require_same(checkpoint: Path, state: Mapping[str, object], run: Mapping[str, object]) -> None:
    """Refuse to go on with another run than the checkpoint's.

    Parameters
    ----------
    checkpoint : Path
    state : mapping
        Its content; ``run`` is the JSON of :func:`describe`, which checkpoints of before do not have.
    run : mapping
        Of :func:`describe`.

    Raises
    ------
    ValueError
        Naming everything that differs.
    """
    if "run" not in state:
        log.warning("%s is of an older version and does not say from which data and settings; it is taken for this run's", checkpoint)
        return
    before, now = (_flat(content) for content in (json.loads(str(state["run"])), json.loads(json.dumps(run))))
    differing = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if differing:
        lines = [f"{name}: was {before.get(name, 'not there')}, is {now.get(name, 'not there')}" for name in differing]
        raise ValueError(
            f"{checkpoint}: was trained with other data or settings than this run:\n  "
            + "\n  ".join(lines)
            + "\ngo on with those that it had, or name a new `out` (to begin with its weights, set `init` to them)"
        )


def table_digest(table: pd.DataFrame) -> str:
    """Digest of a table's content."""
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()[:12]


def _flat(content: object, name: str = "") -> dict[str, object]:
    """Nested settings by their dotted names."""
    if not isinstance(content, dict) or not content:
        return {name: content}
    return {k: v for key, value in content.items() for k, v in _flat(value, f"{name}.{key}" if name else str(key)).items()}
