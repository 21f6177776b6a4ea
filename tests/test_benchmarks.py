"""Benchmarks are run by hand: here only that they still find what they measure."""

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark_of(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py") if path.stem != "pvbm_worker"))
def test_imports(benchmark_of, name):
    """`pvbm_worker` runs in an environment of its own."""
    assert benchmark_of(name).__doc__


def test_passes_are_counted_where_the_segmenter_makes_them(benchmark_of, monkeypatch):
    from retsam.segmentation.predict import default_segmenter

    segmenter = default_segmenter()
    monkeypatch.setattr(segmenter, "logits", segmenter.logits)  # put back at the end
    passes = benchmark_of("segmentation").count_passes(segmenter, "cpu")
    refined = segmenter._refine_disc(
        np.zeros((1, 64, 64, 3), np.uint8),
        np.ones((1, 64, 64), bool),
        np.zeros((1, 2, 512, 512), np.float32),
        [(256, 256, 60)],
        np.ones(1, bool),
    )
    assert len(refined) == 1 and list(passes) == ["roi_384"] and passes["roi_384"]["seconds"] > 0
