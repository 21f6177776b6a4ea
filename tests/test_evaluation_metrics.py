"""Metrics, histograms and thresholds against slow and plain computations."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_fakes import ellipse

from retsam.evaluation import metrics as m
from retsam.evaluation.histogram import BINS, Histogram
from retsam.evaluation.thresholds import best_dice, best_mean_dice


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_overlap(rng):
    predicted, reference, valid = rng.random((3, 40, 50)) < [[[0.4]], [[0.3]], [[0.8]]]
    counts = m.overlap_counts(predicted, reference, valid)
    p, r = predicted[valid], reference[valid]
    assert counts == {"tp": (p & r).sum(), "fp": (p & ~r).sum(), "fn": (~p & r).sum()}
    scores = m.overlap_scores(**counts)
    assert scores["dsc"] == pytest.approx(2 * (p & r).sum() / (p.sum() + r.sum()))
    assert scores["jac"] == pytest.approx((p & r).sum() / (p | r).sum())
    assert scores["sensitivity"] == pytest.approx((p & r).sum() / r.sum())
    assert scores["precision"] == pytest.approx((p & r).sum() / p.sum())


def test_overlap_without_reference():
    scores = m.overlap_scores(0, 5, 0)
    assert np.isnan([scores["dsc"], scores["jac"], scores["sensitivity"]]).all() and scores["precision"] == 0
    assert m.overlap_scores(0, 0, 4)["dsc"] == 0 and np.isnan(m.overlap_scores(0, 0, 4)["precision"])


def test_centreline_dice():
    line = np.zeros((60, 60), bool)
    line[20:25, 5:55] = True
    same = m.centreline_dice(**m.centreline_counts(line, line))
    assert same == 1
    thin = np.zeros_like(line)
    thin[22, 5:55] = True
    assert m.centreline_dice(**m.centreline_counts(thin, line)) > 0.97  # width does not matter
    half = line.copy()
    half[:, 30:] = False
    counts = m.centreline_counts(half, line)
    assert m.centreline_dice(**counts) == pytest.approx(2 * 0.5 / 1.5, abs=0.05)  # all precise, half found
    assert m.centreline_dice(**m.centreline_counts(np.roll(line, 20, 0), line)) == 0
    assert np.isnan(m.centreline_dice(**m.centreline_counts(line, np.zeros_like(line))))
    assert m.centreline_dice(**m.centreline_counts(np.zeros_like(line), line)) == 0


def test_hausdorff_against_all_pairs(rng):
    a, b = ellipse((80, 90), 40, 35, 20, 14), ellipse((80, 90), 46, 40, 17, 15)

    def edge(mask):
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        return np.argwhere(mask & ~inner)

    distances = np.linalg.norm(edge(a)[:, None] - edge(b)[None], axis=-1)
    expected = max(np.percentile(distances.min(1), 95), np.percentile(distances.min(0), 95))
    assert m.hausdorff95(a, b) == pytest.approx(expected, abs=1e-4)
    assert m.hausdorff95(a, a) == 0
    assert m.hausdorff95(np.zeros_like(a), a) == pytest.approx(np.hypot(80, 90))
    assert np.isnan(m.hausdorff95(a, np.zeros_like(a)))


def test_disc_geometry():
    (x, y), diameter = m.disc_geometry(ellipse((200, 220), 90.5, 110.25, 40, 30))
    assert (x, y) == pytest.approx((90.5, 110.25), abs=0.05) and diameter == pytest.approx(70, abs=0.5)
    assert m.disc_geometry(np.zeros((5, 5), bool)) is None
    assert m.vertical_cup_disc_ratio(ellipse((100, 100), 50, 50, 30, 30), ellipse((100, 100), 50, 50, 10, 15)) == pytest.approx(31 / 61)
    assert np.isnan(m.vertical_cup_disc_ratio(np.zeros((5, 5), bool), np.ones((5, 5), bool)))
    assert m.vertical_cup_disc_ratio(np.ones((5, 5), bool), np.zeros((5, 5), bool)) == 0


def test_artery_vein_counts():
    artery, vein = np.zeros((2, 4, 10), bool)
    artery[0], vein[1] = True, True
    artery[2], vein[2] = True, True  # crossings have no one class
    p_artery, p_vein = np.zeros((2, 4, 10))
    p_artery[0, :7], p_vein[0, 7:] = 0.8, 0.6  # 7 of 10 arteries right
    p_vein[1], p_artery[1, 0] = 0.3, 0.9  # 9 of 10 veins right
    found = (p_artery > 0.5) | (p_vein > 0.5)  # 10 artery pixels and one (wrong) vein pixel
    valid = np.ones((4, 10), bool)
    counts = m.artery_vein_counts(p_artery, p_vein, found, artery, vein, valid)
    assert (counts["av_n"], counts["av_right"]) == (20, 16)
    assert (counts["av_found_n"], counts["av_found_right"]) == (11, 7)
    assert (counts["av_artery_n"], counts["av_artery_right"], counts["av_vein_n"], counts["av_vein_right"]) == (10, 7, 10, 9)
    valid[0, :5] = False
    assert m.artery_vein_counts(p_artery, p_vein, found, artery, vein, valid)["av_n"] == 15


def test_roc_auc(rng):
    scores, labels = np.round(rng.random(60), 1), rng.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels] for b in scores[~labels]]
    assert m.roc_auc(scores, labels) == pytest.approx(np.mean(pairs))
    weights = rng.integers(0, 3, 60)
    again = np.repeat(np.arange(60), weights)
    assert m.roc_auc(scores, labels, weights) == pytest.approx(m.roc_auc(scores[again], labels[again]))
    assert np.isnan(m.roc_auc(scores, np.ones(60, bool)))


def test_top_mean():
    values = np.linspace(0, 1, 10_000).reshape(100, 100)
    assert m.top_mean(values, share=1e-3) == pytest.approx(values.ravel()[-10:].mean())
    assert m.top_mean(values, values < 0.5, share=1e-3) == pytest.approx(0.5, abs=1e-3)
    assert np.isnan(m.top_mean(values, np.zeros((100, 100), bool)))


def exact_average_precision(probability, truth):
    order = np.argsort(-probability, kind="stable")
    hits = truth[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return precision[hits].mean()


def test_average_precision(rng):
    truth = rng.random(200_000) < 0.004
    probability = np.clip(rng.beta(0.3, 6, truth.size) + truth * rng.beta(2, 3, truth.size) * 0.8, 0, 1).astype(np.float32)
    histogram = Histogram.of(probability, truth)
    assert histogram.average_precision() == pytest.approx(exact_average_precision(probability, truth), abs=2e-3)
    parts = [Histogram.of(probability[i::3], truth[i::3]) for i in range(3)]
    total = parts[0] + parts[1] + parts[2]
    np.testing.assert_array_equal(total.positive, histogram.positive)
    assert np.isnan(Histogram.of(probability, np.zeros_like(truth)).average_precision())
    valid = rng.random(truth.size) < 0.5
    np.testing.assert_array_equal(Histogram.of(probability, truth, valid).negative, Histogram.of(probability[valid], truth[valid]).negative)
    assert Histogram.of(np.array([0.0, 1.0]), np.array([False, True])).average_precision() == 1
    with pytest.raises(ValueError, match="0 to 1"):
        Histogram.of(np.array([0.2, np.nan]), np.array([True, False]))


def test_thresholds(rng):
    """The thresholds found are those that a sweep over masks finds."""
    images = []
    for k in range(4):
        truth = rng.random(20_000) < 0.05
        probability = np.clip(rng.normal(0.15, 0.1, truth.size) + truth * (0.3 + 0.02 * k), 0, 1)
        images.append((probability, truth))
    histograms = [Histogram.of(p, t) for p, t in images]

    def dice(p, t, threshold):
        return 2 * (t & (p >= threshold)).sum() / (t.sum() + (p >= threshold).sum())

    grid = np.arange(0.05, 0.7, 0.005)
    mean_curve = np.array([np.mean([dice(p, t, g) for p, t in images]) for g in grid])
    threshold, value = best_dice(histograms)
    assert value == pytest.approx(mean_curve.max(), abs=2e-3)
    assert np.mean([dice(p, t, threshold) for p, t in images]) == pytest.approx(value, abs=1e-9)
    pooled_threshold, pooled = best_dice(histograms, pooled=True)
    p, t = (np.concatenate(x) for x in zip(*images, strict=True))
    assert dice(p, t, pooled_threshold) == pytest.approx(pooled, abs=1e-9)
    assert BINS >= 1000


def test_one_threshold_for_several_data_sets_is_where_missing_it_costs_most():
    """A data set whose curve is flat has no say against one whose curve is steep, however many images it has."""
    flat = Histogram.of(np.array([0.02] * 900 + [0.9] * 100), np.array([False] * 900 + [True] * 100))
    steep = Histogram.of(np.array([0.25] * 900 + [0.35] * 100), np.array([False] * 900 + [True] * 100))
    threshold, value = best_mean_dice({"flat": [flat] * 5, "steep": [steep]})
    assert 0.25 < threshold <= 0.35 and value == pytest.approx(1)
    (far, _), (near, _) = best_dice([flat]), best_dice([steep])
    assert far > 0.4 and (far + near) / 2 > 0.35, "the middle of both would have missed every vessel of the steep one"
    with pytest.raises(ValueError, match="no validation image has a reference pixel"):
        best_mean_dice({"nothing": [Histogram.of(np.linspace(0, 1, 100), np.zeros(100, bool))]})


def test_threshold_of_an_absent_target():
    nothing = Histogram.of(np.linspace(0, 1, 100), np.zeros(100, bool))
    with pytest.raises(ValueError, match="no validation image has a reference pixel"):
        best_dice([nothing])
    # a flat optimum: the middle of the gap between background and lesion
    apart = Histogram.of(np.array([0.1, 0.1, 0.9]), np.array([False, False, True]))
    threshold, value = best_dice([nothing, apart])
    assert value == 1 and threshold == pytest.approx(0.5, abs=0.01)
