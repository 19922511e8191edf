"""Replies of a mail server: read from bytes as they come, their codes, the keywords of EHLO (RFC 5321 §4.2, 3463)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -]).*)?", re.DOTALL)
_ENHANCED_CODE = re.compile(rb"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?=\s|$)")
_KEYWORD_LINE = re.compile(rb"\s*([A-Za-z0-9][A-Za-z0-9-]*)(?![^\s=\0])[\s=\0]*(.*)", re.DOTALL)
_MASKED_KEYWORD = re.compile(r"X{3,}[A-Z]?")

_EXCERPT = 80  # octets of the server's that are quoted in a reason


def escape_octets(data: bytes) -> str:
    r"""Write octets as printable ASCII, so that no two of them look the same.

    Printable ASCII stands for itself, but for the backslash, which is doubled; tab, line feed and carriage return
    are ``\t``, ``\n``, ``\r``, every other octet is ``\xNN``.

    Examples
    --------
    >>> print(escape_octets(b"caf\xe9 C:\\mail\r\n"))
    caf\xe9 C:\\mail\r\n
    """
    return data.decode("latin-1").encode("unicode_escape").decode("ascii")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply: its code, and its lines as sent, code and all, without their ends."""

    code: int
    lines: tuple[bytes, ...]

    @property
    def first_digit(self) -> int:
        """2 good so far, 3 go on, 4 not now, 5 no: enough to act on a code that is not known (RFC 5321 §4.2.1)."""
        return self.code // 100

    @property
    def text(self) -> str:
        """The text of the lines, escaped, with a line feed between two of them."""
        return "\n".join(escape_octets(line[4:]) for line in self.lines)

    @property
    def escaped_lines(self) -> tuple[str, ...]:
        """The lines as sent, escaped."""
        return tuple(map(escape_octets, self.lines))

    @property
    def enhanced_code(self) -> str | None:
        """The enhanced status code, from the first line that has one (RFC 2034 §4, 3463 §2).

        Notes
        -----
        Its class must equal the first digit of the code; one of another class is text. RFC 2034 keeps enhanced
        codes out of greetings and replies to EHLO; servers that refuse there give them all the same.
        """
        for line in self.lines:
            if (match := _ENHANCED_CODE.match(line, 4)) and line[:1] == match[1][:1]:
                return match[1].decode("ascii")
        return None


def parse_keywords(reply: Reply) -> dict[str, str]:
    r"""Give the keywords of a reply to EHLO, in upper case, each with its parameters (RFC 5321 §4.1.1.1).

    Notes
    -----
    The first line names the server and is never a keyword. A keyword ends with its line, at a blank, at ``=``
    (``AUTH=LOGIN`` of old servers) or at a NUL, where C ends it; it keeps the parameters of its first line.

    Examples
    --------
    >>> parse_keywords(Reply(250, (b"250-STARTTLS", b"250-size 1000", b"250 AUTH=LOGIN")))
    {'SIZE': '1000', 'AUTH': 'LOGIN'}
    """
    keywords: dict[str, str] = {}
    for line in reply.lines[1:]:
        if match := _KEYWORD_LINE.fullmatch(line, 4):
            keywords.setdefault(match[1].decode("ascii").upper(), escape_octets(match[2].strip()))
    return keywords


def masked_keywords(reply: Reply) -> list[str]:
    """Give the keywords that something on the way has overwritten, as firewalls make ``XXXXXXXA`` of STARTTLS."""
    return [keyword for keyword in parse_keywords(reply) if _MASKED_KEYWORD.fullmatch(keyword)]


class ReplyReader:
    """Reads one reply out of the server's octets, however they are cut (RFC 5321 §4.2.1).

    Parameters
    ----------
    max_line, max_bytes
        Octets that a line and the whole reply may have, line ends among them.
    max_lines
        Lines that it may have.

    Notes
    -----
    A line may end in LF alone and the last one after its code. Empty lines before the first are skipped, as some
    servers end a reply twice. Each octet is looked at a fixed number of times, and none beyond the budgets is kept.
    """

    __slots__ = ("_left", "_line", "_lines", "_max_line", "_max_lines", "_seen", "failure", "rest")

    def __init__(self, *, max_line: int, max_lines: int, max_bytes: int) -> None:
        self._max_line = max_line
        self._max_lines = max_lines
        self._left = max_bytes
        self._line = bytearray()
        self._lines: list[bytes] = []
        self._seen = 0
        self.failure = ""
        """Why what came is no reply, in words."""
        self.rest = b""
        """What came after the reply."""

    @property
    def raw(self) -> bytes:
        """What there is of the reply: its lines, each ended by CRLF, and what has begun of the next one."""
        return b"".join(line + b"\r\n" for line in self._lines) + self._line

    def feed(self, data: bytes) -> Reply | None:
        """Take the next octets: gives the reply once it is whole, and nothing ever after a `failure`."""
        at = 0
        while not self.failure:
            end = data.find(b"\n", at) + 1
            room = min(self._max_line, self._left)
            self._line += data[at : end or len(data)][: room + 1]
            if len(self._line) > room:
                self._fail_budget(room)
            elif not end:
                break
            else:
                at = end
                if reply := self._end_line():
                    self.rest = data[at:]
                    return reply
        return None

    def _fail_budget(self, room: int) -> None:
        del self._line[room:]
        if room == self._max_line:
            self.failure = f"a line of more than {room} octets, in {self._excerpt()}"
        else:
            self.failure = f"a reply of more octets than we read, in {self._excerpt()}"

    def _end_line(self) -> Reply | None:
        self._left -= len(self._line)
        self._seen += 1
        if line := bytes(self._line.rstrip(b"\r\n")):
            self._lines.append(line)
        self._line.clear()
        if line or self._lines:
            match = _LINE.fullmatch(line)
            if match is None:
                self.failure = f"not a reply: '{escape_octets(line[:_EXCERPT])}'"
                return None
            if match[1] != self._lines[0][:3]:
                self.failure = f"two codes in one reply: {self._lines[0][:3].decode()}, {match[1].decode()}"
                return None
            if match[2] != b"-":
                return Reply(int(match[1]), tuple(self._lines))
        if self._seen >= self._max_lines:
            self.failure = f"a reply of more than {self._max_lines} lines, in {self._excerpt()}"
        return None

    def _excerpt(self) -> str:
        return f"'{escape_octets(self.raw[:_EXCERPT])}'"
