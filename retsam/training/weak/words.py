"""What words say of photographs, and which photographs teach."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pandas as pd

from retsam.training.frames import read_manifest
from retsam.training.weak.config import Rule, WeakConfig


def matched(manifest: pd.DataFrame, rule: Rule, pattern: str) -> pd.Series:
    """Rows of the rule's data set whose text matches; a row without text never does."""
    search = re.compile(pattern).search
    here = manifest["dataset"].eq(rule.dataset)
    return here & manifest[rule.column].map(lambda text: isinstance(text, str) and search(text) is not None).astype(bool)


def word_table(config: WeakConfig, manifest: pd.DataFrame) -> pd.DataFrame:
    """One column a word: 1 present, 0 absent, NaN unclear or not labelled.

    Parameters
    ----------
    config : WeakConfig
    manifest : DataFrame

    Returns
    -------
    DataFrame of float, rows of the manifest
    """
    out = pd.DataFrame(np.nan, index=manifest.index, columns=list(config.words))
    for name, word in config.words.items():
        for rule in word.rules:
            out.loc[matched(manifest, rule, rule.absent), name] = 0.0
            out.loc[matched(manifest, rule, rule.unclear), name] = np.nan
            out.loc[matched(manifest, rule, rule.present), name] = 1.0
    return out


def labelled(config: WeakConfig) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest's rows that some word speaks of, with ``part`` (``fit``, ``tune`` or ``held_out``) and ``healthy``; and their words.

    A group's part depends only on its name, so it never moves when rows are added.

    Returns
    -------
    rows, words : DataFrame
    """
    manifest = read_manifest(config)
    words = word_table(config, manifest)
    rows = manifest[words.notna().any(axis=1)].copy()
    words = words.loc[rows.index]

    def number(group: str) -> float:
        return int(hashlib.sha256(f"tuning {group}".encode()).hexdigest()[:8], 16) / 0xFFFFFFFF

    tuned = rows["group"].map(number) < config.tuning
    rows["part"] = np.where(rows["held_out"], "held_out", np.where(tuned, "tune", "fit"))
    healthy = pd.Series(False, index=rows.index)
    for rule in config.healthy:
        healthy |= matched(rows, rule, rule.present)
    rows["healthy"] = healthy
    return rows.reset_index(drop=True), words.reset_index(drop=True)


def teaching(config: WeakConfig, rows: pd.DataFrame, words: pd.DataFrame, part: str = "fit") -> np.ndarray:
    """Positions of a part's photographs that are used: all with a word, and of each data set a number without any, half of them healthy.

    The number is the configuration's for the part that is trained on, and in proportion for the one that sets thresholds.
    """
    fit = rows["part"].eq(part).to_numpy()
    share = 1.0 if part == "fit" else config.tuning / (1 - config.tuning)
    with_word = (words == 1).any(axis=1).to_numpy()
    keep = list(np.flatnonzero(fit & with_word))
    for dataset, limit in config.negatives.items():
        limit = round(limit * share)
        here = fit & ~with_word & rows["dataset"].eq(dataset).to_numpy()
        ill = _some(np.flatnonzero(here & ~rows["healthy"]), limit // 2, config.seed)
        keep += [*ill, *_some(np.flatnonzero(here & rows["healthy"]), limit - len(ill), config.seed)]
    return np.array(sorted(keep))


def _some(positions: np.ndarray, count: int, seed: int) -> list[int]:
    return list(np.random.default_rng(seed).permutation(positions)[:count])
