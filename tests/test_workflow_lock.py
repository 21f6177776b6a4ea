"""The lock files of a killed run are cleared, those of a live one never."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from retsam.workflow_lock import MARKS, clear_dead_lock, hold, let_go

#: What a run does: it clears, takes a lock file, marks itself; then it ends when a line comes.
RUN = """
import sys; from pathlib import Path; from retsam.workflow_lock import clear_dead_lock, hold, let_go
folder, lock = Path(sys.argv[1]), Path(sys.argv[1]) / "locks" / sys.argv[2]
clear_dead_lock(folder); lock.write_text("results"); hold(folder, [lock]); print("held", flush=True)
sys.stdin.readline(); lock.unlink(); let_go(folder)
"""


@pytest.fixture
def folder(tmp_path):
    """A ``.snakemake`` folder without a lock."""
    (tmp_path / "locks").mkdir()
    return tmp_path


@pytest.fixture
def start(folder):
    """Starts a process that holds a lock file as a run does."""
    started = []

    def run(lock: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(process := subprocess.Popen([sys.executable, "-c", RUN, str(folder), lock], **pipes))
        assert process.stdout.readline().strip() == "held"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "locks").iterdir())


def test_the_lock_of_a_live_run_stays(folder, start):
    start("0.input.lock")
    assert not clear_dead_lock(folder)
    assert names(folder) == ["0.input.lock"]


def test_the_lock_of_a_killed_run_is_cleared_once(folder, start):
    kill(start("0.input.lock"))
    assert clear_dead_lock(folder)
    assert not names(folder) and not list(folder.glob(MARKS))
    assert not clear_dead_lock(folder)


def test_a_lock_that_no_run_of_ours_took_stays(folder, start):
    (folder / "locks" / "other.lock").write_text("another workflow in this folder")
    assert not clear_dead_lock(folder)
    kill(start("0.input.lock"))
    assert clear_dead_lock(folder)
    assert names(folder) == ["other.lock"]


def test_the_lock_of_another_host_stays(folder):
    (folder / "locks" / "0.input.lock").write_text("results")
    (folder / "retsam-run.1.0123.lock").write_text("another-host\n0.input.lock")
    assert not clear_dead_lock(folder)
    assert names(folder) == ["0.input.lock"] and list(folder.glob(MARKS))


def test_two_studies_in_one_folder_do_not_touch_each_others_locks(folder, start):
    """B ends while A goes on; C is killed while A goes on; A stays locked through both."""
    start("a.lock")
    b = start("b.lock")
    assert len(list(folder.glob(MARKS))) == 2
    b.communicate("end\n")
    assert len(list(folder.glob(MARKS))) == 1 and not clear_dead_lock(folder)
    kill(start("c.lock"))
    assert clear_dead_lock(folder)
    assert names(folder) == ["a.lock"] and len(list(folder.glob(MARKS))) == 1
    assert not clear_dead_lock(folder)


def test_a_lock_file_that_a_live_run_has_taken_anew_stays(folder, start):
    """Snakemake gives numbers of lock files again: the same name may be on a dead run's list and a live one's."""
    start("0.input.lock")
    (folder / "retsam-run.1.0123.lock").write_text(f"{os.uname().nodename}\n0.input.lock")
    assert not clear_dead_lock(folder)
    assert names(folder) == ["0.input.lock"] and len(list(folder.glob(MARKS))) == 1


def test_a_run_that_is_not_told_its_lock_files_takes_those_that_nobody_has(folder, start):
    start("a.lock")
    (folder / "locks" / "b.lock").write_text("results")
    hold(folder)
    try:
        lists = {path.read_text().split("\n", 1)[1] for path in folder.glob(MARKS)}
        assert lists == {"a.lock", "b.lock"}
    finally:
        let_go(folder)
    assert len(list(folder.glob(MARKS))) == 1, "the other run's mark stays"


def test_without_flock_there_is_no_mark_and_nothing_is_cleared(folder, monkeypatch):
    def refuse(*_):
        raise OSError("no locks available")

    (folder / "locks" / "a.lock").write_text("results")
    (folder / "retsam-run.1.0123.lock").write_text(f"{os.uname().nodename}\na.lock")
    monkeypatch.setattr(fcntl, "flock", refuse)
    hold(folder, ["b.lock"])
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["retsam-run.1.0123.lock"]
    assert not clear_dead_lock(folder) and names(folder) == ["a.lock"]
