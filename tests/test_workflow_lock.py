"""The lock of a killed run is cleared, that of a live one never."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from retsam.workflow_lock import OWNER, clear_dead_lock, let_go

HOLD = (
    "import sys, time; from pathlib import Path; from retsam.workflow_lock import hold; "
    "hold(Path(sys.argv[1])); print('held', flush=True); "
)


@pytest.fixture
def folder(tmp_path):
    """A ``.snakemake`` folder with Snakemake's lock in it."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "0.input.lock").write_text("results/report.html")
    return tmp_path


@pytest.fixture
def run(folder):
    """A process that holds the folder as a run does."""
    process = subprocess.Popen([sys.executable, "-c", HOLD + "time.sleep(600)", str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "held"
    yield process
    process.kill()
    process.wait()


def test_the_lock_of_a_live_run_stays(folder, run):
    assert not clear_dead_lock(folder)
    assert list((folder / "locks").iterdir())


def test_the_lock_of_a_killed_run_is_cleared_once(folder, run):
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert clear_dead_lock(folder)
    assert not list((folder / "locks").iterdir())
    assert not clear_dead_lock(folder)


def test_a_lock_that_no_run_of_ours_took_stays(folder):
    assert not clear_dead_lock(folder)
    assert list((folder / "locks").iterdir())


def test_the_lock_of_another_host_stays(folder):
    (folder / OWNER).write_text("another-host")
    assert not clear_dead_lock(folder)
    assert list((folder / "locks").iterdir())


def test_a_run_that_ends_takes_its_mark_away(folder):
    (folder / OWNER).write_text("mark")
    let_go(folder)
    assert not (folder / OWNER).exists()
