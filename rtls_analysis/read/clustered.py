"""Logs and mail read by the workers of a Dask cluster: a task for each group of files, the rows of one machine.

A group is what can be read apart: rotated sets that may tell of the same messages, or files of mail of some size. A
worker writes the rows of its group as parts into a folder that all of them see, under names that hang on nothing but
the group; without a folder they stay in its memory. When a group is done, a note in the folder says so: if its worker
dies later, it is not read again, and if it dies before, another one begins the group anew in the place of what is
there.
"""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rtls_analysis.addresses import RemoteFile
from rtls_analysis.frames import (
    Cluster,
    ClusterProblem,
    Frame,
    from_arrow_futures,
    given_back,
    this_task,
    with_attrs,
)
from rtls_analysis.read.coverage import merge
from rtls_analysis.read.log_files import LogFile
from rtls_analysis.read.mail_files import MailFile, size_of
from rtls_analysis.read.repeats import Occurrence, find_repeats, without_rows
from rtls_analysis.schema import TABLES, Table, from_arrow
from rtls_analysis.storage import Folder, StoreProblem, open_folder
from rtls_analysis.table_files import (
    COVERAGE,
    GROUP_NOTE,
    ROWS_PER_PART,
    PartsWriter,
    clear_folder,
    finish_folder,
    folder_frame,
)

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES = 64 << 20  # of mail; a larger file is a group of its own
GROUP_FILES = 20_000

LOOKED_FOR = 10_000  # files that a worker is asked whether it sees,
HEADS = 200  # and of how many of them whether they are the same
HEAD_BYTES = 512

Out = str | os.PathLike[str]


class Reading(Protocol):
    """One pass over a group of files, as `GroupReading` and `MailReading` are."""

    @property
    def coverage(self) -> dict[str, Any]:
        """What was read."""

    def parts(self) -> Iterator[list[tuple[Table, pa.Table]]]:
        """Read on, a bit at a time: tables and rows."""


@dataclass(frozen=True, slots=True)
class Task:
    """What workers are to do with a group; `make` begins to read it, under the options.

    `folders` are by the names of tables; without any, the rows stay with the worker. `run` tells this reading from any
    other into the same folder.
    """

    make: Callable[[Any, Any], Reading]
    options: Any
    tables: tuple[str, ...]
    folders: Mapping[str, Folder]
    run: str


@dataclass(frozen=True, slots=True)
class Group:
    """Files that are read together, by their place among the groups."""

    number: int
    files: Any


@dataclass(slots=True)
class Done:
    """What came of a group: its coverage, names of parts by table, or rows by table, and which reports it had."""

    coverage: dict[str, Any]
    parts: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, list[pa.Table]] = field(default_factory=dict)
    seen: list[Occurrence] = field(default_factory=list)


# -- on a worker ----------------------------------------------------------------------------------------------


def read_group(group: Group, task: Task) -> Done:
    """Read a group into the task's folders, unless that was done before."""
    home = task.folders[task.tables[0]]
    note = f"{GROUP_NOTE}{group.number:05}.json"
    if (before := _noted(home, note, task.run)) is not None:
        return before
    writers = {name: PartsWriter(folder, TABLES[name], group.number) for name, folder in task.folders.items()}
    reading = _begin(group, task)
    for name, rows in _rows_of(reading):
        if name in writers:
            writers[name].write(rows)
    done = Done(
        reading.coverage,
        parts={name: writer.finish() for name, writer in writers.items()},
        seen=getattr(reading, "seen", []),
    )
    noted = {
        "run": task.run,
        "coverage": done.coverage,
        "parts": done.parts,
        "seen": [asdict(one) for one in done.seen],
    }
    home.write(note, json.dumps(noted).encode())
    return done


def hold_group(group: Group, task: Task) -> Done:
    """Read a group into the worker's memory."""
    reading = _begin(group, task)
    held: dict[str, list[pa.Table]] = {name: [] for name in task.tables}
    for name, rows in _rows_of(reading):
        held[name].append(rows)
    kept = {name: _joined(TABLES[name], parts) for name, parts in held.items()}
    return Done(reading.coverage, rows=kept, seen=getattr(reading, "seen", []))


@contextmanager
def _memory_at_hand() -> Iterator[None]:
    """Let this process keep some MiB that it has freed, where Dask's nanny has told it to give all back at once.

    Reading frees a MiB at a time, and takes it again: getting it from the kernel each time costs an eighth of the time.
    """
    told = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if told.isdecimal() else None
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, 4 << 20)
    mallopt(_TRIM_THRESHOLD, 8 << 20)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, 128 << 10)  # as it is by default
        mallopt(_TRIM_THRESHOLD, int(told))


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h


def _begin(group: Group, task: Task) -> Reading:
    local = [file for file in _files_in(group.files) if isinstance(file, str)]
    if local and not any(Path(path).exists() for path in local):  # a worker that has come later
        raise ClusterProblem(_blind("a worker", local[0]))
    return task.make(group.files, task.options)


def _rows_of(reading: Reading) -> Iterator[tuple[str, pa.Table]]:
    is_wanted = this_task()
    with _memory_at_hand():
        for parts in reading.parts():
            if not is_wanted():
                raise given_back()
            for table, rows in parts:
                yield table.name, rows


def _joined(table: Table, parts: Sequence[pa.Table]) -> list[pa.Table]:
    """Parts put together to partitions of a useful size."""
    import pyarrow as pa

    joined: list[list[pa.Table]] = [[]]
    for part in parts:
        if joined[-1] and sum(one.num_rows for one in joined[-1]) + part.num_rows > ROWS_PER_PART:
            joined.append([])
        joined[-1].append(part)
    return [pa.concat_tables(ones) if ones else table.arrow_schema.empty_table() for ones in joined]


def _noted(home: Folder, note: str, run: str) -> Done | None:
    """What is noted of a group that was done in this run."""
    try:
        noted = json.loads(home.read(note))
    except (FileNotFoundError, ValueError):
        return None
    if noted["run"] != run:
        return None
    seen = [Occurrence(**{**one, "policies": tuple(one["policies"])}) for one in noted["seen"]]
    return Done(noted["coverage"], parts=noted["parts"], seen=seen)


def _describe(done: Done) -> Done:
    """What came of a group that lies in a worker's memory, without the rows."""
    sizes = {name: [str(rows.num_rows) for rows in parts] for name, parts in done.rows.items()}
    return Done(done.coverage, parts=sizes, seen=done.seen)


def _pick(done: Done, table: str, place: int, repeats: Mapping[str, Sequence[int]]) -> pa.Table:
    rows = done.rows[table][place]
    return without_rows(rows, repeats) if repeats else rows


@dataclass(frozen=True, slots=True)
class _Repeats:
    """Rows to be taken out of parts: policies by their sources."""

    names: tuple[str, ...]
    rows: Mapping[str, Sequence[int]]


def _rewrite(repeats: _Repeats, folder: Folder) -> None:
    """Take rows out of the parts of a group; doing it twice changes nothing."""
    import pyarrow.parquet as pq

    for name in repeats.names:
        rows = pq.read_table(io.BytesIO(folder.read(name)), partitioning=None)
        kept = without_rows(rows, repeats.rows)
        if kept.num_rows < rows.num_rows:
            buffer = io.BytesIO()
            pq.write_table(kept, buffer, compression="zstd")
            folder.write(name, buffer.getvalue())


def _sum_up(name: str, folder: Folder, table: str, make: Callable[[], Any]) -> Any:
    import pyarrow.parquet as pq

    summary = make()
    rows = pq.read_table(io.BytesIO(folder.read(name)), partitioning=None)
    summary.add(from_arrow(TABLES[table], rows))
    return summary


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a worker must see: files, some of them by their beginnings, and a token in each folder."""

    version: str
    paths: tuple[str, ...]
    heads: Mapping[str, str]
    remote: tuple[RemoteFile, ...]
    folders: tuple[Folder, ...]
    token: str


def _look(wanted: _Wanted) -> str:
    """Whether this process sees what it must; gives what is wrong, or nothing."""
    if (own := version("rtls_analysis")) != wanted.version:
        return f"has rtls_analysis {own}, not {wanted.version}: install the same"
    for path in wanted.paths:
        if not Path(path).exists():
            return _NOT_SEEN.format(path)
    for path, head in wanted.heads.items():
        if (begins := _head_of(path)) and begins != head:
            return f"has another file at {path}; {_SHARE}"
    for file in wanted.remote:
        if not file.is_there():
            return _NOT_SEEN.format(file.address)
    for folder in wanted.folders:
        try:
            folder.read(wanted.token)
        except OSError:
            return _NOT_SEEN.format(folder.address)
    return ""


_SHARE = "give a path that all of them share, or an address such as s3://BUCKET/NAME"
_NOT_SEEN = f"does not see {{}}; {_SHARE}"


def _blind(worker: str, path: str) -> str:
    return f"{worker} {_NOT_SEEN.format(path)}"


def _head_of(path: str) -> str:
    try:
        with Path(path).open("rb", buffering=0) as stream:
            return hashlib.blake2b(stream.read(HEAD_BYTES), digest_size=16).hexdigest()
    except OSError:  # nobody may read it
        return ""


# -- for the caller -------------------------------------------------------------------------------------------


def read_on_cluster(
    client: Any,
    groups: Sequence[Any],
    make: Callable[[Any, Any], Reading],
    options: Any,
    tables: Sequence[Table],
    *,
    out: Mapping[str, Out],
    label: str,
    progress: bool,
    problems: Mapping[str, str] | None = None,
) -> dict[str, Frame]:
    """Have the workers read groups of files; gives a Dask frame for each table, with the coverage.

    Parameters
    ----------
    client
        A ``distributed.Client``, or a scheduler's address.
    groups, make, options, tables
        The files of each group, and what reads one into these tables.
    out
        Folders, by the names of tables; without any the rows stay with the workers.
    label, progress
        What the tasks are called, and whether Dask's own progress is shown.
    problems
        What of the input could not be listed.

    Raises
    ------
    ClusterProblem
        The cluster cannot do it, or a worker does not see the files or folders.
    StoreProblem
        A folder cannot be written to.
    ValueError
        Rows that stay with the workers are gone with a client of our own.
    """
    if isinstance(client, str) and not out:
        raise ValueError(
            "without out=FOLDER the table stays with the workers while you are connected: give a distributed.Client"
        )
    empty: dict[str, Any] = {"unreadable_files": dict(problems or {})}
    with Cluster(client) as cluster:
        folders = {name: open_folder(address) for name, address in out.items()}
        run = uuid.uuid4().hex
        task = Task(make, options, tuple(table.name for table in tables), folders, run)
        nothing = merge([make([], options).coverage, empty])
        numbered = [Group(number, files) for number, files in enumerate(groups)]
        for folder in folders.values():
            clear_folder(folder)
        _check(cluster, [file for group in numbered for file in _files_in(group.files)], folders, run)
        if folders:
            return _into_folders(cluster, numbered, task, tables, nothing, label=label, progress=progress)
        return _into_memory(cluster, numbered, task, tables, nothing, label=label, progress=progress)


def _into_folders(
    cluster: Cluster,
    groups: Sequence[Group],
    task: Task,
    tables: Sequence[Table],
    nothing: dict[str, Any],
    *,
    label: str,
    progress: bool,
) -> dict[str, Frame]:
    try:
        done: list[Done] = cluster.results(
            cluster.map(read_group, groups, task, label=f"read-{label}", shown=progress)
        )
        coverage, repeats = _merged(nothing, done)
        name = task.tables[0]
        again = [
            _Repeats(tuple(one.parts[name]), rows) for one, rows in zip(done, repeats, strict=True) if rows
        ]
        cluster.map(_rewrite, again, task.folders[name], label=f"sort-{label}", shown=False)
    except BaseException:
        with suppress(OSError):
            _keep_what_is_there(task, nothing, len(groups))
        raise
    frames = {}
    for table in tables:
        folder = task.folders[table.name]
        names = finish_folder(
            folder, table, [name for one in done for name in one.parts[table.name]], coverage
        )
        frames[table.name] = folder_frame(folder, table, names, coverage)
    return frames


def _keep_what_is_there(task: Task, nothing: dict[str, Any], groups: int) -> None:
    """After an interrupt: say of what was written which groups it has to their end."""
    home = task.folders[task.tables[0]]
    notes = [name for name in home.list("") if name.startswith(GROUP_NOTE)]
    done = [one for name in notes if (one := _noted(home, name, task.run)) is not None]
    told = {"warnings": [f"interrupted: {len(done)} of {groups} groups of files were read to their end"]}
    for name, folder in task.folders.items():
        written = [part for part in folder.list("") if part.endswith(".parquet")]
        finish_folder(folder, TABLES[name], written, merge([nothing, *(one.coverage for one in done), told]))


def _into_memory(
    cluster: Cluster,
    groups: Sequence[Group],
    task: Task,
    tables: Sequence[Table],
    nothing: dict[str, Any],
    *,
    label: str,
    progress: bool,
) -> dict[str, Frame]:
    held = cluster.map(hold_group, groups, task, label=f"read-{label}", shown=progress)
    done: list[Done] = cluster.results(cluster.map(_describe, held, label=f"describe-{label}", shown=False))
    coverage, repeats = _merged(nothing, done)
    frames = {}
    for table in tables:
        picked = [
            cluster.client.submit(_pick, future, table.name, place, repeats[number], pure=False)
            for number, (future, one) in enumerate(zip(held, done, strict=True))
            for place in range(len(one.parts[table.name]))
        ]
        frames[table.name] = with_attrs(from_arrow_futures(table, picked), {COVERAGE: coverage})
    return frames


def _merged(
    nothing: dict[str, Any], done: Sequence[Done]
) -> tuple[dict[str, Any], list[dict[str, list[int]]]]:
    """The coverage of all groups, and the rows of each that another group had before it."""
    coverage = merge([nothing, *(one.coverage for one in done)])
    if not any(one.seen for one in done):
        return coverage, [{} for _ in done]
    found = find_repeats([one.seen for one in done])
    counts = {
        "duplicates": found.duplicates,
        "duplicates_that_differ": found.that_differ,
        "rows": coverage["rows"] - found.row_count,
    }
    return coverage | counts, found.rows


def sum_up(client: Any, folder: Out, table: Table, summary: Any) -> None:
    """Have the workers sum up the parts in a folder, each in a summary like this one, and merge these into it."""
    place = open_folder(folder)
    names = [name for name in place.list("") if name.endswith(".parquet")]
    with Cluster(client) as cluster:
        futures = cluster.map(_sum_up, names, place, table.name, type(summary), label="sum-up", shown=False)
        for part in cluster.results(futures):
            summary.merge(part)


def group_files(files: Iterable[MailFile]) -> list[list[MailFile]]:
    """Files one after the other in groups of `GROUP_BYTES`, a larger one by itself."""
    groups: list[list[MailFile]] = []
    size = 0
    for file in files:
        own = size_of(file) or 0
        if not groups or size + own > GROUP_BYTES or len(groups[-1]) >= GROUP_FILES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += own
    return groups


def no_streams(sets: Iterable[Sequence[LogFile]]) -> None:
    """Raise where there is something that only this process can read."""
    if any(file.stream is not None for files in sets for file in files):
        raise ValueError(
            "an open file, a pipe or standard input cannot be sent to a cluster: give paths or addresses"
        )


def _files_in(files: Any) -> Iterator[str | RemoteFile]:
    """The files of a group, whatever their sort: local paths, or remote files."""
    if isinstance(files, (str, RemoteFile)):
        yield files
    elif isinstance(files, LogFile):
        if files.remote is not None:
            yield files.remote
        elif files.path is not None:
            yield str(files.path)
    else:
        for inner in files:
            yield from _files_in(inner)


def _check(
    cluster: Cluster, files: Sequence[str | RemoteFile], folders: Mapping[str, Folder], run: str
) -> None:
    """Ask each worker whether it sees all files and folders."""
    paths = tuple(file for file in files if isinstance(file, str))
    remote = {type(file.filesystem): file for file in files if isinstance(file, RemoteFile)}
    every = max(1, len(paths) // HEADS)
    token = f"{GROUP_NOTE}seen-{run}"
    wanted = _Wanted(
        version("rtls_analysis"),
        paths[:: max(1, len(paths) // LOOKED_FOR)],
        {path: head for path in paths[::every] if (head := _head_of(path))},
        tuple(remote.values()),
        tuple(folders.values()),
        token,
    )
    try:
        for folder in folders.values():
            folder.write(token, b"")
        seen = cluster.on_each(_look, wanted)
    except (ImportError, AttributeError) as error:
        raise ClusterProblem(f"a worker has not this version of rtls_analysis: {error}") from None
    except OSError as error:
        raise StoreProblem(f"cannot write to {next(iter(folders.values())).address}: {error}") from None
    finally:
        for folder in folders.values():
            with suppress(OSError):
                folder.remove(token)
    for worker, problem in seen.items():
        if problem:
            raise ClusterProblem(f"the worker {worker} {problem}")
