"""Write eyes.csv: a small simulated cohort on which R and retsam are compared. Run once; the table is kept beside this script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

rng = np.random.default_rng(20260207)
subjects = 160
sizes = rng.integers(1, 3, subjects)
sizes[:12] = 4  # two visits of both eyes
subject = np.repeat(np.arange(subjects), sizes)
n = len(subject)
age = rng.normal(0, 1, subjects)[subject]
sex = rng.integers(0, 2, subjects)[subject]
frailty = rng.normal(0, 1, subjects)[subject]
x = 0.6 * rng.normal(size=subjects)[subject] + 0.8 * rng.normal(size=n)
eta = -0.4 + 0.5 * x + 0.3 * age + 0.2 * sex + frailty
table = pd.DataFrame({"subject": subject, "x": x.round(6), "age": age.round(6), "sex": sex})
table["y"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(int)
table["rare"] = ((x > 1.2) & (rng.random(n) < 0.5)).astype(int)
table["marker"] = ((table["rare"] == 1) & (rng.random(n) < 0.6)).astype(int)  # only cases carry it: quasi-complete separation
table["grade"] = np.searchsorted([-0.7, 0.6, 1.8], eta + rng.logistic(size=n))
table["iop"] = (15 + eta + rng.normal(size=n)).round(6)
table["count"] = rng.poisson(np.exp(0.3 + 0.3 * x + 0.3 * frailty))
time = rng.exponential(6 * np.exp(-0.5 * x - 0.2 * age - 0.3 * frailty))
table["time"] = np.minimum(time, 8).round(2) + 0.01  # two decimals: tied times
table["event"] = (time < 8).astype(int)
table.to_csv(Path(__file__).with_name("eyes.csv"), index=False)
