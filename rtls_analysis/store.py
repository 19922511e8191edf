"""A scan as a snapshot: a directory of Parquet parts per table with a manifest, or the same tables in memory.

Nothing that was measured is lost: a row is on its way to the disk before the next one is asked for. While a
scan runs, rows go to a journal (JSON Lines, one write a row); a journal that is full becomes a Parquet part,
written under a temporary name, synced and renamed, and only then is the journal removed. After ``kill -9`` the
journals are read back; a torn last line is the work in flight.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from rtls_analysis.schema import SNAPSHOT_TABLES, TABLES, Kind, Table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MANIFEST = "manifest.json"
ROOTS = "roots.pem"
LOOKUPS = "lookups"  # the working table: what was found in DNS for each domain, until it can be judged
_WORK = "_work"
_ROWS_PER_PART = 50_000
_QUESTIONS = [
    "starttls",
    "pkix",
    "dane",
    "requiretls_offered",
    "requiretls_ready",
    "requiretls_ready_testing",
]


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


class Journal:
    """The rows of one table while they arrive: a JSON Lines file that turns into Parquet parts.

    `table` is None for a working table, which never becomes Parquet.
    """

    def __init__(self, name: str, table: Table | None, root: Path) -> None:
        self.name, self.table = name, table
        self._work, self._parts = root / _WORK, root / name
        self._rows = 0
        self._file: BinaryIO | None = None
        self._number = 0
        if table is not None:
            self._parts.mkdir(exist_ok=True)
        for path in self._journals():
            number = _number(path)
            self._number = max(self._number, number)
            if table is not None and self._part(number).exists():
                path.unlink()  # became a part; only its removal was cut off
        for path in self._parts.glob("part-*.parquet") if table is not None else ():
            self._number = max(self._number, _number(path))

    def _journals(self) -> list[Path]:
        return sorted(self._work.glob(f"{self.name}-*.jsonl"))

    def _part(self, number: int) -> Path:
        return self._parts / f"part-{number:06d}.parquet"

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; it has left this process when the call returns."""
        if self._file is None:
            self._number += 1
            self._file = (self._work / f"{self.name}-{self._number:06d}.jsonl").open("ab", buffering=0)
        self._file.write(json.dumps(row, default=_to_json, separators=(",", ":")).encode() + b"\n")
        self._rows += 1
        if self.table is not None and self._rows >= _ROWS_PER_PART:
            self.close()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows that are still in journals; a torn line is skipped."""
        for path in self._journals():
            with path.open("rb") as file:
                for line in file:
                    try:
                        row = json.loads(line)
                    except ValueError:
                        continue  # the write that a kill cut off
                    yield row if self.table is None else _revive(self.table, row)

    def close(self) -> None:
        """Turn what is in the journals into parts (a working table keeps its journals)."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        self._rows = 0
        if self.table is None:
            return
        from rtls_analysis.schema import to_arrow

        for path in self._journals():
            with path.open("rb") as file:
                rows = list(_whole_rows(self.table, file))
            if rows:
                write_part(self._part(_number(path)), to_arrow(self.table, rows))
            path.unlink()


def _whole_rows(table: Table, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with contextlib.suppress(ValueError):
            yield _revive(table, json.loads(line))


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


class SnapshotWriter:
    """Writes a snapshot's tables, to a directory or, without one, to memory; resumes what is there.

    Parameters
    ----------
    out
        The directory, made if need be; None keeps the tables in memory.
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
        self.path = out
        self.roots_pem = roots_pem
        self.manifest: dict[str, Any] = dict(manifest)
        self.resumed = False
        self._memory: dict[str, list[dict[str, Any]]] = {table.name: [] for table in SNAPSHOT_TABLES}
        self._memory[LOOKUPS] = []
        self._journals: dict[str, Journal] = {}
        self._lock: BinaryIO | None = None
        if out is not None:
            self._open(out)

    def _open(self, out: Path) -> None:
        if out.exists() and not out.is_dir():
            raise StoreProblem(f"{out} is a file; give a directory for the snapshot")
        held = read_manifest(out) if out.exists() and any(out.iterdir()) else None
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
            self._lock.close()
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
            self._journals[table.name] = Journal(table.name, table, out)
        self._journals[LOOKUPS] = Journal(LOOKUPS, None, out)

    def write_manifest(self) -> None:
        """Store the manifest as it is now."""
        if self.path is not None:
            text = json.dumps(self.manifest, indent=2, default=_to_json, ensure_ascii=False)
            _write_whole(self.path / MANIFEST, text.encode() + b"\n")

    def append(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a row to a table, or to the working table `LOOKUPS`."""
        if self.path is None:
            self._memory[table].append(dict(row))
        else:
            self._journals[table].append(row)

    def stored(self, table: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows there are, parts first, then journals, as mappings."""
        if self.path is None:
            yield from self._memory[table]
            return
        if table in TABLES:
            for arrow in _parts(self.path, TABLES[table], columns):
                yield from _python_rows(TABLES[table], arrow)
        yield from self._journals[table].rows()

    def replace(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Put these rows in the place of the whole table (the judged tables, when a scan ends)."""
        if self.path is None:
            self._memory[table] = [dict(row) for row in rows]
            return
        from rtls_analysis.schema import to_arrow

        folder, declared = self.path / table, TABLES[table]
        old = list(folder.glob("part-*.parquet"))
        first = max((_number(path) for path in old), default=0) + 1
        batch: list[Mapping[str, Any]] = []
        count = 0
        written: list[Path] = []

        def flush() -> None:
            nonlocal count
            path = folder / f"part-{first + count:06d}.parquet"
            hidden = folder / f".{path.name}.new"
            write_part(hidden, to_arrow(declared, batch))
            written.append(path)
            count += 1
            batch.clear()

        for row in rows:
            batch.append(row)
            if len(batch) >= _ROWS_PER_PART:
                flush()
        if batch or not written:
            flush()
        for path in old:
            path.unlink()
        for path in written:
            (folder / f".{path.name}.new").replace(path)
        _sync_directory(folder)

    def close(self) -> None:
        """Turn the journals into parts and let go of the directory."""
        if self.path is None:
            return
        for journal in self._journals.values():
            journal.close()
        self.write_manifest()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def drop_work(self) -> None:
        """Remove the working files of a finished scan (after `close`)."""
        if self.path is not None:
            shutil.rmtree(self.path / _WORK, ignore_errors=True)

    def snapshot(self) -> Snapshot:
        """Open what was written."""
        if self.path is not None:
            return open_snapshot(self.path)
        from rtls_analysis.schema import to_frame

        frames = {table.name: to_frame(table, self._memory[table.name]) for table in SNAPSHOT_TABLES}
        return Snapshot(None, self.manifest, self.roots_pem, frames)


def _differences(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*held, *asked}) if held.get(name) != asked.get(name)]
    return "different " + ", ".join(name.replace("_", " ") for name in names) if names else "different"


# -- Reading -------------------------------------------------------------------------------------------------


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

        parts = list(_parts(self.path, declared, columns, filters or None))
        if not parts:
            parts = [
                to_arrow(declared, ()).select(list(columns) if columns is not None else declared.names())
            ]
        return from_arrow(declared, pa.concat_tables(parts))

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
        return f"<Snapshot {where}: {len(self.domains):,} domains, {len(self.sessions):,} sessions>"

    def summary(self) -> pd.DataFrame:
        """Count domains by share: one row per question, one column per `DomainShare` word; counts."""
        import pandas as pd

        domains = self.table("domains", columns=_QUESTIONS)
        counts = {name: domains[name].value_counts(sort=False) for name in _QUESTIONS}
        return pd.DataFrame(counts).T.fillna(0).astype("int64")

    def obstacles(self) -> pd.Series[int]:
        """Count domains by what stops a REQUIRETLS message first, most frequent first; counts."""
        counts = self.table("domains", columns=["obstacle"])["obstacle"].value_counts()
        return counts[(counts > 0) & (counts.index != "")].rename_axis("obstacle").rename("domains")

    def _headline(self) -> str:
        state = self.manifest.get("state", "")
        date = str(self.manifest.get("started_at", ""))[:10]
        size = (
            f"{len(self.domains):,} domains, {len(self.hosts):,} MX hosts, {len(self.sessions):,} addresses"
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
