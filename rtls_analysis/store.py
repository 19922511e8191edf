"""A scan as a snapshot: a directory of Parquet parts per table with a manifest, or the same tables in memory.

Nothing that was measured is lost: a row is on its way to the disk before the next one is asked for. While a
scan runs, rows go to journals (JSON Lines, one write a row, one file per table and process); a journal that is full
becomes a Parquet part, written under a temporary name, synced and renamed, and only then is the journal removed.
After ``kill -9`` the journals are read back; a torn last line is the work in flight.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rtls_analysis.schema import QUESTIONS, SNAPSHOT_TABLES, TABLES, Kind, Table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMAT = 1
"""Version of the layout of a snapshot."""

MANIFEST = "manifest.json"
ROOTS = "roots.pem"
LOOKUPS = "lookups"  # working table: what was found in DNS for each domain, until it can be judged
POLICIES = "policies"  # working table: what came of fetching the MTA-STS policy of a domain
VISITS = "visits"  # working table: sessions that a server pushed back, to be visited again
_WORK = "_work"
_ROWS_PER_PART = 10_000


class StoreProblem(Exception):
    """A directory that cannot be read as, or written as, this snapshot: one line that says what would do."""


# -- Writing -------------------------------------------------------------------------------------------------


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_part(path: Path, table: pa.Table) -> None:
    """Write one Parquet part by temporary name, fsync and rename."""
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


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

    Several processes may write to one snapshot, each under a name of its own; files are only ever appended to by
    the process that began them.
    """

    def __init__(self, root: Path, writer: str = "main") -> None:
        self.root, self.writer = root, writer
        self._files: dict[str, BinaryIO] = {}
        self._rows: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def append(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a row; it has left this process when the call returns."""
        if (file := self._files.get(table)) is None:
            file = self._open(table)
        try:
            _write_all(file, _encode(row).encode() + b"\n")
        except OSError:  # a full disk: the line may be torn, nothing may follow it
            self._files.pop(table).close()
            raise
        self._rows[table] += 1
        if self._rows[table] >= _ROWS_PER_PART:
            self._end(table)

    def _open(self, table: str) -> BinaryIO:
        if table not in self._numbers:
            label = f"{table}-{self.writer}-"
            held = [*(self.root / _WORK).glob(f"{label}*.jsonl")]
            held += (self.root / table).glob(f"part-{self.writer}-*.parquet")
            self._numbers[table] = max(map(_number, held), default=0)
        self._numbers[table] += 1
        path = self.root / _WORK / f"{table}-{self.writer}-{self._numbers[table]:06d}.jsonl"
        file = self._files[table] = path.open("ab", buffering=0)
        self._rows[table] = 0
        return file

    def _end(self, table: str) -> None:
        file = self._files.pop(table)
        os.fsync(file.fileno())
        file.close()

    def close(self) -> None:
        """Put all rows on the disk and let go of the files."""
        for table in list(self._files):
            self._end(table)


def _write_all(file: BinaryIO, data: bytes) -> None:
    written = file.write(data)
    while written < len(data):
        written += file.write(data[written:])


_encode = json.JSONEncoder(default=_to_json, separators=(",", ":")).encode


def _journals(root: Path, table: str) -> list[Path]:
    return sorted((root / _WORK).glob(f"{table}-*.jsonl"))


def _part_of(root: Path, journal: Path) -> Path:
    """Give the part that a journal becomes; once it is there, the journal is history."""
    table, _dash, rest = journal.stem.partition("-")
    return root / table / f"part-{rest}.parquet"


def _rows_in(path: Path, table: Table | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a journal; a line that a kill cut off is skipped."""
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            yield row if table is None else _revive(table, row)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


class TableWriter:
    """Writes a whole table anew, beside the old one, and puts it in its place with `finish`."""

    def __init__(self, folder: Path, table: Table) -> None:
        self._folder, self._table = folder, table
        self._old = list(folder.glob("part-*.parquet"))
        self._first = max(map(_number, self._old), default=0) + 1
        self._batch: list[Mapping[str, Any]] = []
        self._written: list[Path] = []

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._batch.append(row)
        if len(self._batch) >= _ROWS_PER_PART:
            self._flush()

    def _flush(self) -> None:
        from rtls_analysis.schema import to_arrow

        path = self._folder / f"part-main-{self._first + len(self._written):06d}.parquet"
        write_part(_hidden(path), to_arrow(self._table, self._batch))
        self._written.append(path)
        self._batch.clear()

    def finish(self) -> None:
        """Let the new parts take the place of the old ones."""
        if self._batch or not self._written:
            self._flush()
        for path in self._old:
            path.unlink()
        for path in self._written:
            _hidden(path).replace(path)
        _sync_directory(self._folder)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


class SnapshotWriter:
    """Writes a snapshot's tables, to a directory or, without one, to memory; resumes what is there.

    Parameters
    ----------
    out
        The directory, made if need be. Without one it is a temporary one, which `snapshot` takes into memory.
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

    def __init__(self, out: Path | None, manifest: Mapping[str, Any], roots_pem: bytes) -> None:
        self.is_temporary = out is None
        self.path = Path(tempfile.mkdtemp(prefix="rtls-")) if out is None else out
        self.roots_pem = roots_pem
        self.manifest: dict[str, Any] = dict(manifest)
        self.resumed = False
        self._lock: BinaryIO | None = None
        self._own = Journals(self.path)
        try:
            self._open(self.path)
        except BaseException:
            self.abandon()
            raise

    def _open(self, out: Path) -> None:
        if out.exists() and not out.is_dir():
            raise StoreProblem(f"{out} is a file; give a directory for the snapshot")
        held = read_manifest(out) if is_begun(out) else None
        if held is not None and held.get("scan") != self.manifest.get("scan"):
            differs = _differences(held.get("scan") or {}, self.manifest.get("scan") or {})
            raise StoreProblem(f"{out} holds another scan ({differs}); give a new directory")
        try:
            (out / _WORK).mkdir(parents=True, exist_ok=True)
            self._lock = (out / _WORK / "lock").open("wb")
        except OSError as error:
            raise StoreProblem(
                f"cannot write to {out}: {error.strerror}; give a directory that can be"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._unlock()
            raise StoreProblem(
                f"another process is writing to {out}; let it end, or give a new directory"
            ) from None
        if held is not None:
            self.resumed = True
            self.manifest = held
            self.roots_pem = (out / ROOTS).read_bytes()
        else:
            _write_whole(out / ROOTS, self.roots_pem)
            self.write_manifest()
        for table in SNAPSHOT_TABLES:
            (out / table.name).mkdir(exist_ok=True)
            for left in (out / table.name).glob(".part-*"):  # what a kill cut off
                left.unlink()
            for journal in _journals(out, table.name):
                if _part_of(out, journal).exists():
                    journal.unlink()  # became a part; only its removal was cut off

    def write_manifest(self) -> None:
        """Store the manifest as it is now."""
        text = json.dumps(self.manifest, indent=2, default=_to_json, ensure_ascii=False)
        _write_whole(self.path / MANIFEST, text.encode() + b"\n")

    def append(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a row to a table, or to a working table."""
        self._own.append(table, row)

    def journals(self, writer: str) -> Journals:
        """Give another writer, another process for instance, journals of its own."""
        return Journals(self.path, writer)

    def stored(self, table: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows there are, parts first, then journals, as mappings."""
        declared = TABLES.get(table)
        if declared is not None:
            for arrow in _parts(self.path, declared, columns):
                yield from _python_rows(declared, arrow)
        for path in _journals(self.path, table):
            yield from _rows_in(path, declared)

    def fold(self, *, finished: bool = True) -> None:
        """Turn journals into parts; without `finished`, only those that are full."""
        if finished:
            self._own.close()
        for table in SNAPSHOT_TABLES:
            paths = _journals(self.path, table.name)
            newest = {path.stem.rpartition("-")[0]: path for path in paths}
            for path in paths:
                if finished or newest[path.stem.rpartition("-")[0]] != path:
                    self._fold(path, table)
        if finished:
            self._drop_doubles("certificates", "sha256")

    def _fold(self, path: Path, table: Table) -> None:
        from rtls_analysis.schema import to_arrow

        rows = list(_rows_in(path, table))
        if rows:
            write_part(_part_of(self.path, path), to_arrow(table, rows))
        path.unlink()

    def _drop_doubles(self, table: str, key: str) -> None:
        """Keep the first row of each key: several processes, or runs, may have seen the same certificate."""
        import pyarrow.parquet as pq

        seen: set[str] = set()
        for part in sorted((self.path / table).glob("part-*.parquet")):
            is_new: list[bool] = []
            for value in pq.read_table(part, columns=[key], partitioning=None).column(key).to_pylist():
                is_new.append(value not in seen)
                seen.add(value)
            if not all(is_new):
                write_part(part, pq.read_table(part, partitioning=None).filter(is_new))

    def replacement(self, table: str) -> TableWriter:
        """Begin a whole table anew (the judged tables, when a scan ends)."""
        return TableWriter(self.path / table, TABLES[table])

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
            shutil.rmtree(self.path, ignore_errors=True)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def drop_work(self) -> None:
        """Remove the working files of a finished scan (after `close`)."""
        shutil.rmtree(self.path / _WORK, ignore_errors=True)

    def snapshot(self) -> Snapshot:
        """Open what was written; a temporary directory is taken into memory and removed."""
        snapshot = open_snapshot(self.path)
        if not self.is_temporary:
            return snapshot
        frames = {table.name: snapshot.table(table.name) for table in SNAPSHOT_TABLES}
        shutil.rmtree(self.path, ignore_errors=True)
        return Snapshot(None, snapshot.manifest, snapshot.roots_pem, frames)


def _differences(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*held, *asked}) if held.get(name) != asked.get(name)]
    return "different " + ", ".join(name.replace("_", " ") for name in names) if names else "different"


# -- Reading -------------------------------------------------------------------------------------------------


def is_begun(out: Path) -> bool:
    """Tell a directory that holds something from one that is not there, or where a kill came before the manifest."""
    if not out.is_dir():
        return False
    first = {_WORK, ROOTS, *(f".{name}.tmp" for name in (ROOTS, MANIFEST))}
    return any(path.name not in first for path in out.iterdir())


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a snapshot directory; `StoreProblem` where there is none that can be read."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreProblem(f"{path} is no snapshot: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise StoreProblem(f"the manifest of {path} cannot be read: {error}") from None
    if not isinstance(manifest, dict):
        raise StoreProblem(f"the manifest of {path} is no JSON object")
    if (form := manifest.get("format", FORMAT)) != FORMAT:
        raise StoreProblem(
            f"{path} is a snapshot of format {form}, this version reads {FORMAT}; use the one that wrote it"
        )
    return manifest


def _parts(
    path: Path, table: Table, columns: Sequence[str] | None = None, where: Any = None
) -> Iterator[pa.Table]:
    """The Parquet parts of a table with the declared types; columns that an older part lacks are nulls."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(columns) if columns is not None else table.names()
    for part in sorted((path / table.name).glob("part-*.parquet")):
        with pq.ParquetFile(part) as file:
            held = set(file.schema_arrow.names)
        arrow = pq.read_table(part, columns=[n for n in names if n in held], filters=where, partitioning=None)
        arrays = [
            arrow.column(name).cast(table[name].arrow)
            if name in held
            else pa.nulls(arrow.num_rows, table[name].arrow)
            for name in names
        ]
        yield pa.Table.from_arrays(arrays, names=names)


def _python_rows(table: Table, arrow: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in arrow.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


class Snapshot:
    """The tables of one scan, read when asked for.

    `domains`, `mx`, `hosts`, `sessions`, `certificates` and `attempts` are DataFrames with the columns that
    `rtls_analysis.schema` declares; `manifest` says what was scanned, how, when and by which rules.
    """

    def __init__(
        self,
        path: Path | None,
        manifest: dict[str, Any],
        roots_pem: bytes,
        frames: Mapping[str, pd.DataFrame] | None = None,
    ) -> None:
        self.path = path
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
        declared = {table.name: table for table in SNAPSHOT_TABLES}.get(name)
        if declared is None:
            known = ", ".join(table.name for table in SNAPSHOT_TABLES)
            raise ValueError(f"no table {name!r} in a snapshot; there are {known}")
        unknown = sorted({*(columns or ()), *(where or {})} - set(declared.names()))
        if unknown:
            raise ValueError(f"{name} has no column {', '.join(unknown)}; see rtls_analysis.schema")
        if self.path is None or name in self._frames:
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
        parts = [] if nothing else list(_parts(self.path, declared, columns, filters or None))
        if not parts:
            parts = [
                to_arrow(declared, ()).select(list(columns) if columns is not None else declared.names())
            ]
        return from_arrow(declared, pa.concat_tables(parts))

    def count(self, name: str) -> int:
        """Count the rows of a table, without reading them where they are on the disk."""
        if self.path is None or name in self._frames:
            return len(self._frames[name])
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(part).num_rows for part in (self.path / name).glob("part-*.parquet"))

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

    def save(self, out: str | os.PathLike[str]) -> Snapshot:
        """Write the tables to a new directory, which `open_snapshot` opens; gives that snapshot."""
        path = Path(out)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise StoreProblem(f"{path} exists and is not empty; give a new directory")
        path.mkdir(parents=True, exist_ok=True)
        _write_whole(path / ROOTS, self.roots_pem)
        import pyarrow as pa

        for table in SNAPSHOT_TABLES:
            (path / table.name).mkdir()
            frame = self._whole(table.name)
            arrow = pa.Table.from_pandas(
                frame.astype({c.name: object for c in table.columns if c.kind is Kind.WORD}),
                schema=table.arrow_schema,
                preserve_index=False,
            )
            write_part(path / table.name / "part-000001.parquet", arrow.replace_schema_metadata(None))
        text = json.dumps(self.manifest, indent=2, default=_to_json, ensure_ascii=False)
        _write_whole(path / MANIFEST, text.encode() + b"\n")
        return open_snapshot(path)

    @property
    def is_complete(self) -> bool:
        """The scan ran to its end."""
        return bool(self.manifest.get("state") == "complete")

    def __repr__(self) -> str:
        where = str(self.path) if self.path is not None else "in memory"
        return f"<Snapshot {where}: {self.count('domains'):,} domains, {self.count('sessions'):,} sessions>"

    def summary(self) -> pd.DataFrame:
        """Count domains by share: one row per question, one column per `DomainShare` word; counts."""
        import pandas as pd

        domains = self.table("domains", columns=QUESTIONS)
        counts = {name: domains[name].value_counts(sort=False) for name in QUESTIONS}
        return pd.DataFrame(counts).T.fillna(0).astype("int64")

    def obstacles(self) -> pd.Series[int]:
        """Count domains by what stops a REQUIRETLS message first, most frequent first; counts."""
        counts = self.table("domains", columns=["obstacle"])["obstacle"].value_counts()
        return counts[(counts > 0) & (counts.index != "")].rename_axis("obstacle").rename("domains")

    def _headline(self) -> str:
        state = self.manifest.get("state", "")
        date = str(self.manifest.get("started_at", ""))[:10]
        size = (
            f"{self.count('domains'):,} domains, {self.count('hosts'):,} MX hosts, "
            f"{self.count('sessions'):,} addresses"
        )
        return f"Scan of {date}: {size}" + ("" if state == "complete" else f" ({state or 'unfinished'})")

    def __str__(self) -> str:
        text = f"{self._headline()}\n\n{self.summary().to_string()}"
        obstacles = self.obstacles()
        if len(obstacles):
            text += f"\n\nWhat stops REQUIRETLS mail first\n{obstacles.to_string(header=False)}"
        warning = self.manifest.get("resolver", {}).get("warning", "")
        return text + (f"\n\n{warning}" if warning else "")

    def _repr_html_(self) -> str:
        import html

        parts = [f"<p><b>{html.escape(self._headline())}</b></p>", self.summary().to_html()]
        obstacles = self.obstacles()
        if len(obstacles):
            parts.append("<p>What stops REQUIRETLS mail first</p>" + obstacles.to_frame().to_html())
        if warning := self.manifest.get("resolver", {}).get("warning", ""):
            parts.append(f"<p>{html.escape(warning)}</p>")
        return "".join(parts)


def open_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Open a snapshot directory that `rtls.scan` wrote; also one whose scan is unfinished, as far as it got.

    Raises
    ------
    StoreProblem
        The path is no snapshot.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise StoreProblem(f"{directory} is no snapshot: there is no such directory")
    manifest = read_manifest(directory)
    try:
        roots = (directory / ROOTS).read_bytes()
    except OSError as error:
        raise StoreProblem(f"{directory} lacks its {ROOTS}: {error.strerror}") from None
    return Snapshot(directory, manifest, roots)
