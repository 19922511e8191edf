"""A message's header fields and MIME parts, cut out of its bytes as far as readers of reports need them.

`email` of the standard library builds a tree of objects for every part, raises on some hostile input and is ten times
slower. Here a message is cut at its boundaries, and a part is decoded when somebody asks for its text. Nothing raises:
what is malformed is taken as it most likely was meant.
"""

from __future__ import annotations

import binascii
import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 20  # of parts in parts; what lies deeper stays undivided
MAX_PARTS = 2000
MAX_HEADER_BYTES = 1 << 20
MAX_TEXT_BYTES = 4 << 20

_FIELD = re.compile(rb"^([A-Za-z0-9][!-9;-~]*+)[ \t]*+:[ \t]*+(.*(?:\n[ \t].*+)*+)", re.MULTILINE)
_FOLD = re.compile(rb"\n[ \t]*+")
_FOLDED = re.compile(r"[ \t\r]*\n[ \t]*")


def unify_newlines(data: bytes) -> bytes:
    """The same bytes with each end of a line, CRLF, LF or lone CR, as one LF."""
    if b"\r" not in data:
        return data
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def cut_header(data: bytes) -> tuple[bytes, bytes]:
    """Header and body of a message or part whose lines end in LF; empty lines before the header are passed over."""
    start = 0
    while data.startswith(b"\n", start):
        start += 1
    end = data.find(b"\n\n", start)
    if end < 0:
        return data[start:], b""
    return data[start:end], data[end + 2 :]


def read_fields(header: bytes) -> dict[bytes, bytes]:
    """Values by field name in lower case, still folded; the first of a name that is repeated."""
    found = _FIELD.findall(header[:MAX_HEADER_BYTES])
    found.reverse()
    return {name.lower(): value for name, value in found}


def all_fields(header: bytes, wanted: bytes) -> list[bytes]:
    """The values of every field of this name (lower case), unfolded."""
    return [
        _FOLD.sub(b" ", value).strip()
        for name, value in _FIELD.findall(header[:MAX_HEADER_BYTES])
        if name.lower() == wanted
    ]


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is not divided further: its media type in lower case, header fields, and body as it came."""

    media_type: str
    fields: dict[bytes, bytes]
    body: bytes

    def data(self) -> bytes:
        """The bytes without their transfer encoding, as far as it goes."""
        encoding = self.fields.get(b"content-transfer-encoding", b"").strip().lower()
        if encoding.startswith(b"quoted-printable"):
            return binascii.a2b_qp(self.body)
        if encoding.startswith(b"base64"):
            return _decode_base64(self.body)
        return self.body

    def message(self) -> bytes:
        """The bytes of a message inside this one, lines ending in LF."""
        return unify_newlines(self.data())

    def text(self) -> str:
        """The first 4 MiB as text: UTF-8 if it is that, else by its charset; lines end in LF."""
        data = unify_newlines(self.data()[:MAX_TEXT_BYTES])
        content_type = self.fields.get(b"content-type", b"").lower()
        return decode_text(data, parameter(content_type, b"charset") if b"charset" in content_type else b"")


def parts(fields: dict[bytes, bytes], body: bytes) -> list[Part]:
    """The leaves of a message's MIME tree in their order; messages inside it are leaves.

    Notes
    -----
    A multipart whose boundary is not told, or comes nowhere, is cut at the first line that looks like one.
    """
    leaves: list[Part] = []
    _divide(b"\n" + body, 1, len(body) + 1, fields, leaves, 0, "text/plain")
    return leaves


def _divide(
    data: bytes,
    begin: int,
    end: int,
    fields: dict[bytes, bytes],
    leaves: list[Part],
    depth: int,
    default: str,
) -> None:
    """Add the leaves of the part that lies here; places, not copies, so that depth costs no memory."""
    content_type = fields.get(b"content-type", b"")
    media_type = _media_type(content_type) or default
    if media_type.startswith("multipart/") and depth < MAX_DEPTH:
        default = "message/rfc822" if media_type == "multipart/digest" else "text/plain"
        places = list(_pieces(data, begin, end, parameter(content_type, b"boundary")))
        for first, last in places:
            if len(leaves) >= MAX_PARTS:
                return
            if data.startswith(b"\n", first):  # no header
                _divide(data, first + 1, last, {}, leaves, depth + 1, default)
                continue
            middle = data.find(b"\n\n", first, last)
            header = data[first : middle if middle >= 0 else last]
            start = middle + 2 if middle >= 0 else last
            _divide(data, start, last, read_fields(header), leaves, depth + 1, default)
        if places:
            return
        media_type = "text/plain"
    leaves.append(Part(media_type, fields, data[begin:end]))


def _media_type(value: bytes) -> str:
    kind = value.split(b";", 1)[0].strip().lower()
    return kind.decode("ascii", "replace") if b"/" in kind else ""


_GUESSED_BOUNDARY = re.compile(rb"^--(?!-* *$)([^\s].{0,200})\n(?=content-)", re.MULTILINE | re.IGNORECASE)
_LONGEST_END = 200  # of a line, behind its boundary


def _pieces(data: bytes, begin: int, end: int, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where each piece between the lines of a boundary begins and ends (RFC 2046 §5.1.1); the last may be missing."""
    delimiter = b"\n--" + boundary
    place = data.find(delimiter, begin - 1, end) if boundary else -1
    if place < 0:
        guess = _GUESSED_BOUNDARY.search(data, begin, end)
        if guess is None:
            return
        delimiter = b"\n--" + guess[1].rstrip()
        place = guess.start() - 1
    opened = -1
    for _ in range(MAX_PARTS):
        behind = place + len(delimiter)
        line_end = data.find(b"\n", behind, end)
        line_end = end if line_end < 0 else line_end
        tail = data[behind : min(line_end, behind + _LONGEST_END)].strip()
        if (
            tail in (b"", b"--") and line_end - behind < _LONGEST_END
        ):  # else a longer boundary that begins alike
            if opened >= 0:
                yield opened, max(opened, place)
            opened = -1 if tail else min(line_end + 1, end)
        place = data.find(delimiter, line_end, end)
        if place < 0:
            break
    if opened >= 0:
        yield opened, end


_PARAMETER = re.compile(rb"""[ \t\n]*+=[ \t\n]*+(?:"((?:[^"\\]|\\.)*+)"?|'([^']*+)'|([^;\s]*+))""")


def parameter(value: bytes, name: bytes) -> bytes:
    r"""A parameter of a Content-Type field; empty where it is not there.

    >>> parameter(b'multipart/report; report-type="delivery-status";\n boundary=a/b', b"boundary")
    b'a/b'
    """
    lower = value.lower()
    place = lower.find(name)
    while place >= 0:
        before = lower[:place].rstrip()
        if before.endswith((b";", b",")) or not before or lower[place - 1 : place].isspace():
            match = _PARAMETER.match(value, place + len(name))
            if match is not None:
                return (match[1] or match[2] or match[3] or b"").strip()
        place = lower.find(name, place + 1)
    return b""


_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")


def _decode_base64(data: bytes) -> bytes:
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:  # cut off, or something else behind it
        data = _NO_BASE64.sub(b"", data.split(b"=", 1)[0])
        usable = data[: len(data) - (len(data) % 4 == 1)]
        return binascii.a2b_base64(usable + b"=" * (-len(usable) % 4))


_MULTIBYTE = re.compile(r"utf-(?:16|32)|iso2022")  # bytes below 128 mean something else there
_NO_CHARSET = frozenset({"punycode", "idna"})  # quadratic, or raise


def decode_text(data: bytes, charset: bytes = b"") -> str:
    """Bytes as text: UTF-8 where they are that, else by the charset, else each byte as a character."""
    try:
        name = codecs.lookup(charset.decode("ascii")).name if charset else ""
    except (LookupError, ValueError):
        name = ""
    try:
        if _MULTIBYTE.match(name) and not (data.isascii() and b"\x1b" not in data and name.startswith("iso")):
            return data.decode(name, "replace")
        return data.decode("utf-8")
    except UnicodeError:
        pass
    try:
        return data.decode("latin-1" if name in _NO_CHARSET else name or "latin-1", "replace")
    except (LookupError, UnicodeError):  # a codec, but none of text
        return data.decode("latin-1")


_WORD = re.compile(r"=\?([^?\s]{1,40})\?([bBqQ])\?([^?]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t\n]+(?==\?)")


def unfold(value: bytes) -> str:
    r"""A header field's value as text on one line, encoded words decoded (RFC 2047).

    >>> unfold(b"=?utf-8?Q?j=C3=B6rg?=\n =?utf-8?B?IGhlcmU=?=")
    'jörg here'
    """
    text = _FOLDED.sub(" ", decode_text(value)).strip()
    return decode_words(text) if "=?" in text else text


def decode_words(text: str) -> str:
    """A text with its encoded words decoded (RFC 2047); what is no such word stays."""
    return _WORD.sub(_decode_word, _BETWEEN_WORDS.sub("", text))


def _decode_word(match: re.Match[str]) -> str:
    charset, encoding, text = match.groups()
    raw = text.encode("utf-8", "replace")
    data = binascii.a2b_qp(raw, header=True) if encoding in "qQ" else _decode_base64(raw)
    return decode_text(data, charset.partition("*")[0].encode("ascii", "replace"))
