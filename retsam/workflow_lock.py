"""The lock of a run that was killed: Snakemake leaves it behind, and the next run clears it once nobody can hold it any more.

Snakemake's own lock is a set of files, which outlive a power cut or ``kill -9``. Several runs may go on in one folder at a time (two
studies), each with files of its own in ``.snakemake/locks``. So each run of this workflow leaves a mark of its own that lists its lock
files, and holds an ``flock`` on the mark, which the kernel gives up when the process ends, however it ends. The lock files of a mark that
nobody holds are those of a dead run; no others are ever touched.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

#: Marks of runs: first line this host, then one lock file a line.
MARKS = "retsam-run.*.lock"

_held: dict[Path, IO[str]] = {}


def hold(folder: Path, locks: Iterable[str | Path] | None = None) -> None:
    """Mark the run of this process as alive. Called once Snakemake has its own lock.

    Parameters
    ----------
    folder : Path
        Snakemake's ``.snakemake``.
    locks : iterable of str or Path, optional
        Lock files of this run; if left out, those that no other run has marked.
    """
    folder = folder.resolve()
    if locks is None:
        others = set().union(*(_read(path)[1] for path in folder.glob(MARKS)))
        locks = {path.name for path in folder.glob("locks/*")} - others
    # The process may have the number of an earlier one, whose mark is still to be read: hence a name that nobody had before.
    path = folder / f"retsam-run.{os.getpid()}.{uuid.uuid4().hex[:8]}.lock"
    # It gets its name only when it is held and whole, so that nobody sees it free, takes it for a dead run's and removes it.
    unnamed = path.with_suffix(".part")
    mark = unnamed.open("w", encoding="utf-8")
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without flock (nobody else knows this name): then a dead run's lock is cleared by hand, as ever
        mark.close()
        unnamed.unlink(missing_ok=True)
        return
    mark.write("\n".join([os.uname().nodename, *sorted(Path(name).name for name in locks)]))
    mark.flush()
    unnamed.rename(path)
    _held[path] = mark


def let_go(folder: Path) -> None:
    """The run ended by itself, well or not: Snakemake takes its lock away, and this process takes its own mark."""
    for path in [path for path in _held if path.parent == folder.resolve()]:
        path.unlink(missing_ok=True)
        _held.pop(path).close()


def clear_dead_lock(folder: Path) -> bool:
    """Remove Snakemake's lock files of runs that are dead.

    Only those of runs on this host are touched: another host's may be alive where its file system's locks are not seen here.

    Parameters
    ----------
    folder : Path
        Snakemake's ``.snakemake``.

    Returns
    -------
    bool
        Whether there was a lock of a dead run.
    """
    folder = folder.resolve()
    dead: dict[Path, set[str]] = {}
    alive: set[str] = set()
    cleared = False
    with ExitStack() as stack:  # dead marks stay held until their files are gone, so that two runs that start at once do not both clear
        for path in sorted(folder.glob(MARKS)):
            host, locks = _read(path)
            if host == os.uname().nodename and path not in _held and _take(path, stack):
                dead[path] = locks
            else:
                alive |= locks
        for path, locks in dead.items():
            for lock in (folder / "locks" / name for name in sorted(locks - alive)):
                if lock.is_file():
                    lock.unlink(missing_ok=True)
                    cleared = True
            path.unlink(missing_ok=True)
    return cleared


def _read(path: Path) -> tuple[str, set[str]]:
    """Host and lock files of a mark; empty if it has just gone or may not be read."""
    try:
        host, *locks = path.read_text(encoding="utf-8").splitlines() or [""]
    except OSError:
        return "", set()
    return host, set(locks)


def _take(path: Path, stack: ExitStack) -> bool:
    """Hold a mark until the stack unwinds; False if its run lives, or if it cannot be known."""
    try:
        mark = stack.enter_context(path.open("r+", encoding="utf-8"))
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have cleared and removed it between opening and holding; its lock files may have new owners by now.
        return os.path.samestat(os.fstat(mark.fileno()), path.stat())
    except BlockingIOError:  # its run lives
        return False
    except OSError:  # gone, not ours to write, or no flock here
        return False
