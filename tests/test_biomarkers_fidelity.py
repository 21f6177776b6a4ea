"""Agreement statistics against values known from their definitions."""

import numpy as np
import pandas as pd
import pytest

from retsam.biomarkers.fidelity import HEADLINE, agreement, fidelity, headline, summary


def pair(n=400, bias=0.5, noise=0.0, seed=1):
    rng = np.random.default_rng(seed)
    reference = rng.normal(10, 2, n)
    return reference + bias + rng.normal(0, noise, n), reference


def test_a_constant_shift():
    predicted, reference = pair(bias=0.5)
    found = agreement(predicted, reference)
    spread = reference.std(ddof=1)
    assert found["bias"] == pytest.approx(0.5)
    assert found["bias_sd"] == pytest.approx(0.5 / spread)
    assert found["r"] == pytest.approx(1.0)
    assert found["loa_low"] == pytest.approx(0.5) and found["loa_high"] == pytest.approx(0.5)
    # Two raters who differ by a constant d only: ICC(A,1) = s^2 / (s^2 + d^2 / 2).
    assert found["icc"] == pytest.approx(spread**2 / (spread**2 + 0.125), rel=1e-6)


def test_icc_of_the_textbook_example():
    # McGraw & Wong's two-way model by its mean squares, computed in full.
    x = np.array([[9.0, 2.0], [6.0, 1.0], [8.0, 4.0], [7.0, 1.0], [10.0, 5.0], [6.0, 2.0]])
    n, k, grand = 6, 2, x.mean()
    rows = k * ((x.mean(1) - grand) ** 2).sum() / (n - 1)
    columns = n * ((x.mean(0) - grand) ** 2).sum() / (k - 1)
    error = ((x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + grand) ** 2).sum() / ((n - 1) * (k - 1))
    expected = (rows - error) / (rows + (k - 1) * error + k / n * (columns - error))
    assert agreement(x[:, 0], x[:, 1])["icc"] == pytest.approx(expected)


def tables(n=40):
    predicted, reference = pair(n, bias=0.5, noise=0.4)
    ids = [f"i{k}" for k in range(n)]
    left = pd.DataFrame({"image_id": ids, "cdr_vertical": predicted, "crae": np.nan, "crve": 5.0})
    right = pd.DataFrame({"image_id": ids[::-1], "cdr_vertical": reference[::-1], "crae": 4.0, "crve": 6.0})
    return left, right


def test_pairs_are_formed_by_image_and_intervals_hold_the_truth():
    left, right = tables()
    found = fidelity(left, right, draws=400).set_index("biomarker")
    row = found.loc["cdr_vertical"]
    assert row["n"] == 40 and row["r"] > 0.95
    assert row["bias_ci_low"] < row["bias"] < row["bias_ci_high"]
    assert row["bias_ci_low"] < 0.5 < row["bias_ci_high"]
    assert found.loc["crae", ["n", "n_reference", "n_predicted"]].tolist() == [0, 40, 0]
    assert np.isnan(found.loc["crae", "r"])
    # Without spread: a bias, and no correlation.
    assert found.loc["crve", "bias"] == -1.0 and np.isnan(found.loc["crve", "r"]) and np.isnan(found.loc["crve", "r_ci_low"])


def test_groups():
    left, right = tables()
    groups = pd.Series(["drive"] * 20 + ["hrf"] * 20, index=left["image_id"])
    found = fidelity(left, right, groups, draws=50)
    part = found[found["biomarker"] == "cdr_vertical"].set_index("group")
    assert part["n"].to_dict() == {"all": 40, "drive": 20, "hrf": 20}


def test_the_same_seed_gives_the_same_intervals():
    left, right = tables()
    pd.testing.assert_frame_equal(fidelity(left, right, draws=100), fidelity(left, right, draws=100))


def test_photographs_of_one_subject_are_drawn_together():
    """Every photograph three times tells no more than once; one subject tells nothing of its like."""
    left, right = tables()
    thrice = [pd.concat([t.assign(image_id=t["image_id"] + f"_{k}") for k in range(3)], ignore_index=True) for t in (left, right)]
    ids = thrice[0]["image_id"]
    whose = pd.Series(ids.str.split("_").str[0].to_numpy(), index=ids)

    def width(found):
        row = found.set_index("biomarker").loc["cdr_vertical"]
        return row["bias_ci_high"] - row["bias_ci_low"]

    once, grouped, apart = fidelity(left, right), fidelity(*thrice, subjects=whose), fidelity(*thrice)
    assert width(grouped) == pytest.approx(width(once), rel=1e-6) and width(apart) < 0.7 * width(once)
    pd.testing.assert_frame_equal(fidelity(left, right, subjects=pd.Series("x", index=["other"])), once)
    alone = fidelity(left, right, subjects=pd.Series("x", index=left["image_id"])).set_index("biomarker").loc["cdr_vertical"]
    assert np.isfinite(alone["bias"]) and np.isnan(alone["bias_ci_low"]) and np.isnan(alone["r_ci_high"])
    groups, kinds = pd.Series("set", index=[*left["image_id"], *ids]), {"ratio": ("cdr_vertical",)}
    figures = [headline(left, right, groups, 500, 0, kinds)]
    figures += [headline(*thrice, groups, 500, 0, kinds, subjects) for subjects in (whose, None)]
    spread = [found.loc[0, "bias_sd_ci_high"] - found.loc[0, "bias_sd_ci_low"] for found in figures]
    assert spread[1] == pytest.approx(spread[0], rel=0.03) and spread[2] < 0.7 * spread[0]


def test_subjects_with_different_numbers_of_photographs():
    """All of a subject's photographs come with it, however many they are."""
    left, right = tables(12)
    whose = pd.Series([f"s{k}" for k in (0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8)], index=left["image_id"])
    found = fidelity(left, right, draws=300, subjects=whose).set_index("biomarker").loc["cdr_vertical"]
    paired = left.merge(right, on="image_id", suffixes=("", "_drawn"))
    difference = (paired["cdr_vertical"] - paired["cdr_vertical_drawn"]).to_numpy()
    codes = pd.factorize(whose)[0]
    drawn = np.random.default_rng(0).integers(0, 9, (300, 9))
    means = [np.mean(np.concatenate([difference[codes == s] for s in one])) for one in drawn]
    assert (found["bias_ci_low"], found["bias_ci_high"]) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_a_reference_without_spread_has_no_bias_in_spreads():
    """Rounding leaves 0.1 six times over a variance of 1e-34."""
    found = agreement(np.array([0.1, 0.2, 0.1, 0.3, 0.1, 0.1]), np.full(6, 0.1))
    assert found["bias"] == pytest.approx(0.05) and np.isnan(found["bias_sd"]) and np.isnan(found["r"])
    left = pd.DataFrame({"image_id": list("abcdef"), "crae": [0.1, 0.2, 0.1, 0.3, 0.1, 0.1]})
    figures = headline(left, left.assign(crae=0.1), pd.Series("x", index=left["image_id"]), draws=10)
    assert figures["bias_sd"].isna().all() and figures["r"].isna().all()


def test_headline_counts_each_kind_once():
    predicted, reference = pair(60, bias=1.0, noise=1.0)
    ids = [f"i{k}" for k in range(60)]
    names = HEADLINE["density"]
    left = pd.DataFrame({"image_id": ids, **{name: predicted for name in names}, "crae": -predicted, "crve": np.nan})
    right = pd.DataFrame({"image_id": ids, **{name: reference for name in names}, "crae": reference, "crve": reference})
    groups = pd.Series(["drive"] * 30 + ["few"] * 4 + ["hrf"] * 26, index=ids)
    found = headline(left, right, groups, draws=200).set_index(["group", "kind"])
    assert set(found.index.get_level_values("group")) == {"drive", "hrf"}, "four pairs give no statistics"
    assert set(found.loc["drive"].index) == {"density", "crae", "mean"}
    table = fidelity(left, right, groups, draws=10)
    own = table[table["group"] == "hrf"].set_index("biomarker")
    of = found.loc["hrf"]
    assert of.loc["density", "r"] == pytest.approx(own.loc[names[0], "r"])
    assert of.loc["density", "bias_sd"] == pytest.approx(abs(own.loc[names[0], "bias_sd"]))
    assert of.loc["mean", "r"] == pytest.approx(0.0, abs=1e-9), "density and CRAE, each once"
    assert of.loc["mean", "n_kinds"] == 2 and of.loc["crae", "n"] == 26
    assert of.loc["mean", "bias_sd"] == pytest.approx((of.loc["density", "bias_sd"] + of.loc["crae", "bias_sd"]) / 2)
    assert of.loc["density", "r_ci_low"] < of.loc["density", "r"] < of.loc["density", "r_ci_high"]
    again = headline(left, right, groups, draws=200).set_index(["group", "kind"])
    pd.testing.assert_frame_equal(found, again)
    card = summary(headline(left, right, groups, draws=20), own_pen=True)
    assert card["hrf"]["pen"] == "own" and card["hrf"]["mean"]["n_kinds"] == 2 and set(card["hrf"]) == {"pen", "density", "crae", "mean"}


def test_headline_leaves_missing_values_out_of_every_resample():
    predicted, reference = pair(40, bias=0.5, noise=0.1)
    ids = [f"i{k}" for k in range(40)]
    left, right = pd.DataFrame({"image_id": ids, "crae": predicted}), pd.DataFrame({"image_id": ids, "crae": reference})
    left.loc[::4, "crae"], right.loc[1::4, "crae"] = np.nan, np.nan
    found = headline(left, right, pd.Series("x", index=ids), draws=100).set_index("kind").loc["crae"]
    kept = np.arange(40) % 4 > 1
    assert found["n"] == 20 and found["r"] == pytest.approx(np.corrcoef(predicted[kept], reference[kept])[0, 1])
    assert found["bias_sd"] == pytest.approx(abs((predicted - reference)[kept].mean()) / reference[kept].std(ddof=1))
    assert found["bias_sd_ci_low"] <= found["bias_sd"] <= found["bias_sd_ci_high"]


def test_tables_that_cannot_be_paired_are_refused():
    left, right = tables()
    with pytest.raises(ValueError, match="no image in common"):
        fidelity(left, right.assign(image_id="z" + right["image_id"]))
    with pytest.raises(ValueError, match="more than once"):
        fidelity(pd.concat([left, left]), right)
