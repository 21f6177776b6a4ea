"""The ODIR-derived table on which R and retsam are compared: labels, age and sex of both eyes, no photographs.

The table itself is other people's data and is not kept in the repository; only what R makes of it is. To write it for
``association_odir.R``:

    python odir_table.py <folder with manifest.csv> odir_eyes.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

SEVERITY = (
    ("normal fundus", 0),
    ("mild nonproliferative retinopathy", 1),
    ("moderate non proliferative retinopathy", 2),
    ("severe nonproliferative retinopathy", 3),
    ("proliferative diabetic retinopathy", 3),
)


def odir_table(data: Path) -> pd.DataFrame:
    """Eyes of ODIR with a known age, rows of a subject together.

    Parameters
    ----------
    data : Path
        Folder with ``manifest.csv``.

    Returns
    -------
    DataFrame
        ``subject`` (int), ``age`` (decades from 60), ``sex`` (1 male), ``right`` (1 right eye), ``diabetic`` (1 D, 0 N, NaN else),
        ``glaucoma`` and ``myopia`` likewise, ``grade`` (0-3 from the keywords, NaN where they do not say), ``findings`` (number of
        keywords), ``cataract`` (1 where named).
    """
    table = pd.read_csv(data / "manifest.csv", dtype=str, keep_default_na=False)
    table = table[table["dataset"] == "odir"]
    age = pd.to_numeric(table["age"], errors="coerce")
    table = table[age.gt(1)].assign(number=pd.to_numeric(table["subject_id"]))
    table = table.sort_values(["number", "eye"], kind="stable").reset_index(drop=True)
    words = table["keywords"].str.lower()
    out = pd.DataFrame({"subject": table["number"].astype(int)})
    out["age"] = (table["age"].astype(float) - 60) / 10
    out["sex"] = (table["sex"] == "Male").astype(float)
    out["right"] = (table["eye"] == "R").astype(float)
    for name, letter in (("diabetic", "D"), ("glaucoma", "G"), ("myopia", "M")):
        out[name] = np.select([table["diagnosis"] == letter, table["diagnosis"] == "N"], [1.0, 0.0], np.nan)
    out["grade"] = np.nan
    for text, level in SEVERITY:
        out.loc[words.str.contains(text, regex=False), "grade"] = level
    out["findings"] = words.str.count("[,\uff0c]") + 1.0
    out["cataract"] = words.str.contains("cataract").astype(float)
    return out


if __name__ == "__main__":
    odir_table(Path(sys.argv[1])).to_csv(sys.argv[2], index=False)
