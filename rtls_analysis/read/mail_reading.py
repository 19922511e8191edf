"""One pass over messages, a table in parts: what the readers of notices, TLS reports and hops share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from rtls_analysis.progress import progress_bar
from rtls_analysis.read.mail_coverage import MailCoverage
from rtls_analysis.read.mail_files import MailFiles
from rtls_analysis.schema import Table, from_arrow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PART_ROWS = 50_000


class MailReading(ABC):
    """Messages in, rows of one table out: `read_message` takes one in, `take_rows` hands the rows of many out.

    Parameters
    ----------
    files
        The messages.
    rows
        Of a part, about: those of a message stay together.

    Attributes
    ----------
    table, label
        What comes of it, and what the messages are called beside the progress bar.
    counts
        What was read so far.
    """

    table: Table
    label: str

    def __init__(self, files: MailFiles, *, rows: int = PART_ROWS) -> None:
        self.files = files
        self.counts = MailCoverage()
        self._rows = rows

    @abstractmethod
    def read_message(self, source: str, data: bytes) -> int:
        """Read one message, or file; gives how many rows wait to be taken."""

    @abstractmethod
    def take_rows(self) -> pa.Table:
        """The rows that wait; after that there are none."""

    @property
    def coverage(self) -> dict[str, Any]:
        """What was read up to the last part, and what of it gave nothing, by reason."""
        return self.counts.as_dict(self.files.problems)

    def parts(self) -> Iterator[list[tuple[Table, pa.Table]]]:
        """Read on, message by message: most give no part; there is at least one part, without rows if need be."""
        waiting, is_first = 0, True
        for source, data in self.files:
            self.counts.messages_read += 1
            waiting = self.read_message(source, data)
            if waiting < self._rows:
                yield []
                continue
            yield [(self.table, self.take_rows())]
            waiting, is_first = 0, False
        if waiting or is_first:
            yield [(self.table, self.take_rows())]

    def frames(self, *, progress: bool) -> Iterator[pd.DataFrame]:
        """The parts as frames, each with the coverage of all that was read up to its end; with a progress bar."""
        bar = progress_bar(
            total=self.files.bytes_total,
            label=self.label,
            unit="B",
            shown=progress,
            unit_scale=True,
            unit_divisor=1024,
        )
        with bar:
            for parts in self.parts():
                for table, part in parts:
                    frame = from_arrow(table, part)
                    frame.attrs["coverage"] = self.coverage
                    yield frame
                if self.files.bytes_read != bar.n:
                    bar.update(self.files.bytes_read - bar.n)


def whole(reading: MailReading, *, progress: bool) -> pd.DataFrame:
    """All parts as one frame."""
    import pandas as pd

    frames = list(reading.frames(progress=progress))
    if len(frames) == 1:
        return frames[0]
    frame = pd.concat(frames, ignore_index=True)
    frame.attrs["coverage"] = frames[-1].attrs["coverage"]
    return frame


def read_mail(
    client: Any,
    files: MailFiles,
    make: Callable[[Any, Any], MailReading],
    options: Any,
    table: Table,
    *,
    out: str | os.PathLike[str] | None,
    progress: bool,
) -> pd.DataFrame:
    """Have a cluster read these files in groups; `make` begins to read one. Gives a Dask frame."""
    from rtls_analysis.read.clustered import group_files, read_on_cluster

    frames = read_on_cluster(
        client,
        group_files(files.files()),
        make,
        options,
        (table,),
        out={} if out is None else {table.name: out},
        label=table.name,
        progress=progress,
        problems=files.problems,
    )
    frame: pd.DataFrame = frames[table.name]  # a Dask one
    return frame


def no_out(out: object) -> None:
    """Raise where a folder was given without a cluster that would write it."""
    if out is not None:
        raise ValueError(
            "out= is where a cluster writes the table: give client= too, or use write_logs or write_table"
        )
