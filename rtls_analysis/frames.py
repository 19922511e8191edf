"""pandas here, Dask there: the only module that knows Dask.

A table is a pandas DataFrame, or a ``dask.dataframe`` whose partitions are such DataFrames and whose meta is the
declared schema. Nothing here is imported before it is needed: without a Dask client, Dask is never loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.schema import TABLES, Table, conform, from_arrow, to_arrow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Frame = Any
"""A pandas DataFrame, or a Dask one."""


class ClusterProblem(Exception):
    """The cluster cannot do what was asked for: one line that says what would do."""


# -- frames of both kinds ------------------------------------------------------------------------------------


def is_dask(frame: object) -> bool:
    """Whether a frame, or a column, is a Dask one."""
    module = sys.modules.get("dask.dataframe")
    return module is not None and isinstance(frame, (module.DataFrame, module.Series))


def collected(frame: Frame, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Give a frame as a pandas one; of a Dask frame only these columns are fetched, where they are named.

    Columns that it lacks are left out. What hangs on the frame (``attrs``) comes with it.
    """
    if not is_dask(frame):
        local: pd.DataFrame = frame
        return local
    if columns is not None:
        frame, whole = frame[[name for name in columns if name in frame.columns]], frame
    else:
        whole = frame
    result: pd.DataFrame = frame.compute().reset_index(drop=True)
    result.attrs = dict(getattr(whole, "attrs", {}))
    return result


def with_attrs(frame: Frame, attrs: Mapping[str, Any]) -> Frame:
    """Hang something on a frame of either kind; Dask's frames have no ``attrs`` of their own."""
    frame.attrs = dict(attrs)
    return frame


def meta(table: Table, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Give a table without rows: what Dask wants to know of a frame before it has seen one."""
    arrow = to_arrow(table, ())
    return from_arrow(table, arrow if columns is None else arrow.select(list(columns)))


def from_parts(table: Table, parts: Sequence[str], filesystem: Any = None) -> Frame:
    """Open Parquet parts as one Dask frame with the declared columns and dtypes, a partition per part.

    Parameters
    ----------
    table
        The declared table.
    parts
        Paths as `filesystem` names them; without any the frame has one empty partition.
    filesystem
        An fsspec file system; the local one by default.
    """
    import dask
    import dask.dataframe as dd

    with dask.config.set({"dataframe.convert-string": False}):  # the schema's dtypes, not Dask's
        if not parts:
            return dd.from_pandas(meta(table), npartitions=1)
        return dd.from_map(_read_part, list(parts), table=table.name, filesystem=filesystem, meta=meta(table))


def _read_part(
    path: str, *, table: str, filesystem: Any, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    import pyarrow.parquet as pq

    declared = TABLES[table]
    wanted = declared.names() if columns is None else list(columns)
    arrow = pq.read_table(path, columns=wanted, filesystem=filesystem, partitioning=None)
    return conform(from_arrow(declared, arrow), declared)[wanted]


def from_arrow_futures(table: Table, futures: Sequence[Any]) -> Frame:
    """Make a Dask frame of Arrow tables that lie on the workers: a partition per future."""
    import dask
    import dask.dataframe as dd

    with dask.config.set({"dataframe.convert-string": False}):
        if not futures:
            return dd.from_pandas(meta(table), npartitions=1)
        client = futures[0].client
        parts = [client.submit(_partition, future, table.name, pure=False) for future in futures]
        return dd.from_delayed(parts, meta=meta(table), verify_meta=False)


def _partition(arrow: pa.Table, table: str) -> pd.DataFrame:
    return from_arrow(TABLES[table], arrow)


# -- a cluster -----------------------------------------------------------------------------------------------


class Cluster:
    """A Dask client as the scanner and the readers use it.

    Parameters
    ----------
    client
        A ``distributed.Client``, or the address of a scheduler.

    Raises
    ------
    ClusterProblem
        Dask is not installed, nobody answers there, no worker has joined, or the client is an asynchronous one.
    """

    def __init__(self, client: Any) -> None:
        try:
            import distributed
        except ImportError:
            raise ClusterProblem(
                "a cluster needs Dask; install it with: pip install 'rtls_analysis[dask]'"
            ) from None
        self._own = isinstance(client, str)
        if isinstance(client, str):
            try:
                client = distributed.Client(client, timeout=_CONNECT_SECONDS, set_as_default=False)
            except (OSError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ClusterProblem(f"no Dask scheduler at {client}: {reason}") from None
        if not isinstance(client, distributed.Client):
            raise ClusterProblem(
                f"{type(client).__name__} is no Dask client; give a distributed.Client, or tcp://HOST:PORT"
            )
        if client.asynchronous:
            raise ClusterProblem(
                "the Dask client is an asynchronous one; give one made without asynchronous=True"
            )
        self.client = client

    @property
    def workers(self) -> list[str]:
        """The addresses of the workers that have joined, in a lasting order; `ClusterProblem` where there is none."""
        info = self.client.scheduler_info(n_workers=-1)["workers"]
        if not info:
            raise ClusterProblem("the cluster has no worker; start one: dask worker SCHEDULER")
        return sorted(info, key=lambda address: (str(info[address].get("name")), address))

    def on_each(
        self, function: Callable[..., Any], *args: Any, workers: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Call a function once in each worker's process, or in these, whatever they are busy with.

        Gives results by address, in the order of `workers`. A coroutine function runs in the worker's event loop.
        """
        asked = self.workers if workers is None else list(workers)
        results: dict[str, Any] = self.client.run(function, *args, workers=asked)
        return {worker: results[worker] for worker in asked}

    def submit(self, function: Callable[..., Any], *args: Any, worker: str, key: str) -> Any:
        """Let this worker, and no other, call a function; gives a future.

        Where the worker dies the call waits for one of that address, until it is taken back.
        """
        return self.client.submit(
            function, *args, key=key, pure=False, workers=[worker], allow_other_workers=False
        )

    def take_back(self, futures: Sequence[Any]) -> None:
        """Take tasks back; those that run notice it themselves (see `this_task`)."""
        self.client.cancel(list(futures), force=True)

    def listen(self, topic: str, hear: Callable[[float, Any], None]) -> Callable[[], None]:
        """Have what tasks `tell` under a topic heard, in a thread of Dask's; gives what ends that."""
        self.client.subscribe_topic(topic, lambda event: hear(*event))
        return lambda: self.client.unsubscribe_topic(topic)

    def map(
        self, function: Callable[..., Any], items: Sequence[Any], *args: Any, label: str, shown: bool
    ) -> list[Any]:
        """Call a function for each item, one task each; gives the futures, done, in the order of the items.

        Dask's own progress bar is what is shown. An interrupt takes back what has not begun.
        """
        from distributed import KilledWorker, progress, wait

        futures = self.client.map(
            function, items, *[[arg] * len(items) for arg in args], pure=False, key=label, batch_size=1000
        )
        try:
            with self.client.as_current():  # ours may be nobody's default
                if shown:
                    progress(futures)
                wait(futures)
            self.client.gather([future for future in futures if future.status == "error"])  # raises
        except BaseException as error:
            self.client.cancel(futures, force=True)
            if isinstance(error, KilledWorker):
                raise ClusterProblem(
                    f"a task ({label}) has cost several workers, the last one {error.last_worker.address}; look into "
                    "their logs: it may be memory"
                ) from None
            raise
        return list(futures)

    def results(self, futures: Sequence[Any]) -> list[Any]:
        """Fetch what came of tasks, in their order."""
        results: list[Any] = self.client.gather(list(futures))
        return results

    def close(self) -> None:
        """Let go of a client that was made here; one that was given stays open."""
        if self._own:
            self.client.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_CONNECT_SECONDS = 10


def tell(topic: str, word: Mapping[str, Any]) -> None:
    """Within a task: tell those who `listen` to a topic something, made of texts, numbers, lists and mappings."""
    from distributed import get_worker

    get_worker().log_event(topic, dict(word))


def this_task() -> Callable[[], bool]:
    """Within a task: give something that tells whether it is still wanted.

    A task is no longer wanted when its client took it back or is gone, or when its worker is about to end.
    """
    from distributed import get_worker
    from distributed.worker import thread_state

    worker, key = get_worker(), thread_state.key

    def is_wanted() -> bool:
        task = worker.state.tasks.get(key)
        is_alive = worker.status.name in ("running", "paused")
        return is_alive and task is not None and task.state in ("executing", "long-running")

    return is_wanted
