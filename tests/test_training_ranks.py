"""Two processes train together: experts one after the other, one cache, one end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import torch
import yaml
from fundus_drawings import write_manifest

from retsam.training.config import TaskConfig, TrainConfig

# The second process begins its minutes later, and would stop at another step.
RUN = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from retsam.training import trainer
from retsam.training.config import TrainConfig
from retsam.training.stages import run_stage

class Late(trainer.BatchStream):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        time.sleep(0.7 * int(os.environ["RANK"]))

steps, step_of = [], trainer.batch_loss
def counted(model, batch, device):
    steps.append(batch.task)
    return step_of(model, batch, device)

trainer.batch_loss, trainer.BatchStream = counted, Late
built = []
build = trainer.load_frames
def first(*arguments):
    built.append(bool(list((arguments[0].out / "cache").glob("*.csv"))))
    return build(*arguments)
trainer.load_frames = first
run_stage(TrainConfig.read(Path(sys.argv[1])), "experts", minutes=float(sys.argv[2]))
print("RESULT", len(steps), *sorted(set(steps)), built, torch.distributed.is_initialized())
"""


def test_two_processes_stop_together_and_build_one_cache(tmp_path):
    settings = dict(datasets={"drawn": 1}, crop=64, batch=1, frame=64)
    tasks = {task: TaskConfig(**settings) for task in ("macula", "vessels")}
    manifest = write_manifest(tmp_path)
    config = TrainConfig(manifest=manifest, root=tmp_path, out=tmp_path / "run", init="random", tasks=tasks, steps=9999, warmup=0)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    about = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", RUN, str(tmp_path / "run.yaml"), "0.06"]
    processes = [
        subprocess.Popen(command, env={**os.environ, **about, "RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        answers = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(error[-2000:] for _, error in answers)
    first, second = (out.split("RESULT ")[1].strip() for out, _ in answers)
    assert first.endswith("macula vessels [False, False] False") and second.endswith("macula vessels [True, True] False")
    assert first.split()[0] == second.split()[0], "both took as many steps"
    assert torch.load(tmp_path / "run" / "vessels" / "checkpoint.pt", weights_only=True)["step"] > 0
