"""Seconds of a training step on this CPU, with our gradients of depthwise convolutions and with torch's own, in turns.

    python benchmarks/training_step.py [--steps 6] [--crop 512] [--threads 1]

A step of the vessels' task from random weights: three crops forward, loss, backward, update. The peer runs depthwise convolutions in
float32, where torch's own gradients are faster than in bfloat16. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from retsam.segmentation import depthwise, network
from retsam.training.config import TaskConfig
from retsam.training.labels import FOV_BIT, VESSEL_BITS
from retsam.training.sampler import Batch
from retsam.training.trainer import batch_loss

_FROZEN = 3
_BATCH = TaskConfig(datasets={}).batch


def torchs_own(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """The same convolution, all of it by torch."""
    with torch.autocast("cpu", enabled=False):
        return F.conv2d(x.float(), weight, bias, stride, padding, groups=len(weight)).to(x.dtype)


def stepper(crop: int) -> Callable[[], float]:
    """A function that takes one step and says how long it took, seconds."""
    rng = np.random.default_rng(0)
    model = network.RetinaNetwork({"vessels": network.DECODERS["vessels"]}).to(memory_format=torch.channels_last)
    model.encoder.frozen = _FROZEN
    model.encoder.adapt_statistics(True)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    known = FOV_BIT | VESSEL_BITS["known_av"] | VESSEL_BITS["known_vessel"]
    label = (rng.integers(0, 8, (_BATCH, crop, crop)) | known).astype(np.uint8)
    batch = Batch("vessels", rng.integers(0, 255, (_BATCH, crop, crop, 3), dtype=np.uint8), label, None, 8)

    def step() -> float:
        started = time.perf_counter()
        loss = sum(batch_loss(model, batch, torch.device("cpu")).values())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return time.perf_counter() - started

    return step


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="of each kind; the median counts")
    parser.add_argument("--crop", type=int, default=512, help="side of the crops, px")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kinds = {"ours": depthwise.depthwise, "torch": torchs_own}
    step, seconds = stepper(arguments.crop), {kind: [] for kind in kinds}
    for kind in tuple(kinds) * (arguments.steps + 1):
        depthwise.depthwise = kinds[kind]
        seconds[kind].append(step())
    ours, peer = (float(np.median(values[1:])) for values in seconds.values())  # the first of each compiles and fills caches
    what = f"{arguments.steps} steps of {_BATCH} crops of {arguments.crop} px"
    print(f"{what}, median: {ours:.2f} s with our gradients, {peer:.2f} s with torch's")
    print(json.dumps({"seconds_a_step": round(ours, 3), "seconds_torch": round(peer, 3), "ratio": round(peer / ours, 2)}))


if __name__ == "__main__":
    main()
