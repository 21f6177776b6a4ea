"""Photographs that are in a cohort more than once."""

from __future__ import annotations

import numpy as np
import pandas as pd

# 256 bits in 8 bands of 32: two hashes that differ in at most 7 bits agree in one whole band.
_BANDS = 8
# Copies differ by compression only: brightness and colour of near-duplicates must agree to this.
_SAME_LIGHT = {"brightness": 0.03, "brightness_red": 0.03, "red_share": 0.015, "blue_share": 0.015}


def same_content(hashes: pd.Series) -> pd.Series:
    """For each photograph the position of the first with the same pixels, or -1 where it is the first itself.

    Parameters
    ----------
    hashes : Series of str, [n]
        Content hashes in the order of the cohort; NA never matches.

    Returns
    -------
    Series of int, [n]
    """
    first: dict[str, int] = {}
    out = np.full(len(hashes), -1)
    for i, value in enumerate(hashes):
        if pd.isna(value):
            continue
        if value in first:
            out[i] = first[value]
        else:
            first[value] = i
    return pd.Series(out, index=hashes.index)


def near_content(table: pd.DataFrame, distance: int) -> pd.Series:
    """For each photograph the position of the first that it is a resized or recompressed copy of, or -1.

    Parameters
    ----------
    table : DataFrame
        ``perceptual_hash`` and the metrics of light, in the order of the cohort.
    distance : int
        Bits in which two hashes may differ, at most 7.

    Returns
    -------
    Series of int, [n]
    """
    out = np.full(len(table), -1)
    rows = np.flatnonzero(table["perceptual_hash"].notna())
    if len(rows) < 2:
        return pd.Series(out, index=table.index)
    bits = np.frombuffer(bytes.fromhex("".join(table["perceptual_hash"].iloc[rows])), np.uint8).reshape(len(rows), 32)
    words = bits.view(np.uint32)
    light = table[list(_SAME_LIGHT)].to_numpy(float)[rows]
    tolerance = np.array(list(_SAME_LIGHT.values()))
    for band in range(_BANDS):
        order = np.argsort(words[:, band], kind="stable")
        sorted_words = words[order, band]
        starts = np.flatnonzero(np.r_[True, sorted_words[1:] != sorted_words[:-1]])
        for start, stop in zip(starts, np.r_[starts[1:], len(rows)], strict=True):
            group = order[start:stop]  # ascending positions, as the sort is stable
            for k in range(1, len(group)):
                earlier = group[:k]
                differ = np.bitwise_count(bits[earlier] ^ bits[group[k]]).sum(1)
                close = (differ <= distance) & (np.abs(light[earlier] - light[group[k]]) <= tolerance).all(1)
                if close.any():
                    found = rows[earlier[np.argmax(close)]]
                    here = rows[group[k]]
                    out[here] = found if out[here] < 0 else min(out[here], found)
    return pd.Series(out, index=table.index)
