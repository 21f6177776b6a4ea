"""The same tasks in this process, on threads, on processes or on a Dask cluster elsewhere, with a bounded number under way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from retsam.biomarkers.config import BiomarkersConfig

#: Tasks under way for each worker thread: one that runs and one that waits.
_AHEAD = 2


class SchedulerError(RuntimeError):
    """The configured Dask scheduler cannot be reached."""


Run = Callable[[Callable[..., Any], Sequence[tuple]], Iterator[tuple[int, Any]]]


def worker_count(config: BiomarkersConfig) -> int:
    """Workers on this machine: as configured, else one for each core that this process may use."""
    from dask.system import CPU_COUNT

    return config.workers or CPU_COUNT


def _serial(function: Callable[..., Any], tasks: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
    for index, task in enumerate(tasks):
        try:
            yield index, function(*task)
        except Exception as error:  # noqa: BLE001 (handed to the caller, which makes it rows with a reason)
            yield index, error


def _streamed(client) -> Run:
    from distributed import as_completed

    def run(function: Callable[..., Any], tasks: Sequence[tuple]) -> Iterator[tuple[int, Any]]:
        threads = sum(client.nthreads().values()) or 1
        waiting = iter(enumerate(tasks))
        index_of: dict[str, int] = {}
        done = as_completed()

        def submit() -> None:
            for index, task in waiting:
                future = client.submit(function, *task, pure=False)
                index_of[future.key] = index
                done.add(future)
                return

        for _ in range(threads * _AHEAD):
            submit()
        for future in done:
            index, error = index_of.pop(future.key), future.exception()
            result = error if error is not None else future.result()
            future.release()
            submit()
            yield index, result

    return run


def _quiet() -> None:
    """Dask's own log is as loud as this package's; it takes its level from its configuration, when it is first imported."""
    import dask

    level = "info" if logging.getLogger().isEnabledFor(logging.INFO) else "error"
    dask.config.set({"logging.distributed": level})


@contextmanager
def runner(config: BiomarkersConfig) -> Iterator[Run]:
    """A function that runs tasks where the configuration says.

    Yields
    ------
    callable
        ``run(function, tasks)`` yields ``(index of task, result)`` as they finish; a task that raised gives its exception as result.
        At most two tasks a worker are under way, so that memory does not grow with the cohort.

    Raises
    ------
    SchedulerError
    """
    workers = worker_count(config)
    if config.scheduler == "synchronous" or (config.scheduler in ("threads", "processes") and workers == 1):
        yield _serial
        return
    _quiet()
    from distributed import Client, LocalCluster

    if config.scheduler in ("threads", "processes"):
        processes = config.scheduler == "processes"
        shape = {"n_workers": workers, "threads_per_worker": 1} if processes else {"n_workers": 1, "threads_per_worker": workers}
        with LocalCluster(processes=processes, dashboard_address=None, **shape) as cluster, Client(cluster) as client:
            yield _streamed(client)
    else:
        try:
            client = Client(config.scheduler)
        except (OSError, ValueError) as error:
            raise SchedulerError(
                f"biomarkers.scheduler: no Dask scheduler answers at {config.scheduler} ({error}); start one there, or set `processes`"
            ) from error
        with client:
            yield _streamed(client)
