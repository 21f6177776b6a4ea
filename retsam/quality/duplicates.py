"""Photographs that are in a cohort more than once."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

# Largest change of a metric that a resized (to 60 %) and recompressed (JPEG 75) copy showed, times three: copies lie within this.
_SAME_LIGHT = {
    "brightness": 0.012,
    "brightness_red": 0.012,
    "red_share": 0.005,
    "blue_share": 0.008,
    "illumination": 0.008,
    "disc": 0.03,
    "sharpness_low": 0.04,
}


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
        Bits of 256 in which two hashes may differ. Copies differ in up to 18, different photographs of one camera in 60 and more.

    Returns
    -------
    Series of int, [n]
    """
    out = np.full(len(table), -1)
    light = table[list(_SAME_LIGHT)].to_numpy(float) / list(_SAME_LIGHT.values())
    rows = np.flatnonzero(table["perceptual_hash"].notna().to_numpy() & np.isfinite(light).all(1))
    if len(rows) < 2:
        return pd.Series(out, index=table.index)
    bits = np.frombuffer(bytes.fromhex("".join(table["perceptual_hash"].iloc[rows])), np.uint8).reshape(len(rows), -1)
    # Copies that are the same in hash and light are compared once: one photograph a thousand times would be half a million pairs.
    told_by = np.hstack([bits, light[rows].view(np.uint8)])
    _, first, picture = np.unique(told_by, axis=0, return_index=True, return_inverse=True)
    # Few photographs agree in all metrics of light, so hashes need to be compared for few pairs.
    pairs = cKDTree(light[rows[first]]).query_pairs(1.0, p=np.inf, output_type="ndarray")
    differ = np.bitwise_count(bits[first[pairs[:, 0]]] ^ bits[first[pairs[:, 1]]]).sum(1)
    one, other = pairs[differ <= distance].T
    earliest = first.copy()
    np.minimum.at(earliest, one, first[other])
    np.minimum.at(earliest, other, first[one])
    found = earliest[picture.reshape(-1)]
    out[rows] = np.where(found < np.arange(len(rows)), rows[found], -1)
    return pd.Series(out, index=table.index)
