"""The lock of a run that was killed: Snakemake leaves it behind, and the next run clears it once nobody can hold it any more.

Snakemake's own lock is a set of files, which outlive a power cut or ``kill -9``. Beside them a run of this workflow holds an ``flock``,
which the kernel gives up when the process ends, however it ends. Files without that are the lock of a dead run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO

#: Names this host, and is locked while a run goes on.
OWNER = "retsam-run.lock"

_held: dict[Path, IO[str]] = {}


def hold(folder: Path) -> None:
    """Mark the run of this process as alive. Called once Snakemake has its own lock.

    Parameters
    ----------
    folder : Path
        Snakemake's ``.snakemake``.
    """
    path = folder.resolve() / OWNER
    mark = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without flock: then a dead run's lock is cleared by hand, as ever
        mark.close()
        path.unlink(missing_ok=True)
        return
    mark.truncate(0)
    mark.write(os.uname().nodename)
    mark.flush()
    _held[path] = mark


def let_go(folder: Path) -> None:
    """The run ended by itself, well or not: Snakemake takes its lock away, and this goes as well."""
    path = folder.resolve() / OWNER
    path.unlink(missing_ok=True)
    if mark := _held.pop(path, None):
        mark.close()


def clear_dead_lock(folder: Path) -> bool:
    """Remove Snakemake's lock if the run that took it is dead.

    Only the lock of a run on this host is touched: another host's may be alive where its file system's locks are not seen here.

    Parameters
    ----------
    folder : Path
        Snakemake's ``.snakemake``.

    Returns
    -------
    bool
        Whether there was a lock of a dead run.
    """
    path, locks = folder.resolve() / OWNER, folder / "locks"
    if path in _held or not path.is_file() or not locks.is_dir() or not any(locks.iterdir()):
        return False
    with suppress(BlockingIOError), path.open("r+", encoding="utf-8") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its owner lives
        if mark.read() != os.uname().nodename:
            return False
        shutil.rmtree(locks)
        locks.mkdir()
        path.unlink()
        return True
    return False
