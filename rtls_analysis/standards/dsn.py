"""Delivery status notifications: fields, addresses and codes (RFC 3464, 6533, 3463, 3461).

Text in, records out; where the text is not quite what the RFCs want, what can be understood is kept. Which part of
a message holds the fields, and what else the message says, is asked in `rtls_analysis.read.dsn`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

# -- addresses (RFC 3461 §4, RFC 6533 §3) -----------------------------------------------------------------------

_XTEXT = re.compile(r"\+([0-9A-F]{2})")
_NO_XCHAR = re.compile(r"[^!-*,-<>-~]")  # what must be escaped in xtext
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")


def decode_xtext(text: str) -> str:
    """Decode ``+HH`` where the whole text is xtext; give any other text as it stands (RFC 3461 §4).

    Notes
    -----
    A plain address with a plus sign may look like xtext. Only what an encoder would have escaped is decoded, so
    that most of them survive.

    Examples
    --------
    >>> decode_xtext("a+2Bb+3Dc@x.test"), decode_xtext("a+41b@x.test"), decode_xtext("a+b@x.test")
    ('a+b=c@x.test', 'a+41b@x.test', 'a+b@x.test')
    """
    if "+" not in text:
        return text
    escapes = _XTEXT.findall(text)
    if len(escapes) != text.count("+") or not all(_NO_XCHAR.match(chr(int(hexes, 16))) for hexes in escapes):
        return text
    octets = _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)
    try:
        return octets.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return octets if octets.isascii() else text


def decode_utf8_address(text: str) -> str:
    r"""Decode the ``\x{HEX}`` of an address of type utf-8 in any of its three forms (RFC 6533 §3).

    >>> decode_utf8_address(r"j\x{F6}rg@b\x{fc}cher.test"), decode_utf8_address("jörg@bücher.test")
    ('jörg@bücher.test', 'jörg@bücher.test')
    """
    if "\\x{" not in text:
        return text

    def decode(match: re.Match[str]) -> str:
        point = int(match[1], 16)
        return chr(point) if point < 0x110000 and not 0xD800 <= point < 0xE000 else match[0]

    return _EMBEDDED.sub(decode, text)


@dataclass(frozen=True, slots=True)
class TypedValue:
    """A value behind its type, ``rfc822; a@x.test`` or ``dns; mx.x.test`` (RFC 3464 §2.1.2).

    `type` is lower case, and empty where the field has none.
    """

    type: str
    value: str


_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def parse_typed(text: str) -> TypedValue:
    """Split the type off a field's value; a value without one is kept whole.

    >>> parse_typed("RFC822;  a@x.test"), parse_typed("a@x.test")
    (TypedValue(type='rfc822', value='a@x.test'), TypedValue(type='', value='a@x.test'))
    """
    kind, semicolon, value = text.partition(";")
    if semicolon and _TYPE.fullmatch(kind := kind.strip()):
        return TypedValue(kind.lower(), value.strip())
    return TypedValue("", text.strip())


_BRACKETED = re.compile(r"<([^<>]*)>")
_ADDRESS = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^\s()<>,;:"])+')
_COMMENT = re.compile(r"[ \t]+\([^()]*\)[ \t]*$")


def parse_recipient(text: str) -> str:
    r"""Give the address of an Original-Recipient or Final-Recipient field (RFC 3464 §2.3.1, 2.3.2).

    Parameters
    ----------
    text
        The field's value, unfolded.

    Returns
    -------
    str
        The address without its type, angle brackets and comments, decoded; empty where there is none.

    Examples
    --------
    >>> parse_recipient("rfc822; <a@x.test> (was b@x.test)"), parse_recipient(r"utf-8; j\x{F6}rg@x.test")
    ('a@x.test', 'jörg@x.test')
    """
    typed = parse_typed(text)
    value = typed.value
    if "<" in value and (match := _BRACKETED.search(value)):
        value = match[1].strip()
    else:
        value = _COMMENT.sub("", value).strip("<> \t")
    if "+" in value and " " not in (decoded := decode_xtext(value)):
        value = decoded
    return decode_utf8_address(value)


# -- codes ------------------------------------------------------------------------------------------------------

_ENHANCED = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.]*\d)")
_REPLY = re.compile(
    r"(?:^|\n|said:?|<<<|[:;,(\"'>\[#]) ?([245][0-5]\d)(?=[ -]|:? |:?$|:?\n)"
    r"|(?<![\w.:#@<\[=/-])([245][0-5]\d)(?=[ -][245]\.\d)"
)


def find_enhanced_code(text: str, classes: str = "245") -> str | None:
    """Find the first enhanced status code in a text (RFC 3463 §2); a part of an IP address or a version is none.

    Parameters
    ----------
    text
        Any text.
    classes
        Digits of the classes that are looked for: 2 success, 4 transient, 5 permanent.

    Examples
    --------
    >>> find_enhanced_code("smtp; 550 5.1.1 <a@x.test>: unknown"), find_enhanced_code("from 5.10.1.2")
    ('5.1.1', None)
    """
    return next((match[0] for match in _ENHANCED.finditer(text) if match[0][0] in classes), None)


def find_reply_code(text: str, classes: str = "245") -> int | None:
    """Find the first SMTP reply code in a text (RFC 5321 §4.2), of these classes.

    >>> find_reply_code("host mx.x.test[192.0.2.1] said: 550 5.1.1 no such user"), find_reply_code("port 2525")
    (550, None)
    """
    codes = (match[1] or match[2] for match in _REPLY.finditer(text))
    return next((int(code) for code in codes if code[0] in classes), None)


_STATUS = re.compile(r"([245])[ \t]*\.[ \t]*(\d{1,3})[ \t]*\.[ \t]*(\d{1,3})(?!\d)")


def parse_status(text: str) -> str | None:
    """Give the code of a Status field without its comment (RFC 3464 §2.3.4); `None` where it holds none.

    >>> parse_status("5.1.2 (550 Tried all MXs)"), parse_status("unknown")
    ('5.1.2', None)
    """
    match = _STATUS.search(text)
    return f"{match[1]}.{match[2]}.{match[3]}" if match else None


# -- the fields -------------------------------------------------------------------------------------------------

Fields = Mapping[str, str]
"""Values by field name in lower case, unfolded; the first of a name that is repeated."""

_FIELD = re.compile(r"([A-Za-z][A-Za-z0-9-]*)[ \t]*:[ \t]*(.*)")
_LONGEST_REPAIRED = 4000
_ABOUT_RECIPIENT = frozenset({"final-recipient", "original-recipient", "action", "status"})
_NAMES_RECIPIENT = frozenset({"final-recipient", "original-recipient", "x-actual-recipient"})


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """The content of a ``message/delivery-status``: fields of the message, and of each recipient (RFC 3464 §2.1)."""

    message: Fields = field(default_factory=dict)
    recipients: tuple[Fields, ...] = ()


def parse_delivery_status(text: str) -> DeliveryStatus:
    r"""Read the fields of a delivery status (RFC 3464 §2.1), of either media type (RFC 6533 §4).

    Parameters
    ----------
    text
        The decoded body, lines separated by ``\n``.

    Notes
    -----
    Groups are told apart by their fields as much as by the empty lines between them, since some programs leave the
    line out and others put one too many: a field about a recipient that comes again begins the next group, and a
    group that names no recipient is added to its neighbour.

    Examples
    --------
    >>> status = parse_delivery_status("Reporting-MTA: dns; a.test\n\nFinal-Recipient: rfc822; b@c.test")
    >>> status.message["reporting-mta"], status.recipients[0]["final-recipient"]
    ('dns; a.test', 'rfc822; b@c.test')
    """
    message: dict[str, str] = {}
    recipients: list[dict[str, str]] = []
    homeless: dict[str, str] = {}  # of a recipient whose name is yet to come
    for group in _groups(text):
        if group.keys() & _NAMES_RECIPIENT:
            recipients.append(homeless | group if homeless else group)
            homeless = {}
        elif "action" in group or "status" in group or "diagnostic-code" in group:
            if recipients and "action" not in recipients[-1] and "status" not in recipients[-1]:
                recipients[-1] = group | recipients[-1]
            else:
                homeless = group
        elif recipients and not ("reporting-mta" in group and "reporting-mta" not in message):
            recipients[-1] = group | recipients[-1]
        else:
            message = group | message
    if recipients and "reporting-mta" not in message and "reporting-mta" in recipients[0]:
        message = recipients[0] | message  # no empty line behind the fields of the message
    return DeliveryStatus(message, tuple(recipients))


_FOLD = re.compile(r"\n[ \t]++(?=[^ \t\n])")


def _groups(text: str) -> Iterator[dict[str, str]]:
    group: dict[str, str] = {}
    name = ""
    for line in _FOLD.sub(" ", text).split("\n"):
        if not line or line.isspace():
            if group:
                yield group
                group, name = {}, ""
        elif match := _FIELD.match(line):
            name = match[1].lower()
            if name not in group:
                group[name] = match[2].rstrip()
            elif name in _ABOUT_RECIPIENT:
                yield group
                group = {name: match[2].rstrip()}
            else:
                name = ""  # repeated: the first value counts
        elif (
            name and len(group[name]) < _LONGEST_REPAIRED
        ):  # folded without the white space that folding takes
            group[name] += f" {line.strip()}"
    if group:
        yield group
