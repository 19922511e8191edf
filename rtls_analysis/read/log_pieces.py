"""Several processes at one log: a piece of Postfix's lines is read apart from what came before, and put in its place.

A worker reads a piece with the same reader, and keeps the rows of each message whose whole life lies within the
piece, from its Message-ID to ``removed``: nothing before or after can say anything about them. All other lines it
hands back, in order, and the engine that has read everything before reads them as ever. So no line is read in a
second way, it is only decided which can be read apart. A line of a delivery process rests on those that the same
process wrote since its last line about another message: one that is handed back takes those with it, and says
whether a kept message came between. Where anything else could matter (a hold, a year that turned out otherwise, an
hour that comes twice, a queue id that is still in use), the whole piece is read as ever.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, groupby
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from rtls_analysis.read.lines import Block
from rtls_analysis.read.log_engine import GENERATION, HEADER, MAX_LOOK_BACK, LogEngine
from rtls_analysis.read.log_files import LogFile
from rtls_analysis.read.log_rows import Coverage, Sink, Source
from rtls_analysis.read.log_tables import WIDTHS, Services, rows_table
from rtls_analysis.read.log_time import Clock, ClockState
from rtls_analysis.read.postfix import COUNTED, MAX_MESSAGES, Message, PostfixReader, Queue
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, Table

if TYPE_CHECKING:
    import re

    import pyarrow as pa

PIECE_BLOCKS = 6  # a block is a MiB
PIPE_BYTES = 1 << 20
CROWDED = MAX_MESSAGES // 2  # messages at hand beyond which nothing is read apart: some may be given up soon

Entry = tuple[int, bytes, int, int]  # a line's place, the line, where its text begins, its year


@dataclass(slots=True)
class LineBack:
    """A line that is to be read as ever: one of Postfix with its source, or any other (`host` is `None`)."""

    number: int
    line: bytes
    start: int
    year: int
    host: bytes | None = None
    tag: bytes = b""
    pid: bytes = b""
    counted: bool = False  # in the piece's coverage already
    after_kept: bool = False  # the process served a kept message in between


@dataclass(slots=True)
class PieceResult:
    """What reading a piece apart came to; places count from the piece's first line."""

    fits: bool
    lines: int
    coverage: Coverage = field(default_factory=Coverage)
    back: list[LineBack] = field(default_factory=list)
    kept: list[tuple[bytes, list[bytes]]] = field(default_factory=list)  # hosts and queue ids
    first_kept: list[tuple[bytes, bytes, bytes]] = field(
        default_factory=list
    )  # processes, by host, tag and pid
    ended_kept: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    # Rows in IPC form, and the places of the lines that they came from.
    tables: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)
    services: list[tuple[bytes, ...]] = field(default_factory=list)
    first_tls: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    began: tuple[int, tuple[int, int], int] | None = None  # `first_day` of its clock
    ended: ClockState | None = None


# -- reading a piece apart ------------------------------------------------------------------------------------


_client = PostfixReader._client  # called for each line: `super()` would cost as much as they do
_queue_manager = PostfixReader._queue_manager
_cleanup = PostfixReader._cleanup


class _PieceReader(PostfixReader):
    """Postfix's reader, which keeps to the messages whose whole life lies within the piece, and hands back the rest."""

    def __init__(self, sink: Sink, text: bytes) -> None:
        super().__init__(sink)
        self.fits = True
        self.back: list[LineBack] = []
        self.kept: dict[Queue, list[bytes]] = {}
        self.first_kept: set[Source] = set()  # those whose first message is a kept one
        self.heard: defaultdict[Source, list[Entry]] = defaultdict(list)  # lines that wait for their message
        self.after_kept: dict[Source, bool] = {}  # whether the last message that each named was a kept one
        self.connections_of: list[tuple[int, int]] = []  # place of a line, how many came of it
        self._ending = _ending_in(text)
        self._mine: set[Message | None] = set()
        self._connections = 0  # fields of them so far
        # Sources that made a remark about a message within a connection, which goes on.
        self._unsettled: dict[Source, Message | None] = {}
        self._client_line = 0  # place of the last line of a delivery agent

    def drop(self, source: Source) -> None:
        """Processes are not forgotten within a piece."""
        self.fits = False

    def _server(self, source: Source, line: bytes, start: int, number: int) -> None:
        self.fits = False

    def _postsuper(self, source: Source, line: bytes, start: int, number: int) -> None:
        self.fits = False

    def _begin(self, queue: Queue, message: Message) -> None:
        before = queue.messages.get(message.queue_id)
        super()._begin(queue, message)
        if message.queue_id in self._ending and (before is None or before in self._mine):
            self._mine.add(message)
            self.kept.setdefault(queue, []).append(message.queue_id)
        if len(queue.others) > 1 and sum(message.queue_id in other.messages for other in queue.others) > 1:
            self.fits = False  # two instances with the same id: which one a line is about depends on the past

    def _cleanup(self, source: Source, line: bytes, start: int, number: int) -> None:
        self.last = None
        _cleanup(self, source, line, start, number)
        if self.last not in self._mine:
            self.fits = self.fits and b"hold: " not in line
            self._of_another_time(source, line, start, number)

    def _queue_manager(self, source: Source, line: bytes, start: int, number: int) -> None:
        self.last = None
        _queue_manager(self, source, line, start, number)
        if self.last not in self._mine and self._client_line != number:
            self._of_another_time(source, line, start, number)

    def _of_another_time(self, source: Source, line: bytes, start: int, number: int) -> None:
        """Hand back a line about a message that is not kept; one about no message is done with."""
        if line.endswith(b": removed"):  # what begins under its id later does not end in this piece
            self._ending.discard(line[start:-9])
        elif self.last is None:
            return
        self._drop_rows(number)
        self._hand_back(source, self._entry(line, start, number))

    def _client(self, source: Source, line: bytes, start: int, number: int) -> None:
        self.last, self._client_line = None, number
        _client(self, source, line, start, number)
        connections = len(self.sink.connections) - self._connections if self.wants_connections else 0
        if self.last is None:
            self.heard[source].append(self._entry(line, start, number))
            if connections:  # too many at once: they stand without a message
                self.fits = False
            return
        if self.remarks or self._unsettled:
            self._see_remark(source)
        heard = self.heard.pop(source, ())
        if self.last in self._mine:
            if not self.after_kept.get(source):
                if source not in self.after_kept:
                    self.first_kept.add(source)
                self.after_kept[source] = True
            if connections:
                self._connections += connections
                self.connections_of.append((number, connections // WIDTHS[CONNECTIONS.name]))
            return
        self._drop_rows(number)
        if connections:
            del self.sink.connections[-connections:]
        for entry in heard:
            self._hand_back(source, entry)
        after_kept = self.after_kept.get(source, False)
        self._hand_back(source, self._entry(line, start, number), after_kept=after_kept)
        self.after_kept[source] = False

    def _see_remark(self, source: Source) -> None:
        """After a remark within a connection, what was said of that is still waiting for its message."""
        if self._unsettled.pop(source, self.last) is not self.last:
            self.fits = False  # it may be for either message
        if self.remarks:
            self.remarks = 0
            if source not in self.after_kept:  # what waits may have been said before the piece
                self.fits = False
            if source.state.fresh:
                self._unsettled[source] = self.last

    def _drop_rows(self, number: int) -> None:
        """Deliveries that came of this line are not the piece's."""
        width = WIDTHS[DELIVERIES.name]
        while self.rows and self.rows[-width] == number:
            del self.rows[-width:]

    def _hand_back(self, source: Source, entry: Entry, *, after_kept: bool = False) -> None:
        self.back.append(LineBack(*entry, source.host, source.tag, source.pid, True, after_kept))

    def _entry(self, line: bytes, start: int, number: int) -> Entry:
        return number, line, start, self.sink.clock.year_of_line

    def close(self) -> list[tuple[bytes, bytes, bytes]]:
        """The piece has ended: hand back what no message took; those processes whose last message is a kept one."""
        for source, entries in self.heard.items():
            for entry in entries:
                self._hand_back(source, entry, after_kept=self.after_kept.pop(source, False))
        alive = (
            message
            for all_of in self.hosts.values()
            for queue in all_of.values()
            for message in queue.messages.values()
        )
        if any(message in self._mine for message in chain(alive, self._unsettled.values())):
            self.fits = False
        return [_key(source) for source, after_kept in self.after_kept.items() if after_kept]

    def places(self, table: Table) -> list[int]:
        """The place of the line that each row came from."""
        if table is DELIVERIES:
            return self.rows[:: WIDTHS[table.name]]
        return [number for number, count in self.connections_of for _ in range(count)]


def _key(source: Source) -> tuple[bytes, bytes, bytes]:
    return source.host, source.tag, source.pid


def _ending_in(text: bytes) -> set[bytes]:
    """Queue ids that end once in a text, as can be seen without reading it line by line."""
    ids = [part[part.rfind(b" ") + 1 :] for part in text.split(b": removed\n")[:-1]]
    once = set(ids)
    return once if len(once) == len(ids) else {one for one, count in Counter(ids).items() if count == 1}


class _PieceEngine(LogEngine):
    """Lines to the piece's reader; those that are not Postfix's go back."""

    def __init__(self, sink: Sink, reader: _PieceReader) -> None:
        super().__init__(sink, [reader])
        self.reader = reader
        self.others: list[LineBack] = []

    def last_of(self, host: bytes, lines: list[bytes]) -> bytes | None:
        """The line that was repeated may lie before the piece."""
        self.reader.fits = False
        return None

    def unknown(self, line: bytes, start: int, header: re.Match[bytes] | None, number: int) -> None:
        if header is not None:
            tag, pid = header[2], header[3] or b""
            if self.reader.source(header[1] or b"", tag, pid, line[header.end() :]) is not None:
                self.reader.fits = False  # it may be Postfix's; other readers have to be asked first
        self.others.append(LineBack(number, line, start, self.sink.clock.year_of_line))

    def foreign(self, source: Source, line: bytes, start: int, number: int) -> None:
        year = self.sink.clock.year_of_line
        self.others.append(LineBack(number, line, start, year, source.host, source.tag, source.pid))


def read_piece(text: bytes, state: ClockState, tables: Sequence[Table]) -> PieceResult:
    """Read a piece of a log apart from what came before; the clock starts as it is thought to stand there."""
    import numpy as np
    import pyarrow as pa

    clock = Clock(state.zone)
    clock.resume(state)
    sink = Sink(clock, connections=CONNECTIONS in tables)
    reader = _PieceReader(sink, text)
    engine = _PieceEngine(sink, reader)
    engine.feed(Block(LogFile("piece"), text, 1))
    ended_kept = reader.close()
    result = PieceResult(reader.fits and not clock.met_careful_day, engine.number)
    if result.fits:
        result.coverage = sink.coverage
        result.back = sorted(reader.back + engine.others, key=lambda line: line.number)
        result.ended_kept = ended_kept
        result.first_kept = [_key(source) for source in reader.first_kept]
        hosts = {queue: host for host, queues in reader.hosts.items() for queue in queues.values()}
        result.kept = [(hosts[queue], ids) for queue, ids in reader.kept.items()]
        services = Services()
        for table in tables:
            rows = rows_table(table, sink.deliveries if table is DELIVERIES else sink.connections, services)
            buffer = pa.BufferOutputStream()
            with pa.ipc.new_stream(buffer, rows.schema) as stream:
                stream.write_table(rows)
            places = np.asarray(reader.places(table), dtype=np.int64)
            result.tables[table.name] = buffer.getvalue().to_pybytes(), places.tobytes()
        result.services = [service.name for service in services.met]
        result.first_tls = {
            key: service.first_tls
            for key, (service, _untold) in reader.services.items()
            if service.first_tls is not None
        }
        result.began, result.ended = clock.first_day, clock.state if clock.first_day is not None else None
    for part in (engine, reader, sink):  # they hold each other, and much else
        vars(part).clear()
    return result


# -- a worker and its line to us ------------------------------------------------------------------------------


def work() -> None:
    """Read pieces from standard input and write what came of them to standard output, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asks decides when to stop
    gc.disable()  # a piece makes much, and all of it goes at once
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    tables = {table.name: table for table in (DELIVERIES, CONNECTIONS)}
    while (request := _receive(incoming)) is not None:
        state, names, size = request
        text = incoming.read(size)
        _send(outgoing, read_piece(text, state, [tables[name] for name in names]))


def _send(stream: IO[bytes], message: Any) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(struct.pack("!Q", len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(8)
    if len(head) < 8:
        return None
    data = stream.read(struct.unpack("!Q", head)[0])
    return pickle.loads(data)  # from a process of our own


class Workers:
    """Processes that read pieces; leaving the context ends them."""

    def __init__(self, count: int) -> None:
        command = [sys.executable, "-c", "from rtls_analysis.read.log_pieces import work; work()"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, pipesize=PIPE_BYTES
            )
            for _ in range(count)
        ]
        self._free: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._processes:
            self._free.put(process)
        self._threads = ThreadPoolExecutor(count)

    def ask(self, text: bytes, state: ClockState, tables: Sequence[Table]) -> Future[PieceResult | None]:
        """Have a piece read; `None` comes of it where the worker has died."""
        return self._threads.submit(self._ask, text, (state, [table.name for table in tables], len(text)))

    def _ask(self, text: bytes, request: tuple[Any, ...]) -> PieceResult | None:
        process = self._free.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _send(process.stdin, request)
            process.stdin.write(text)
            process.stdin.flush()
            result: PieceResult | None = _receive(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            result = None
        self._free.put(process)
        return result

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):  # what was still to be sent is not needed any more
                        stream.close()
            process.wait()


# -- putting it in its place ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Piece:
    blocks: list[Block]
    result: Future[PieceResult | None] | None = None


class PiecewiseReading:
    """Blocks to tables of rows, with workers: the same rows in the same order as the engine alone gives."""

    def __init__(
        self,
        engine: LogEngine,
        postfix: PostfixReader,
        services: Services,
        tables: Sequence[Table],
        count: int,
    ) -> None:
        self._engine = engine
        self._postfix = postfix
        self._services = services
        self._tables = tables
        self._count = count
        self._nowhere = Coverage(understood=dict.fromkeys(COUNTED, 0))  # for lines that a piece has counted
        self.apart = 0  # pieces that were read apart

    def read(self, blocks: Iterator[Block], workers: Workers) -> Iterator[dict[str, pa.Table]]:
        """Read the blocks of a set; tables of rows (`rows_table`) come in the order of their lines."""
        ahead: list[_Piece] = []
        for piece in self._pieces(blocks, workers):
            ahead.append(piece)
            if len(ahead) > self._count + 1:
                yield self._take(ahead.pop(0))
        for piece in ahead:
            yield self._take(piece)

    def _pieces(self, blocks: Iterator[Block], workers: Workers) -> Iterator[_Piece]:
        """Pieces for us and for the workers in turn; ours are smaller, for we put theirs in place besides."""
        own = max(1, PIECE_BLOCKS + 3 - 2 * self._count)
        turn = 0
        while taken := _some(blocks, own if turn == 0 else PIECE_BLOCKS):
            piece = _Piece(taken)
            text = b"\n".join(block.text for block in taken) if turn else b""
            if turn:
                piece.result = workers.ask(text, self._engine.sink.clock.state, self._tables)
            yield piece
            turn = (turn + 1) % (self._count + 1)

    def _take(self, piece: _Piece) -> dict[str, pa.Table]:
        result = piece.result.result() if piece.result is not None else None
        if result is not None and self._fits(result):
            return self._put(piece.blocks, result)
        for block in piece.blocks:
            self._engine.feed(block)
        return {table.name: self._own_rows(table) for table in self._tables}

    def _fits(self, result: PieceResult) -> bool:
        """Whether a piece comes out as if it had been read after all before it."""
        if not result.fits or self._postfix.holding or not self._engine.sink.clock.agrees(result.began):
            return False
        for key in result.first_kept:
            source = self._engine.known_source(*key)
            if (
                source is not None and source.state.fresh
            ):  # it has said something that might be for a kept message
                return False
        queues = [(host, queue) for host, all_of in self._postfix.hosts.items() for queue in all_of.values()]
        if sum(len(queue.messages) for _host, queue in queues) > CROWDED or self._postfix.opened > CROWDED:
            return False
        return all(
            queue.messages.keys().isdisjoint(ids)
            for of, ids in result.kept
            for host, queue in queues
            if of == host
        )

    def _put(self, blocks: list[Block], result: PieceResult) -> dict[str, pa.Table]:
        """Read the lines that came back, and lay their rows between those of the piece."""
        engine, base = self._engine, self._engine.number
        self.apart += 1
        until = engine.number = base + result.lines
        for index, block in enumerate(blocks):
            if block.first_line is not None:
                before = sum(one.text.count(b"\n") + 1 for one in blocks[:index])
                engine.places.add(base + before + 1, block.file.name, block.first_line)
        engine.sink.coverage.add(result.coverage)
        origins: dict[str, list[int]] = {table.name: [] for table in self._tables}
        ages = iter([*range(-(-base // GENERATION) * GENERATION or GENERATION, until, GENERATION), until])
        age = next(ages)
        for counted, lines in groupby(result.back, key=lambda line: line.counted):
            with self._postfix.counting_in(self._nowhere if counted else engine.sink.coverage):
                for line in lines:
                    line.number += base
                    while age < line.number:
                        engine.age()
                        self._mark(origins, age)
                        age = next(ages)
                    self._read_back(line)
                    self._mark(origins, line.number)
        while age < until:
            engine.age()
            self._mark(origins, age)
            age = next(ages)
        for block in blocks:
            engine.skip(block.text.rsplit(b"\n", MAX_LOOK_BACK)[-MAX_LOOK_BACK:])
        for process in result.ended_kept:
            if (source := engine.known_source(*process)) is not None:
                source.state.begin(None)
        if result.ended is not None:
            engine.sink.clock.resume(result.ended)
        for key, first in result.first_tls.items():
            service, _untold = self._postfix.service(*key)
            service.first_tls = min(first + base, service.first_tls or first + base)
        return {table.name: self._merged(table, result, base, origins[table.name]) for table in self._tables}

    def _mark(self, origins: dict[str, list[int]], number: int) -> None:
        """The rows that have come are of this place."""
        for table in self._tables:
            have = len(self._flat(table)) // WIDTHS[table.name]
            origins[table.name] += [number] * (have - len(origins[table.name]))

    def _read_back(self, line: LineBack) -> None:
        engine = self._engine
        engine.sink.clock.go_to_year(line.year)
        if line.host is None:
            header = HEADER(line.line, line.start) if line.start else None
            engine.unknown(line.line, line.start, header, line.number)
            return
        source = engine.source_of(line.host, line.tag, line.pid, line.line[line.start :])
        if line.after_kept:
            source.state.begin(None)
        engine.hand(source, line.line, line.start, line.number)

    def _flat(self, table: Table) -> list[Any]:
        return self._engine.sink.deliveries if table is DELIVERIES else self._engine.sink.connections

    def _own_rows(self, table: Table) -> pa.Table:
        rows = self._flat(table)
        made = rows_table(table, rows, self._services)
        rows.clear()
        return made

    def _merged(self, table: Table, result: PieceResult, base: int, origins: list[int]) -> pa.Table:
        """The rows of a piece and ours, in the order of the lines that they came from."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        data, places = result.tables[table.name]
        theirs = pa.ipc.open_stream(data).read_all()
        numbers = pc.add(theirs["number"], base)
        known = [self._services.index(self._postfix.service(host, tag)[0]) for host, tag in result.services]
        services = pa.array(known, pa.int32()).take(theirs["service"].combine_chunks())
        theirs = theirs.set_column(theirs.column_names.index("number"), "number", numbers)
        theirs = theirs.set_column(theirs.column_names.index("service"), "service", services)
        if not origins:
            return theirs
        order = np.concatenate(
            [np.frombuffer(places, dtype=np.int64) + base, np.asarray(origins, dtype=np.int64)]
        )
        whole = pa.concat_tables([theirs, self._own_rows(table)])
        return whole.take(pa.array(np.argsort(order, kind="stable")))


def _some(blocks: Iterator[Block], count: int) -> list[Block]:
    return [block for _number, block in zip(range(count), blocks, strict=False)]
