"""Where a run starts from: the network of its tasks' view."""

from __future__ import annotations

import pytest
import torch

from retsam.segmentation.network import DECODERS, RetinaNetwork
from retsam.segmentation.weights import DEFAULT_WEIGHTS, load_state, of_view
from retsam.training.config import TaskConfig, TrainConfig
from retsam.training.trainer import _initialise, shared_view

torch.set_num_threads(1)
STEM = "encoder._conv_stem.weight"


def run(*tasks: str, roi: float = 0.5) -> TrainConfig:
    settings = {task: TaskConfig(datasets={"drawn": 1}, roi=roi if task == "optic_nerve" else 0) for task in tasks}
    return TrainConfig(manifest="m.csv", root=".", out="run", init=str(DEFAULT_WEIGHTS), tasks=settings)


@pytest.mark.parametrize(
    ("config", "view"),
    [
        (run("vessels"), "fine"),
        (run("vessels", "lesions_dr"), "fine"),
        (run("optic_nerve", "macula"), "whole"),
        (run("optic_nerve"), "whole"),
        (run("optic_nerve", roi=1), "roi"),
        (run("vessels", "macula"), None),
    ],
)
def test_decoders_begin_on_the_trunk_they_belong_to(config, view, caplog):
    assert shared_view(config) == view
    model = RetinaNetwork({task: DECODERS[task] for task in config.tasks})
    _initialise(model, config.init, view, None)
    state, _ = load_state(DEFAULT_WEIGHTS)
    expected = of_view(state, view or "whole")
    assert torch.equal(model.state_dict()[STEM], expected[STEM])
    for task in config.tasks:
        name = next(name for name, _ in model.named_parameters() if name.startswith(f"decoders.{task}."))
        assert torch.equal(model.state_dict()[name], expected[name])
    assert ("the decoders of vessels belong to another (views.fine)" in caplog.text) == (view is None)
