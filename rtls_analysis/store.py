"""A scan as a snapshot: a directory of Parquet parts per table with a manifest, or the same tables in memory.

Nothing that was measured is lost: a row is on its way to the disk before the next one is asked for. While a
scan runs, rows go to journals (JSON Lines, one write a row, one file per table and process); a journal that is full
becomes a Parquet part, written under a temporary name, synced and renamed, and only then is the journal removed.
After ``kill -9`` the journals are read back; a torn last line is the work in flight.

The directory may be at an address of any fsspec file system (see `rtls_analysis.storage`). There journals are put in
chunks about once a second, and what was not put yet counts as in flight too.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import errno
import fcntl
import io
import json
import os
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rtls_analysis.schema import QUESTIONS, SNAPSHOT_TABLES, TABLES, Kind, Table
from rtls_analysis.storage import (
    Address,
    Chunks,
    Folder,
    Lease,
    LocalFolder,
    chunk_names,
    chunks_of,
    open_folder,
    wait_for_leases,
)
from rtls_analysis.storage import StoreProblem as StoreProblem

if TYPE_CHECKING:
    from typing import BinaryIO

    import pandas as pd
    import pyarrow as pa

FORMAT = 1
"""Version of the layout of a snapshot."""

MANIFEST = "manifest.json"
ROOTS = "roots.pem"
LOOKUPS = "lookups"  # working table: what was found in DNS for each domain, until it can be judged
POLICIES = "policies"  # working table: what came of fetching the MTA-STS policy of a domain
VISITS = "visits"  # working table: sessions that a server pushed back, to be visited again
WORK = "_work"
_ROWS_PER_PART = 10_000
_REFERRED_TO_FIRST = (LOOKUPS, "hosts", "attempts", VISITS, "certificates")
"""The order in which tables reach a remote folder: a server with a row in `sessions` is not contacted again."""
_TABLES = {table.name: table for table in SNAPSHOT_TABLES}


# -- Writing -------------------------------------------------------------------------------------------------


def write_part(folder: Folder, name: str, table: pa.Table) -> None:
    """Write one Parquet part, so that it appears whole or not at all."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    folder.write(name, buffer.getvalue())


def _to_json(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _revive(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """Times and bytes of a journal row back from their JSON form."""
    for name, value in row.items():
        column = table.by_name.get(name)
        if value is None or column is None:
            continue
        if column.kind is Kind.TIME:
            row[name] = dt.datetime.fromisoformat(value)
        elif column.kind is Kind.BYTES:
            row[name] = base64.b64decode(value)
    return row


class Journals:
    """The rows of a scan while they arrive: one JSON Lines file per table and writer, a new one when it is full.

    Several processes, on several machines, may write to one snapshot, each under a name of its own; files are only ever
    appended to by the process that began them.
    """

    def __init__(self, folder: Folder | Path, writer: str = "main") -> None:
        self._folder, self.writer = open_folder(folder), writer
        self._files: dict[str, io.FileIO] = {}
        self._chunks: Chunks | None = None
        self._rows: Counter[str] = Counter()  # in the file that is written now
        self._numbers: dict[str, int] = {}

    def append(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a row; on a local disk it has left this process when the call returns.

        A row is never there without those before it that it refers to.

        Raises
        ------
        OSError
            It, or on a remote folder one before it, could not be written.
        """
        line = _encode(row).encode() + b"\n"
        if (path := self._folder.path) is None:
            self._hold(table, line)
        else:
            self._write(path, table, line)

    def _hold(self, table: str, line: bytes) -> None:
        if self._chunks is None:
            self._chunks = Chunks(self._folder, self._next_name, _REFERRED_TO_FIRST)
        self._chunks.write(table, line)
        if self._is_full(table):
            self._chunks.begin(table)

    def _write(self, path: Path, table: str, line: bytes) -> None:
        if (file := self._files.get(table)) is None:
            file = self._files[table] = io.FileIO(path / self._next_name(table), "ab")
        try:
            _write_all(file, line)
        except OSError:  # a full disk: the line may be torn, nothing may follow it
            with contextlib.suppress(OSError):
                self._files.pop(table).close()
            self._rows[table] = 0
            raise
        if self._is_full(table):
            self._close(table)

    def _is_full(self, table: str) -> bool:
        """Count a row, and tell whether the next one goes to the next file."""
        self._rows[table] += 1
        if self._rows[table] < _ROWS_PER_PART:
            return False
        self._rows[table] = 0
        return True

    def _next_name(self, table: str) -> str:
        if table not in self._numbers:
            held = [name for name in _journals(self._folder, table) if _writer_of(name) == self.writer]
            held += self._folder.list(table, f"part-{self.writer}-*.parquet")
            self._numbers[table] = max(map(_number, held), default=0)
        self._numbers[table] += 1
        return f"{WORK}/{table}-{self.writer}-{self._numbers[table]:06d}.jsonl"

    def _close(self, table: str) -> None:
        self._rows[table] = 0
        with contextlib.closing(self._files.pop(table)) as file:
            os.fsync(file.fileno())

    def flush(self) -> None:
        """Put all rows where others read them; on a local disk they are there already.

        Raises
        ------
        OSError
            Some could not be written.
        """
        if self._chunks is not None:
            self._chunks.flush()

    def close(self) -> None:
        """Put all rows on the disk and let go of the files."""
        with contextlib.ExitStack() as stack:  # all of them, whatever comes of one
            for table in self._files:
                stack.callback(self._close, table)
            if self._chunks is not None:
                self._chunks.close()
                self._chunks = None
                self._rows.clear()


def _write_all(file: io.FileIO, data: bytes) -> None:
    written = file.write(data)
    while written < len(data):
        written += file.write(data[written:])


_encode = json.JSONEncoder(default=_to_json, separators=(",", ":")).encode


def _journals(folder: Folder, table: str = "*") -> list[str]:
    """Name the journals of a table, or of all; on a remote folder one is there as chunks."""
    ending = ".jsonl"
    if folder.path is not None:
        return folder.list(WORK, f"{table}-*{ending}")
    chunks = folder.list(WORK, f"{table}-*{ending}.[0-9]*")
    return sorted({name[: name.rindex(ending) + len(ending)] for name in chunks})


def _part_of(journal: str) -> str:
    """Name the part that a journal becomes; once it is there, the journal is history."""
    table, _dash, rest = _stem(journal).partition("-")
    return f"{table}/part-{rest}.parquet"


def _table_of(journal: str) -> str:
    return _stem(journal).partition("-")[0]


def _rows_in(folder: Folder, journal: str, table: Table | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a journal; a line that a kill cut off is skipped."""
    with contextlib.ExitStack() as stack:
        lines: Iterable[bytes]
        if folder.path is not None:
            lines = stack.enter_context(folder.open(journal))
        else:
            lines = (line for chunk in chunks_of(folder, journal) for line in chunk.splitlines())
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            yield row if table is None else _revive(table, row)


def _remove_journal(folder: Folder, journal: str) -> None:
    if folder.path is not None:
        folder.remove(journal)
        return
    folder.remove(*chunk_names(folder, journal))


def stored_rows(
    folder: Folder, table: str, columns: Sequence[str] | None = None, *, writer: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, or working table, of an unfinished scan; on request those of one writer only.

    Journals come first: one that becomes a part meanwhile is met twice rather than not at all.
    """
    declared = TABLES.get(table)
    for journal in _journals(folder, table):
        if writer in (None, _writer_of(journal)):
            with contextlib.suppress(FileNotFoundError):  # became a part
                yield from _rows_in(folder, journal, declared)
    if declared is not None:
        pattern = "part-*.parquet" if writer is None else f"part-{writer}-*.parquet"
        for arrow in _parts(folder, declared, columns, pattern=pattern):
            yield from _python_rows(declared, arrow)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _writer_of(name: str) -> str:
    return _stem(name).rpartition("-")[0].partition("-")[2]


def _number(name: str) -> int:
    return int(_stem(name).rpartition("-")[2])


class TableWriter:
    """Writes a whole table anew, beside the old one, and puts it in its place with `finish`."""

    def __init__(self, folder: Folder, table: Table) -> None:
        self._folder, self._table = folder, table
        self._old = folder.list(table.name, "part-*.parquet")
        self._first = max(map(_number, self._old), default=0) + 1
        self._batch: list[Mapping[str, Any]] = []
        self._written: list[str] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._batch.append(row)
        if len(self._batch) >= _ROWS_PER_PART:
            self._flush()

    def _flush(self) -> None:
        from rtls_analysis.schema import to_arrow

        name = f"{self._table.name}/part-main-{self._first + len(self._written):06d}.parquet"
        write_part(self._folder, _hidden(name), to_arrow(self._table, self._batch))
        self._written.append(name)
        self._batch.clear()

    def finish(self) -> None:
        """Let the new parts take the place of the old ones."""
        if self._batch or not self._written:
            self._flush()
        self._folder.remove(*self._old)
        for name in self._written:
            self._folder.move(_hidden(name), name)
        self._folder.sync(self._table.name)


def _hidden(name: str) -> str:
    folder, _slash, last = name.rpartition("/")
    return f"{folder}/.{last}.new"


class SnapshotWriter:
    """Writes a snapshot's tables, to a directory or, without one, to memory; resumes what is there.

    Parameters
    ----------
    out
        The directory, made if need be, by its path or address. Without one it is a temporary one, which `snapshot`
        takes into memory.
    manifest
        What was scanned, how, and by which rules. Its `scan` entry identifies the scan: a directory that
        holds another one is refused.
    roots_pem
        The root certificates by which PKIX is judged; they are stored, so that `judge` needs nothing else.

    Raises
    ------
    StoreProblem
        The directory holds something else, or another process is writing to it.
    """

    def __init__(self, out: Address | Folder | None, manifest: Mapping[str, Any], roots_pem: bytes) -> None:
        self.is_temporary = out is None
        self.folder = LocalFolder(Path(tempfile.mkdtemp(prefix="rtls-"))) if out is None else open_folder(out)
        self.roots_pem = roots_pem
        self.manifest: dict[str, Any] = dict(manifest)
        self.resumed = False
        self._lock: BinaryIO | Lease | None = None
        self._own = Journals(self.folder)
        self._folding = threading.Lock()  # a journal that another thread removes would become half a part
        try:
            self._open(self.folder)
        except BaseException:
            self.abandon()
            raise

    @property
    def path(self) -> Path:
        """The directory on this machine, for those who write to it from other processes of it.

        Raises
        ------
        StoreProblem
            It is elsewhere.
        """
        if self.folder.path is None:
            raise StoreProblem(
                f"{self.folder} is no directory of this machine; give one, or a cluster's client"
            )
        return self.folder.path

    def _open(self, out: Folder) -> None:
        if out.path is not None and out.path.exists() and not out.path.is_dir():
            raise StoreProblem(f"{out} is a file; give a directory for the snapshot")
        held = read_manifest(out) if is_begun(out) else None
        if held is not None and held.get("scan") != self.manifest.get("scan"):
            differs = _differences(held.get("scan") or {}, self.manifest.get("scan") or {})
            raise StoreProblem(f"{out} holds another scan ({differs}); give a new directory")
        self._take_lock(out)
        wait_for_leases_of_others(out)
        if held is not None:
            self.resumed = True
            self.manifest = held
            self.roots_pem = out.read(ROOTS)
        else:
            out.write(ROOTS, self.roots_pem)
            self.write_manifest()
        out.remove(*out.list("", ".*.tmp"))  # what a kill cut off
        parts: set[str] = set()
        for table in SNAPSHOT_TABLES:
            out.make(table.name)
            out.remove(*out.list(table.name, ".part-*"))
            parts.update(out.list(table.name, "part-*.parquet"))
        for journal in _journals(out):
            if _part_of(journal) in parts:
                _remove_journal(out, journal)  # became a part; only its removal was cut off

    def _take_lock(self, out: Folder) -> None:
        """Make sure that nobody else writes this snapshot's manifest, by a lock, or elsewhere by a lease."""
        taken = StoreProblem(f"another process is writing to {out}; let it end, or give a new directory")
        try:
            out.make(WORK)
            if out.path is None:
                lease = Lease(out, MAIN)
                if not lease.acquire(wait=False):
                    raise taken
                self._lock = lease
                return
            self._lock = (out.path / WORK / "lock").open("wb")
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreProblem(f"cannot write to {out}: {reason}; give a directory that can be") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._unlock()
            raise taken from None

    def _check_lock(self) -> None:
        """Stop where another may have taken over, because nothing could be written for a while."""
        if isinstance(self._lock, Lease) and not self._lock.is_held:
            reason = f"{self.folder} was out of reach for so long that another may be writing to it"
            raise OSError(errno.ESTALE, reason)

    def write_manifest(self) -> None:
        """Store the manifest as it is now."""
        self._check_lock()
        text = json.dumps(self.manifest, indent=2, default=_to_json, ensure_ascii=False)
        self.folder.write(MANIFEST, text.encode() + b"\n")

    def append(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a row to a table, or to a working table."""
        self._check_lock()
        self._own.append(table, row)

    def journals(self, writer: str) -> Journals:
        """Give another writer, another process for instance, journals of its own."""
        return Journals(self.folder, writer)

    def stored(self, table: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows there are, parts first, then journals, as mappings."""
        declared = TABLES.get(table)
        if declared is not None:
            for arrow in _parts(self.folder, declared, columns):
                yield from _python_rows(declared, arrow)
        for journal in _journals(self.folder, table):
            yield from _rows_in(self.folder, journal, declared)

    def fold(self, *, finished: bool = True) -> None:
        """Turn journals into parts; without `finished`, only those that are full, which may go on in a thread."""
        with self._folding:
            self._fold_all(finished)

    def _fold_all(self, finished: bool) -> None:
        self._check_lock()
        if finished:
            self._own.close()
        names = _journals(self.folder)
        newest = {_stem(name).rpartition("-")[0]: name for name in names}
        for name in names:
            table = _TABLES.get(_table_of(name))
            if table is not None and (finished or newest[_stem(name).rpartition("-")[0]] != name):
                self._fold(name, table)
        if finished:
            self._drop_doubles("certificates", "sha256")

    def _fold(self, journal: str, table: Table) -> None:
        from rtls_analysis.schema import to_arrow

        rows = list(_rows_in(self.folder, journal, table))
        if rows:
            write_part(self.folder, _part_of(journal), to_arrow(table, rows))
        _remove_journal(self.folder, journal)

    def _drop_doubles(self, table: str, key: str) -> None:
        """Keep the first row of each key: several processes, or runs, may have seen the same certificate."""
        seen: set[str] = set()
        for part in self.folder.list(table, "part-*.parquet"):
            is_new: list[bool] = []
            for value in _read_part(self.folder, part, columns=[key]).column(key).to_pylist():
                is_new.append(value not in seen)
                seen.add(value)
            if not all(is_new):
                write_part(self.folder, part, _read_part(self.folder, part).filter(is_new))

    def replacement(self, table: str) -> TableWriter:
        """Begin a whole table anew (the judged tables, when a scan ends)."""
        return TableWriter(self.folder, TABLES[table])

    def close(self) -> None:
        """Turn the journals into parts and let go of the directory."""
        self.fold()
        self.write_manifest()
        self._unlock()

    def abandon(self) -> None:
        """Let go of the directory as it is; a temporary one is removed with all that is in it."""
        with contextlib.suppress(OSError):  # a full disk, that brought us here
            self._own.close()
        self._unlock()
        if self.is_temporary:
            self.folder.remove_all("")

    def _unlock(self) -> None:
        if isinstance(self._lock, Lease):
            self._lock.release()
        elif self._lock is not None:
            self._lock.close()
        self._lock = None

    def drop_work(self) -> None:
        """Remove the working files of a finished scan (after `close`)."""
        self.folder.remove_all(WORK)

    def snapshot(self) -> Snapshot:
        """Open what was written; a temporary directory is taken into memory and removed."""
        snapshot = open_snapshot(self.folder)
        if not self.is_temporary:
            return snapshot
        frames = {table.name: snapshot.table(table.name) for table in SNAPSHOT_TABLES}
        self.folder.remove_all("")
        return Snapshot(None, snapshot.manifest, snapshot.roots_pem, frames)


def _differences(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*held, *asked}) if held.get(name) != asked.get(name)]
    return "different " + ", ".join(name.replace("_", " ") for name in names) if names else "different"


# -- Reading -------------------------------------------------------------------------------------------------


MAIN = "main"
"""Name of the lease of who writes a snapshot's manifest, where there are no locks."""


def wait_for_leases_of_others(out: Folder) -> None:
    """Wait until no worker of an earlier run writes to a snapshot any more."""
    wait_for_leases(out, but=(MAIN,))


def is_begun(out: Address | Folder) -> bool:
    """Tell a directory that holds something from one that is not there, or where a kill came before the manifest."""
    out = open_folder(out)
    if out.path is None:
        return out.exists(MANIFEST)
    if not out.path.is_dir():
        return False
    names = {path.name for path in out.path.iterdir()} - {WORK, ROOTS}
    return not all(name.startswith(".") and name.endswith(".tmp") for name in names)


def read_manifest(folder: Address | Folder) -> dict[str, Any]:
    """Read the manifest of a snapshot directory; `StoreProblem` where there is none that can be read."""
    folder = open_folder(folder)
    try:
        manifest = json.loads(folder.read(MANIFEST).decode())
    except FileNotFoundError:
        raise StoreProblem(f"{folder} is no snapshot: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise StoreProblem(f"the manifest of {folder} cannot be read: {error}") from None
    if not isinstance(manifest, dict):
        raise StoreProblem(f"the manifest of {folder} is no JSON object")
    if (form := manifest.get("format", FORMAT)) != FORMAT:
        raise StoreProblem(
            f"{folder} is a snapshot of format {form}, this version reads {FORMAT}; use the one that wrote it"
        )
    return manifest


@contextlib.contextmanager
def _source(folder: Folder, part: str) -> Iterator[Any]:
    """What pyarrow reads a part from: by itself from a local disk, elsewhere only the columns that are asked for."""
    if folder.path is not None:
        yield str(folder.path / part)
        return
    with folder.open(part) as file:
        yield file


def _read_part(
    folder: Folder, part: str, *, columns: Sequence[str] | None = None, filters: Any = None
) -> pa.Table:
    import pyarrow.parquet as pq

    names = None if columns is None else list(columns)
    with _source(folder, part) as source:
        return pq.read_table(source, columns=names, filters=filters, partitioning=None)


def _declared_part(folder: Folder, part: str, table: Table, names: Sequence[str], where: Any) -> pa.Table:
    """Read a part with the declared types; columns that an older part lacks are nulls."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _source(folder, part) as source:
        with pq.ParquetFile(source) as file:
            held = set(file.schema_arrow.names)
        if not held.issuperset(column for column, _operator, _value in where or ()):
            return table.arrow_schema.empty_table().select(list(names))  # what is missing equals nothing
        columns = [name for name in names if name in held]
        arrow = pq.read_table(source, columns=columns, filters=where, partitioning=None)
    arrays = [
        arrow.column(name).cast(table[name].arrow)
        if name in held
        else pa.nulls(arrow.num_rows, table[name].arrow)
        for name in names
    ]
    return pa.Table.from_arrays(arrays, names=list(names))


def _parts(
    folder: Folder,
    table: Table,
    columns: Sequence[str] | None = None,
    where: Any = None,
    *,
    pattern: str = "part-*.parquet",
) -> Iterator[pa.Table]:
    """The Parquet parts of a table with the declared types."""
    names = list(columns) if columns is not None else table.names()
    parts = folder.list(table.name, pattern)
    return _each(folder, parts, lambda part: _declared_part(folder, part, table, names, where))


_T = TypeVar("_T")
_PARTS_AHEAD = 8  # parts on their way at once: each takes several round trips


def _each(folder: Folder, parts: Sequence[str], read: Callable[[str], _T]) -> Iterator[_T]:
    """Read parts in their order; remote ones some way ahead."""
    if folder.path is not None or len(parts) < 2:
        yield from map(read, parts)
        return
    with ThreadPoolExecutor(_PARTS_AHEAD, thread_name_prefix="rtls-read") as pool:
        ahead: deque[Future[_T]] = deque()
        try:
            for part in parts:
                ahead.append(pool.submit(read, part))
                if len(ahead) > _PARTS_AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _rows_of(folder: Folder, part: str) -> int:
    import pyarrow.parquet as pq

    with _source(folder, part) as source:
        return int(pq.read_metadata(source).num_rows)


def _python_rows(table: Table, arrow: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in arrow.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _snapshot_table(name: str) -> Table:
    if (declared := _TABLES.get(name)) is None:
        known = ", ".join(_TABLES)
        raise ValueError(f"no table {name!r} in a snapshot; there are {known}")
    return declared


class Snapshot:
    """The tables of one scan, read when asked for.

    `domains`, `mx`, `hosts`, `sessions`, `certificates` and `attempts` are DataFrames with the columns that
    `rtls_analysis.schema` declares; `manifest` says what was scanned, how, when and by which rules. `address` is where
    it lies, None in memory; `path` is that of a directory on this machine.
    """

    def __init__(
        self,
        folder: Folder | Path | None,
        manifest: dict[str, Any],
        roots_pem: bytes,
        frames: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        self._folder = None if folder is None else open_folder(folder)
        self.path = None if self._folder is None else self._folder.path
        self.address = None if self._folder is None else self._folder.address
        self.manifest = manifest
        self.roots_pem = roots_pem
        self._frames: dict[str, pd.DataFrame] = dict(frames or {})

    def table(
        self, name: str, *, columns: Sequence[str] | None = None, where: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Read a table, on request only some columns and only some rows.

        Parameters
        ----------
        name
            One of the six tables of a snapshot.
        columns
            Names of columns; all by default.
        where
            Column name -> value, or list of values of which one must hold.
        """
        declared = _snapshot_table(name)
        unknown = sorted({*(columns or ()), *(where or {})} - set(declared.names()))
        if unknown:
            raise ValueError(f"{name} has no column {', '.join(unknown)}; see rtls_analysis.schema")
        if self._folder is None or name in self._frames:
            frame = self._frames[name]
            for column, value in (where or {}).items():
                wanted = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
                frame = frame[frame[column].isin(list(wanted))]
            frame = frame[list(columns)] if columns is not None else frame
            return frame.reset_index(drop=True) if where else frame.copy(deep=False)
        from rtls_analysis.schema import from_arrow, to_arrow

        filters = [
            (column, "in", [str(item) if isinstance(item, str) else item for item in value])
            if isinstance(value, (list, tuple, set, frozenset))
            else (column, "=", str(value) if isinstance(value, str) else value)
            for column, value in (where or {}).items()
        ]
        import pyarrow as pa

        nothing = any(operator == "in" and not values for _column, operator, values in filters)
        parts = [] if nothing else list(_parts(self._folder, declared, columns, filters or None))
        if not parts:
            parts = [
                to_arrow(declared, ()).select(list(columns) if columns is not None else declared.names())
            ]
        return from_arrow(declared, pa.concat_tables(parts))

    @property
    def vantages(self) -> list[str]:
        """Names of the places from which anything was seen; none in a snapshot that tells of no place."""
        import pandas as pd

        tables = [self.table(name, columns=["vantage"])["vantage"] for name in ("domains", "sessions")]
        return sorted(str(name) for name in pd.concat(tables).dropna().unique())

    @property
    def is_from_each(self) -> bool:
        """Every target was contacted from each of several vantages: `domains`, `mx` and `sessions` tell it of each."""
        if (scan := self.manifest.get("scan")) is not None:
            return len(scan.get("vantages", ())) > 1
        keys = {"domains": ["domain"], "sessions": ["mx_host", "address"]}
        tables = [self.table(name, columns=[*columns, "vantage"]) for name, columns in keys.items()]
        named = [table[table["vantage"].notna()].drop_duplicates() for table in tables]
        return any(
            table.duplicated(columns).any() for table, columns in zip(named, keys.values(), strict=True)
        )

    def from_vantage(self, name: str) -> Snapshot:
        """Give what was seen from one vantage, in memory: a snapshot like that of a scan from there alone.

        Raises
        ------
        ValueError
            The snapshot has nothing from there.
        """
        if name not in (known := self.vantages):
            there = ", ".join(known) or "none"
            raise ValueError(f"no vantage {name!r} in this snapshot; there are {there}")
        frames = {
            table: self.table(table, where={"vantage": name})
            for table in ("domains", "mx", "sessions", "attempts")
        }
        hosts = {*frames["mx"]["mx_host"], *frames["sessions"]["mx_host"]}
        frames["hosts"] = self.table("hosts", where={"mx_host": sorted(hosts)})
        chains = (frames["sessions"]["chain_sha256"], frames["domains"]["sts_chain_sha256"])
        shown = {sha256 for lists in chains for chain in lists.dropna() for sha256 in chain}
        frames["certificates"] = self.table("certificates", where={"sha256": sorted(shown)})
        return Snapshot(None, _manifest_of(self.manifest, name), self.roots_pem, frames)

    def by_vantage(self) -> list[Snapshot]:
        """Give this snapshot alone; of one where each vantage tells all of it, `from_vantage` of each of them."""
        return [self.from_vantage(name) for name in self.vantages] if self.is_from_each else [self]

    def count(self, name: str) -> int:
        """Count the rows of a table, without reading them where they are on the disk."""
        if self._folder is None or name in self._frames:
            return len(self._frames[name])
        folder = self._folder
        return sum(_each(folder, folder.list(name, "part-*.parquet"), lambda part: _rows_of(folder, part)))

    def dask(self, name: str) -> Any:
        """Open a table as a Dask frame, a partition for each part: for tables too large for memory, or for a cluster.

        Needs ``pip install 'rtls_analysis[dask]'``.

        Parameters
        ----------
        name
            One of the six tables of a snapshot.

        Raises
        ------
        StoreProblem
            The snapshot is in memory.
        """
        from rtls_analysis.frames import from_parts

        declared = _snapshot_table(name)
        if self._folder is None:
            raise StoreProblem(
                f"a snapshot in memory has no parts: save it first, or take its table {name!r}"
            )
        root, system = self._folder.arrow
        parts = self._folder.list(name, "part-*.parquet")
        return from_parts(declared, [f"{root}/{part}" for part in parts], system)

    def _whole(self, name: str) -> pd.DataFrame:
        if name not in self._frames:
            self._frames[name] = self.table(name)
        return self._frames[name].copy(deep=False)

    @property
    def domains(self) -> pd.DataFrame:
        """One row per policy domain."""
        return self._whole("domains")

    @property
    def mx(self) -> pd.DataFrame:
        """One row per (policy domain, MX host)."""
        return self._whole("mx")

    @property
    def hosts(self) -> pd.DataFrame:
        """One row per MX host."""
        return self._whole("hosts")

    @property
    def sessions(self) -> pd.DataFrame:
        """One row per (MX host, address)."""
        return self._whole("sessions")

    @property
    def certificates(self) -> pd.DataFrame:
        """One row per distinct certificate."""
        return self._whole("certificates")

    @property
    def attempts(self) -> pd.DataFrame:
        """One row per connection made."""
        return self._whole("attempts")

    def save(self, out: Address) -> Snapshot:
        """Write the tables to a new directory, by its path or address; gives the snapshot that is there."""
        folder = open_folder(out)
        path = folder.path
        if path is not None and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StoreProblem(f"{path} exists and is not empty; give a new directory")
        if path is None and folder.exists():
            raise StoreProblem(f"{folder} exists; give a new address")
        folder.make()
        folder.write(ROOTS, self.roots_pem)
        import pyarrow as pa

        for table in SNAPSHOT_TABLES:
            folder.make(table.name)
            frame = self._whole(table.name)
            arrow = pa.Table.from_pandas(
                frame.astype({c.name: object for c in table.columns if c.kind is Kind.WORD}),
                schema=table.arrow_schema,
                preserve_index=False,
            )
            write_part(folder, f"{table.name}/part-000001.parquet", arrow.replace_schema_metadata(None))
        text = json.dumps(self.manifest, indent=2, default=_to_json, ensure_ascii=False)
        folder.write(MANIFEST, text.encode() + b"\n")
        return open_snapshot(folder)

    @property
    def is_complete(self) -> bool:
        """The scan ran to its end."""
        return bool(self.manifest.get("state") == "complete")

    def __repr__(self) -> str:
        where = self.address or "in memory"
        return f"<Snapshot {where}: {self.count('domains'):,} domains, {self.count('sessions'):,} sessions>"

    def summary(self) -> pd.DataFrame:
        """Count domains by share: one row per question, one column per `DomainShare` word; counts."""
        import pandas as pd

        domains = one_vantage(self).table("domains", columns=QUESTIONS)
        counts = {name: domains[name].value_counts(sort=False) for name in QUESTIONS}
        return pd.DataFrame(counts).T.fillna(0).astype("int64")

    def obstacles(self) -> pd.Series[int]:
        """Count domains by what stops a REQUIRETLS message first, most frequent first; counts."""
        counts = one_vantage(self).table("domains", columns=["obstacle"])["obstacle"].value_counts()
        return counts[(counts > 0) & (counts.index != "")].rename_axis("obstacle").rename("domains")

    def _headline(self) -> str:
        state = self.manifest.get("state", "")
        date = str(self.manifest.get("started_at", ""))[:10]
        size = (
            f"{self.count('domains'):,} domains, {self.count('hosts'):,} MX hosts, "
            f"{self.count('sessions'):,} addresses"
        )
        seen = f", seen from {self.manifest['vantage']['name']}" if "of_each" in self.manifest else ""
        return f"Scan of {date}: {size}{seen}" + (
            "" if state == "complete" else f" ({state or 'unfinished'})"
        )

    def __str__(self) -> str:
        if self.is_from_each:
            return "\n\n\n".join(map(str, self.by_vantage()))
        text = f"{self._headline()}\n\n{self.summary().to_string()}"
        obstacles = self.obstacles()
        if len(obstacles):
            text += f"\n\nWhat stops REQUIRETLS mail first\n{obstacles.to_string(header=False)}"
        warning = self.manifest.get("resolver", {}).get("warning", "")
        return text + (f"\n\n{warning}" if warning else "")

    def _repr_html_(self) -> str:
        import html

        if self.is_from_each:
            return "".join(snapshot._repr_html_() for snapshot in self.by_vantage())
        parts = [f"<p><b>{html.escape(self._headline())}</b></p>", self.summary().to_html()]
        obstacles = self.obstacles()
        if len(obstacles):
            parts.append("<p>What stops REQUIRETLS mail first</p>" + obstacles.to_frame().to_html())
        if warning := self.manifest.get("resolver", {}).get("warning", ""):
            parts.append(f"<p>{html.escape(warning)}</p>")
        return "".join(parts)


def one_vantage(snapshot: Snapshot) -> Snapshot:
    """Give a snapshot whose domains and addresses are each told once: whoever counts them asks here.

    Raises
    ------
    ValueError
        Each of several vantages tells of all of them.
    """
    if not snapshot.is_from_each:
        return snapshot
    first, *_others = names = snapshot.vantages
    raise ValueError(
        f"this snapshot has the vantages {', '.join(names)}: take one with snapshot.from_vantage({first!r}), or "
        "compare them with rtls_analysis.analysis.compare_vantages(snapshot)"
    )


def _manifest_of(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give the manifest of a scan as that of one from this vantage alone; `of_each` lists those it was one of."""
    scan = dict(manifest.get("scan", {}))
    places = [place for place in manifest.get("vantages", ()) if place.get("name") == name]
    own: dict[str, Any] = {"vantages": places}
    about = {
        key: value for place in places for key, value in place.items() if key not in ("resolver", "workers")
    }
    own["vantage"] = {**manifest.get("vantage", {}), "name": name, **about}
    if names := scan.pop("vantages", ()):
        own["of_each"] = list(names)
    return {**manifest, **own, **({"scan": scan} if "scan" in manifest else {})}


def open_snapshot(path: Address | Folder) -> Snapshot:
    """Open a snapshot that `rtls.scan` wrote; also one whose scan is unfinished, as far as it got.

    Parameters
    ----------
    path
        Its directory, or its address on any fsspec file system, as ``s3://BUCKET/NAME``.

    Raises
    ------
    StoreProblem
        The path is no snapshot.
    """
    folder = open_folder(path)
    if folder.path is not None and not folder.path.is_dir():
        raise StoreProblem(f"{folder} is no snapshot: there is no such directory")
    manifest = read_manifest(folder)
    try:
        roots = folder.read(ROOTS)
    except OSError as error:
        raise StoreProblem(f"{folder} lacks its {ROOTS}: {error.strerror or error}") from None
    return Snapshot(folder, manifest, roots)
