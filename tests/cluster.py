"""A Dask cluster of this machine for tests: a scheduler and workers under nannies, processes of their own, on loopback.

``with cluster(workers=2) as running, running.client() as client: ...``
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_SECONDS = 120
END_SECONDS = 20

_ROOT = Path(__file__).parents[1]

# A process ends with the tests that started it, also where those are killed: then its standard input ends.
_COMMAND = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
from distributed.cli.{program} import main
main()
"""


@dataclass
class Running:
    """A cluster that runs.

    Attributes
    ----------
    address
        Of its scheduler, as ``tcp://127.0.0.1:40001``.
    scheduler_pid, nanny_pids
        Processes that were started here; each nanny has a worker, see `worker_pids`.
    folder
        Where processes write their logs, ``scheduler.log`` and ``w1.log``; it goes with the cluster.
    """

    address: str
    folder: Path
    scheduler_pid: int
    nanny_pids: list[int] = field(default_factory=list)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Connect a ``distributed.Client``, which is closed at the end and is nobody's default."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            yield client

    def worker_pids(self) -> list[int]:
        """Processes that do the work, in the order of the workers' names: kill one, and its nanny starts another."""
        with self.client() as client:
            pids = client.run(os.getpid, on_error="ignore")  # one may be dying at this moment
            workers = client.scheduler_info(n_workers=-1)["workers"]
        return [pids[address] for address in sorted(pids, key=lambda address: str(workers[address]["name"]))]

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many have joined, as after one was killed."""
        with self.client() as client:
            client.wait_for_workers(count, timeout=START_SECONDS)


@contextmanager
def cluster(
    workers: int = 2,
    *,
    environment: Mapping[str, str] | None = None,
    environments: Sequence[Mapping[str, str]] = (),
    prefixes: Sequence[Sequence[str]] = (),
    host: str = "127.0.0.1",
    worker_hosts: Sequence[str] = (),
    threads: int = 1,
    memory_limit: str = "0",
) -> Iterator[Running]:
    """Start a scheduler and workers ``w1``, ``w2`` ..., and end them all when the context ends.

    Parameters
    ----------
    workers
        How many; none is a cluster without a worker.
    environment
        Variables for all of them, beside ours.
    environments
        More for each worker.
    prefixes
        Words before each worker's command, as ``("ip", "netns", "exec", NAME)``.
    host, worker_hosts
        Addresses on which the scheduler and each worker listen.
    threads, memory_limit
        Of each worker, as ``dask worker`` has them; 0 is no limit.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rtls-cluster-")))
        told = folder / "scheduler.json"
        shared = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")])),
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",  # it wakes up a hundred times a second
            **(environment or {}),
        }
        words = ["--host", host, "--port", "0", "--no-dashboard", "--no-show", "--scheduler-file", str(told)]
        scheduler = _start(stack, "dask_scheduler", words, shared, folder / "scheduler.log")
        address = _address(told, scheduler, folder / "scheduler.log")
        running = Running(address, folder, scheduler.pid)
        processes = []
        for place in range(workers):
            words = [address, "--name", f"w{place + 1}", "--host", _nth(worker_hosts, place) or host]
            words += ["--nthreads", str(threads), "--memory-limit", memory_limit, "--no-dashboard", "--nanny"]
            words += ["--local-directory", str(folder / f"w{place + 1}")]
            own = {**shared, **(_nth(environments, place) or {})}
            log = folder / f"w{place + 1}.log"
            processes.append(_start(stack, "dask_worker", words, own, log, _nth(prefixes, place) or ()))
        running.nanny_pids = [process.pid for process in processes]
        if workers:
            try:
                running.wait_for_workers(workers)
            except TimeoutError:
                raise RuntimeError(f"the workers did not come: {_ends_of(folder)}") from None
        yield running


def _start(
    stack: ExitStack,
    program: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    prefix: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    command = [*prefix, sys.executable, "-c", _COMMAND.format(program=program), *words]
    output = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, start_new_session=True
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, in good order, or else with all that it has started."""
    assert process.stdin is not None
    try:
        process.send_signal(signal.SIGTERM)
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finally:
        process.stdin.close()


def _address(told: Path, scheduler: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and scheduler.poll() is None:
        with contextlib.suppress(FileNotFoundError, ValueError):  # not there yet, or not whole
            return str(json.loads(told.read_text())["address"])
        time.sleep(0.02)
    raise RuntimeError(f"the scheduler did not start: {log.read_text(errors='replace')[-2000:]}")


def _ends_of(folder: Path) -> str:
    return "; ".join(f"{log.name}: {log.read_text(errors='replace')[-1000:]}" for log in folder.glob("*.log"))


def _nth(values: Sequence[Any], place: int) -> Any:
    return values[place] if place < len(values) else None
