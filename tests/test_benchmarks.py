"""Benchmarks are run by hand: here only that they still find what they measure."""

import argparse
import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from retsam.demo.compare import compare

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
    with torch.inference_mode():  # as prediction does; outside it, a processor with bfloat16 would be given float32
        refined = segmenter._refine_disc(
            np.zeros((1, 64, 64, 3), np.uint8),
            np.ones((1, 64, 64), bool),
            np.zeros((1, 2, 512, 512), np.float32),
            [(256, 256, 60)],
            np.ones(1, bool),
        )
    assert len(refined) == 1 and list(passes) == ["roi_384"] and passes["roi_384"]["seconds"] > 0


def test_lesions_invented_in_rendered_eyes_are_shown(benchmark_of):
    """A relative error has no denominator where nothing is: what is found there is counted, and is no part of n."""
    summary = benchmark_of("rendered").summary
    eyes = [(100.0, 110.0), (0.0, 0.0), (0.0, 50.0), (0.0, 60.0), (100.0, None)]
    parts = [compare({"hemorrhage_area_px2": truth}, {"hemorrhage_area_px2": found}) for truth, found in eyes]
    (row,) = summary(pd.concat(parts).assign(source="network")).to_dict("records")
    assert {key: row[key] for key in ("n", "null", "absent", "false")} == {"n": 1, "null": 1, "absent": 1, "false": 2}
    assert row["bias"] == row["median_abs"] == pytest.approx(10)


@pytest.mark.parametrize("segmented", [True, False])
def test_the_page_of_rendered_eyes_speaks_of_the_network_where_it_shows_it(benchmark_of, segmented):
    rendered = benchmark_of("rendered")
    table = compare({"cdr_vertical": 0.5}, {"cdr_vertical": 0.4}).assign(source="true")
    page = rendered.page(rendered.summary(table), argparse.Namespace(eyes=1, size=512, segmented=segmented), "")
    assert ("`network`" in page) == segmented
