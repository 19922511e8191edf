"""pandas here, Dask there: the only module that knows Dask.

A table is a pandas DataFrame, or a ``dask.dataframe`` whose partitions are such DataFrames and whose meta is the
declared schema. Nothing here is imported before it is needed: without a Dask client, Dask is never loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def collected(frame: Frame, columns: Sequence[str] | None = None) -> Any:
    """Give a frame, or a column, as a pandas one; of a Dask frame only these columns are fetched, where they are named.

    Columns that it lacks are left out. What hangs on the frame (``attrs``) comes with it. Rows that are
    numbered are numbered anew.
    """
    if not is_dask(frame):
        return frame
    result = _selected(frame, columns).compute()
    if result.index.name is None and result.index.dtype.kind == "i":
        result = result.reset_index(drop=True)
    result.attrs = dict(getattr(frame, "attrs", {}))
    return result


def with_attrs(frame: Frame, attrs: Mapping[str, Any]) -> Frame:
    """Hang something on a frame of either kind; Dask's frames have no ``attrs`` of their own."""
    frame.attrs = dict(attrs)
    return frame


def mapped(
    frame: Frame,
    function: Callable[..., Any],
    *beside: Frame,
    columns: Sequence[str] | None = None,
    **options: Any,
) -> Frame:
    """Call a function on a pandas frame, or, when it is computed, on each partition of a Dask one.

    Parameters
    ----------
    frame, beside, options
        What the function gets; Dask frames in `beside` come along partition by partition.
    function
        Has to make the columns and dtypes that it always gives from a frame without rows too.
    columns
        What the function looks at: other columns of a Dask frame are not even read.

    Returns
    -------
    Frame
        A frame of the same kind; of a Dask frame nothing is computed yet.
    """
    if not is_dask(frame):
        return function(frame, *beside, **options)
    empty = _without_rows(frame, function, *beside, **options)
    result = _by_partition(_selected(frame, columns), function, *beside, empty=empty, **options)
    return with_attrs(result, getattr(frame, "attrs", {}))


def reduced(
    frame: Frame,
    function: Callable[..., pd.DataFrame],
    *beside: Frame,
    how: str | Mapping[str, str] = "sum",
    columns: Sequence[str] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Sum a frame up: call a function on a pandas frame, or on each partition of a Dask one, where that lies.

    Parameters
    ----------
    frame, beside, columns, options
        As for `mapped`.
    function
        Gives a table of numbers, its index the groups; ordered and without doubles, as ``groupby`` does.
    how
        How numbers of the same group in several partitions become one: ``sum``, ``max``, ``min``, or one of these for
        each column that is not summed.

    Returns
    -------
    DataFrame
        What the function would have given for all rows at once.
    """
    if not is_dask(frame):
        return function(frame, *beside, **options)
    empty = _without_rows(frame, function, *beside, **options)
    rows = _selected(frame, columns)
    sums = _by_partition(rows, _boxed, *beside, empty=_box(empty), call=function, options=options)
    whole = sums.reduction(
        _joined,
        aggregate=_joined,
        combine=_joined,
        meta=_box(empty),
        chunk_kwargs={"how": how},
        aggregate_kwargs={"how": how},
        combine_kwargs={"how": how},
    )
    result: pd.DataFrame = whole.compute()["table"].iloc[0]
    return result


def tallied(frame: Frame, columns: Sequence[str], *, counts: str | None = None) -> pd.DataFrame:
    """Count equal rows: one row for each combination of values that occurs, and how often it does in `count`.

    Missing values are values here. Where the rows have been counted before, `counts` names the column that says so.
    """
    table = reduced(frame, _tally, keys=list(columns), counts=counts)
    return table.reset_index()


def together(frame: Frame, key: Callable[[pd.DataFrame], Any], *, partitions: int | None = None) -> Frame:
    """Bring rows that belong together into the same partition, in the order they had; a pandas frame stays as it is.

    Parameters
    ----------
    frame
        Columns that are not needed are best left out before: all that stay are sent around.
    key
        Gives a whole number for each row of a pandas frame, equal where rows belong together.
    partitions
        How many there shall be; as many as there are by default. Two frames brought together by the same keys into as
        many partitions fit together.
    """
    if not is_dask(frame):
        return frame
    parts = frame.npartitions if partitions is None else partitions
    if parts == frame.npartitions == 1:
        return frame
    empty = frame._meta
    numbered = frame.map_partitions(_numbered, key=key, meta=_numbered(empty, key))
    sent = numbered.shuffle(on=_KEY, npartitions=parts, ignore_index=True)
    result = _by_partition(sent, _in_place, empty=empty, dtypes=dict(empty.dtypes))
    return with_attrs(result, getattr(frame, "attrs", {}))


def picked(frame: Frame, function: Callable[..., pd.DataFrame], **options: Any) -> pd.DataFrame:
    """Fetch the rows that a function picks of a frame, such as the few of one message.

    Their index is their place in the whole frame: what was picked several times can be put together in order.
    """
    if not is_dask(frame):
        return function(frame.reset_index(drop=True), **options)
    empty = _placed(frame._meta)
    parts = frame.map_partitions(_pick, function=function, options=options, meta=function(empty, **options))
    result: pd.DataFrame = parts.compute()
    return result


def in_parts(frame: Frame) -> Iterator[pd.DataFrame]:
    """Give a frame bit by bit: a pandas frame as it is, a Dask one partition by partition."""
    if not is_dask(frame):
        yield frame
        return
    for part in frame.to_delayed():
        yield part.compute()


def split_like(frame: pd.DataFrame | Frame, other: Frame) -> Frame:
    """Give a frame as one of the same kind as another one."""
    if is_dask(frame) or not is_dask(other):
        return frame if is_dask(other) else collected(frame)
    import dask
    import dask.dataframe as dd

    with dask.config.set({"dataframe.convert-string": False}):
        attrs = {str(name): value for name, value in frame.attrs.items()}
        return with_attrs(dd.from_pandas(frame.reset_index(drop=True), npartitions=1), attrs)


def _without_rows(frame: Frame, function: Callable[..., Any], *beside: Frame, **options: Any) -> Any:
    """Call a function on frames without rows: what the caller did wrong shows before anything is computed."""
    return function(*(one._meta if is_dask(one) else one for one in (frame, *beside)), **options)


def _selected(frame: Frame, columns: Sequence[str] | None) -> Frame:
    if columns is None:
        return frame
    return frame[[name for name in dict.fromkeys(columns) if name in frame.columns]]


def _by_partition(
    frame: Frame, function: Callable[..., Any], /, *beside: Frame, empty: Any, **options: Any
) -> Frame:
    return frame.map_partitions(
        function, *beside, meta=empty, align_dataframes=False, enforce_metadata=False, **options
    )


def _box(table: pd.DataFrame) -> pd.DataFrame:
    """Hold a table in a row, for Dask to carry it whatever its index and dtypes are."""
    import pandas as pd

    return pd.DataFrame({"table": pd.Series([table], dtype=object)})


def _boxed(*frames: pd.DataFrame, call: Callable[..., Any], options: Mapping[str, Any]) -> pd.DataFrame:
    return _box(call(*frames, **options))


def _joined(boxes: pd.DataFrame, how: str | Mapping[str, str]) -> pd.DataFrame:
    """Make one table of several, group by group."""
    import pandas as pd

    tables = list(boxes["table"])
    if len(tables) < 2:
        return boxes
    filled = [table for table in tables if len(table)]
    if len(filled) < 2:
        return _box((filled or tables)[0])
    keys = list(filled[0].index.names)
    columns = list(filled[0].columns)
    rows = pd.concat([table.reset_index() for table in filled], ignore_index=True)
    ways: Any = how if isinstance(how, str) else {name: how.get(name, "sum") for name in columns}
    return _box(rows.groupby(keys, observed=True, dropna=False)[columns].agg(ways))


def _tally(frame: pd.DataFrame, keys: list[str], counts: str | None) -> pd.DataFrame:
    groups = frame.groupby(keys, observed=True, dropna=False)
    sizes = groups.size() if counts is None else groups[counts].sum()
    return sizes.astype("int64").rename("count").to_frame()


_KEY, _PLACE = "_key", "_place"
_ROWS_OF_PARTITION = 1 << 40


def _numbered(
    frame: pd.DataFrame, key: Callable[[pd.DataFrame], Any], partition_info: Any = None
) -> pd.DataFrame:
    return _placed(frame, partition_info).reset_index(names=_PLACE).assign(**{_KEY: key(frame).to_numpy()})


def _placed(frame: pd.DataFrame, partition_info: Any = None) -> pd.DataFrame:
    """Number the rows of a partition by their place in the whole frame."""
    import pandas as pd

    begin = _ROWS_OF_PARTITION * (partition_info["number"] if partition_info else 0)
    return frame.set_axis(pd.RangeIndex(begin, begin + len(frame)))


def _in_place(frame: pd.DataFrame, dtypes: Mapping[str, Any]) -> pd.DataFrame:
    rows = frame.sort_values(_PLACE, ignore_index=True)[list(dtypes)]
    return rows.astype({name: dtype for name, dtype in dtypes.items() if rows[name].dtype != dtype})


def _pick(
    frame: pd.DataFrame,
    function: Callable[..., pd.DataFrame],
    options: Mapping[str, Any],
    partition_info: Any = None,
) -> pd.DataFrame:
    return function(_placed(frame, partition_info), **options)


def meta(table: Table, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Give a table without rows: what Dask wants to know of a frame before it has seen one."""
    arrow = to_arrow(table, ())
    return from_arrow(table, arrow if columns is None else arrow.select(list(columns)))


def from_parts(table: Table, parts: Sequence[str], filesystem: Any = None) -> Frame:
    """Open Parquet parts as one Dask frame with the declared columns and dtypes, a partition per part.

    Columns that an older part lacks are missing values.

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
    with pq.ParquetFile(path, filesystem=filesystem) as file:
        held = file.schema_arrow.names
        columns = [name for name in wanted if name in held] or held[:1]  # one tells how many rows there are
        arrow = file.read(columns=columns)
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
        Dask is not installed, nobody answers there, or the client is closed or an asynchronous one.
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
        if client.status in ("closing", "closed"):
            raise ClusterProblem("the Dask client is closed; connect another one")
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

    @property
    def dashboard(self) -> str:
        """Where Dask shows what its workers do, as a line for people; empty where it has no dashboard."""
        has_one = "dashboard" in self.client.scheduler_info(n_workers=0).get("services", {})
        link = self.client.dashboard_link if has_one else ""
        return f"Dask's dashboard: {link}" if link else ""

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

        Dask's own progress bar is what is shown, in a notebook or on a terminal. An interrupt takes back what has not
        been done.
        """
        from distributed import KilledWorker, wait

        futures = self.client.map(
            function, items, *[[arg] * len(items) for arg in args], pure=False, key=label, batch_size=1000
        )
        try:
            with self.client.as_current():  # ours may be nobody's default
                if shown:
                    _show_progress(futures)
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


def _show_progress(futures: Sequence[Any]) -> None:
    """Show Dask's progress bar, in the notebook's form where there is one, else as text on a terminal."""
    from distributed import progress
    from distributed.utils import is_kernel

    if is_kernel():
        try:
            import IPython.display

            show: Any = IPython.display.display
            show(progress(futures))
        except ImportError:  # without ipywidgets there is nothing to see but the dashboard
            return
    elif sys.stdout.isatty():
        progress(futures)


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


def given_back() -> Exception:
    """Within a task that is no longer wanted, or no longer here: what to raise, so that another worker may do it."""
    from distributed import Reschedule

    problem: Exception = Reschedule()
    return problem
