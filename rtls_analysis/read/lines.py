"""Lines out of log files: whole ones, also where a rotation cut them, and out of whatever wraps them.

Files are read as bytes, in blocks of whole lines. Nothing here knows a mail server.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rtls_analysis.read.log_files import UNREADABLE, Intake, LogFile, OpenLog, open_log

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 20  # not less than a block: so only the first line of a block can be longer
KEPT_OF_LONG = 80
REPEATS = b" message repeated "  # stands in each line that syslog writes for several

_NAMES = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
MONTHS = {name: number for number, name in enumerate(_NAMES, 1)}


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of one file, without the end of the last.

    `first_line` is the number of the first, from 1; `None` where they follow those of the block before.
    """

    file: LogFile
    text: bytes
    first_line: int | None


def read_blocks(files: Sequence[LogFile], intake: Intake) -> Iterator[Block]:
    """Blocks of whole lines from the files of one rotated set, oldest first.

    A file that breaks off in the middle of a line is continued by the next one. Of a line of more than 1 MiB the
    beginning is kept, which `too_long` knows.
    """
    carry = b""  # the unfinished last line
    owner: LogFile | None = None  # the file in which it began
    number: int | None = None  # of the next line there, where a count begins
    for file in files:
        begins = True
        for data in _pieces(file, intake):
            if begins:
                begins = False
                if owner is not None and carry and _begins_a_line(carry, data):
                    yield Block(owner, carry, number)
                    carry = b""
                if not carry:
                    owner, number = file, 1
            end = data.rfind(b"\n")
            if end < 0:
                if len(carry) <= MAX_LINE_BYTES:  # of a longer one the rest is passed over
                    carry = (carry + data).lstrip(b"\0")
                continue
            text = _cut_first(b"".join((carry, memoryview(data)[:end])))
            carry = data[end + 1 :]
            if b"\r" in text:
                text = text.replace(b"\r\n", b"\n").removesuffix(b"\r")
            if owner is not None and owner is not file:  # the end of a line that began in the file before
                line, more, text = text.partition(b"\n")
                yield Block(owner, line, number)
                owner, number = file, 2
                if not more:
                    continue
            yield Block(file, text, number)
            number = None
    if carry and owner is not None:
        yield Block(owner, _cut_first(carry.removesuffix(b"\r")), number)


def _pieces(file: LogFile, intake: Intake) -> Iterator[bytes]:
    """The bytes of a file, unpacked, as UTF-8 where it is UTF-16; it ends where it cannot be read on."""
    try:
        with open_log(file) as opened:
            yield from _decoded(opened, intake)
    except UNREADABLE as error:
        intake.problem(file, error)


def _decoded(opened: OpenLog, intake: Intake) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(opened.encoding)("replace") if opened.encoding else None
    data = opened.read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8)
    before = intake.taken
    while data:
        intake.taken = before + opened.taken()
        intake.given += len(data)
        yield data if decoder is None else decoder.decode(data).encode("utf-8", "replace")
        data = opened.read(BLOCK_BYTES)


_TOO_LONG = b"\0rtls: too long\0"


def _cut_first(text: bytes) -> bytes:
    """Lines of which the first may be too long."""
    if text.find(b"\n", 0, MAX_LINE_BYTES + 1) >= 0 or len(text) <= MAX_LINE_BYTES:
        return text
    end = text.find(b"\n")
    return _TOO_LONG + text[:KEPT_OF_LONG] + (text[end:] if end >= 0 else b"")


def too_long(line: bytes) -> bytes | None:
    """The beginning of a line that was too long to keep; `None` for any other line."""
    return line[len(_TOO_LONG) :] if line.startswith(_TOO_LONG) else None


_BEGINNINGS = tuple(
    re.compile(form)
    for form in (
        rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S",
        rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S* \S",
        rb"@[0-9a-f]{24} \S",
        rb"\[[A-Z]+\] \[",
        rb"l=\w+ m=",
        rb"<\d{1,3}>\S",
        rb"level=[A-Z]+ ",
        rb"#[A-Z][\w-]+: ",
    )
)


def _begins_a_line(carry: bytes, data: bytes) -> bool:
    """Whether `data` starts a line of the same form as the unfinished line before it, and so does not end it."""
    if carry.startswith(b"{") and data.startswith(b"{"):
        return _json(carry + data[: data.find(b"\n")]) is None
    return any(form.match(carry) and form.match(data) for form in _BEGINNINGS)


# -- stamps and envelopes ------------------------------------------------------------------------------------

_STAMP_END = re.compile(
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z| ?[+-]\d\d:?\d\d)?"
    rb"|@[0-9a-f]{24})[ \t]+"
).match


def stamp_end(line: bytes, start: int = 0) -> int:
    """Where the text behind a time stamp at `start` begins; `start` itself where there is no stamp.

    >>> line = b"2026-01-02T03:04:05.123Z [INFO] loaded"
    >>> line[stamp_end(line):]
    b'[INFO] loaded'
    """
    match = _STAMP_END(line, start)
    return start if match is None else match.end()


_PRIORITY = re.compile(rb"<\d{1,3}>(?!1 )")
_RFC5424 = re.compile(
    rb"<\d{1,3}>1 (\S+) (\S+) (\S+) (\S+) \S+ (?:-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: (?:\xef\xbb\xbf)?(.*))?",
    re.DOTALL,
)
_CRI = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*) (?:stdout|stderr) [FP] (.*)", re.DOTALL)
_COMPOSE = re.compile(rb"[\w.-]+ +\| ?(.*)", re.DOTALL)
_POD = re.compile(rb"\[pod/\S+\] (.*)", re.DOTALL)
_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
_PRECISE = re.compile(rb"([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)[.,]\d+( .*)", re.DOTALL)
_SHORT_FULL = re.compile(
    rb"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d+)?) ([A-Z]{2,5}|[+-]\d\d(?:\d\d)?) (.*)",
    re.DOTALL,
)
_WITH_YEAR = re.compile(rb"([A-Z][a-z]{2}) ([ \d]\d) (\d{4}) (\d\d:\d\d:\d\d)( .*)", re.DOTALL)
_LOG_LINE = re.compile(
    rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d|\{|<\d|@[0-9a-f]{24}|\[|l=|level="
).match


def unwrap(line: bytes) -> bytes | None:
    """The log line inside an envelope: journald and container JSON, CRI, compose, RFC 5424, PRI, colours, NULs.

    `None` where there is no such envelope; the result may be wrapped again. Envelopes that carry time, host and
    process come back as ``<RFC 3339> host tag[pid]: text``.
    """
    head = line[:1]
    if head == b"\0":
        return line.lstrip(b"\0") or None
    if head == b"\x1b" or b"\x1b[" in line[:64]:
        plain = _COLOUR.sub(b"", line)
        return plain if plain != line else None
    if head == b"{":
        return _unwrap_json(line)
    if head == b"<":
        if match := _RFC5424.fullmatch(line):
            stamp, host, tag, pid, text = match.groups()
            host = b"" if host == b"-" else host + b" "
            pid = b"" if pid == b"-" else b"[" + pid + b"]"
            return stamp + b" " + host + (b"-" if tag == b"-" else tag) + pid + b": " + (text or b"")
        if match := _PRIORITY.match(line):
            return line[match.end() :]
        return None
    if match := _CRI.fullmatch(line):
        return _stamped(match[2], match[1])
    if head == b"[":
        match = _POD.fullmatch(line)
        return match[1] if match else None
    if line[15:16] in (b".", b",") and (match := _PRECISE.fullmatch(line)):
        # The fraction goes: the year is to be found as for any stamp of this form.
        return match[1] + match[2]
    if match := _SHORT_FULL.fullmatch(line):
        # Other names of zones mean different things in different places: they are left to --timezone.
        return match[1] + b"T" + match[2] + (b"Z " if match[3] in (b"UTC", b"GMT") else b" ") + match[4]
    if match := _WITH_YEAR.fullmatch(line):
        if month := MONTHS.get(match[1]):
            return match[3] + b"-%02d-" % month + match[2].replace(b" ", b"0") + b" " + match[4] + match[5]
        return None
    if (match := _COMPOSE.fullmatch(line)) and _LOG_LINE(match[1]):
        return match[1]
    return None


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None


def _bytes(text: str) -> bytes:
    """Text out of `_json` as the bytes it had; surrogates that JSON escaped stay escaped."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def _unwrap_json(line: bytes) -> bytes | None:
    if len(line) > MAX_LINE_BYTES or not line.rstrip().endswith(b"}"):
        return None
    record = _json(line)
    if not isinstance(record, dict):
        return None
    if "MESSAGE" in record and "__REALTIME_TIMESTAMP" in record:
        return _unwrap_journal(record)
    text = record.get("log")
    if isinstance(text, str) and ("stream" in record or "time" in record):  # Docker's json-file
        when = record.get("time")
        return _stamped(_bytes(text.rstrip("\n")), _bytes(when) if isinstance(when, str) else b"")
    return None


def _stamped(line: bytes, stamp: bytes) -> bytes:
    """A line with the stamp of its envelope, where it has none of its own."""
    return line if not stamp or line[:1] in b"{<" or stamp_end(line) else stamp + b" " + line


def _unwrap_journal(record: dict[str, Any]) -> bytes | None:
    """An entry of ``journalctl -o json``; a MESSAGE that is no UTF-8 comes as a list of byte numbers."""
    message = record["MESSAGE"]
    try:
        if isinstance(message, list):
            text = bytes(message)
        elif isinstance(message, str):
            text = _bytes(message)
        else:
            return None
        micros = int(record["__REALTIME_TIMESTAMP"])
        when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    except (ValueError, TypeError, OverflowError):  # a byte beyond 255, a time beyond the year 9999
        return None

    def word(*names: str) -> bytes:
        for name in names:
            if isinstance(value := record.get(name), (str, int)):
                return re.sub(rb"[\s\0]", b"_", _bytes(str(value)))
        return b""

    host, tag = word("_HOSTNAME"), word("SYSLOG_IDENTIFIER", "_COMM")
    pid = word("SYSLOG_PID", "_PID")
    stamp = when.strftime("%Y-%m-%dT%H:%M:%S.%f").encode() + b"+00:00 "
    text = text.replace(b"\n", b" ").rstrip()
    return (
        stamp
        + (host + b" " if host else b"")
        + (tag or b"-")
        + (b"[" + pid + b"]" if pid else b"")
        + b": "
        + text
    )
