"""Stalwart's log lines as events: text on one line or on several, JSON, and the form before 0.9.

An event has a name, as ``delivery.start-tls``, and keys; each line of a span has the keys of the span too. An event
inside another (the cause of an error) has its keys under a name of two parts, as ``reason.details``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Any, NamedTuple

MAX_TEXT = 65_536  # of one line; whatever is behind it is not looked at

_GROUPS = (
    b"acme|ai|arc|auth|calendar|cluster|config|dane|delivery|dkim|dmarc|dns|eval|housekeeper|http|imap|incoming-report"
    b"|iprev|jmap|limit|mail-auth|mailauth|manage|manage-sieve|message-ingest|milter|mta-hook|mta-sts|network"
    b"|outgoing-report|pop3|purge|push-subscription|queue|registry|resource|security|server|sieve|smtp|spam|spf|store"
    b"|task-manager|task-queue|telemetry|tls|tls-rpt|web-dav|webdav"
)
event_head = re.compile(
    rb"(?:TRACE|DEBUG|INFO|WARN|ERROR) {1,5}([^()\n]{1,120}) \(((?:" + _GROUPS + rb")\.[a-z0-9-]+)\)(?: +|$)"
).match
"""The beginning of an event in text, behind its stamp: its title and its name."""

key_line = re.compile(rb"[ \t]+[a-z][A-Za-z0-9]* = ").match
"""The beginning of a line that has one key of the event before it."""

_PAIR = re.compile(
    rb"(?<!\w)([A-Za-z]\w{0,40}) = "
    rb"(\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|\[(?:\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|[^\"\]\[=])*\]|[^,\"\[{}]*)( ?[{}])?",
    re.DOTALL,
).findall
_ITEM = re.compile(rb"\"([^\"\\]*+(?:\\.[^\"\\]*+)*+)\"", re.DOTALL).findall
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
old_head = re.compile(
    rb"(?:TRACE|DEBUG|INFO|WARN|ERROR) {1,5}delivery\{([^{}]{0,2000})\}:(?:attempt\{([^{}]{0,2000})\}:)?[^=]{0,200}? "
    rb"(?:[\w:]+: )?"
).match
"""The beginning of a line of the form before: the keys of two spans."""

_OLD_PAIR = re.compile(
    rb"(?<!\w)([a-z_]\w{0,40})=(\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"|(?:[^ \"]| (?![a-z_]+=))*)", re.DOTALL
).findall

_ENHANCED = re.compile(rb"(?:\d{3}[ -])?([245]\.\d{1,3}\.\d{1,3})\b").match
_OLD_REPLY = re.compile(
    rb"Code: (\d{3}), Enhanced code: (\d\.\d{1,3}\.\d{1,3}), Message: (.*)", re.DOTALL
).search
_CODE = re.compile(rb"[2-5]\d\d").fullmatch

# Keys that tell nothing here, and are many.
_UNUSED = frozenset(
    {b"size", b"total", b"elapsed", b"localIp", b"nextRetry", b"nextDsn", b"expires", b"count", b"id", b"spanId"}
)  # fmt: skip

# (context, event) of the old form, and what the event is called since.
_OLD_EVENTS = {
    (b"rcpt", b"delivered"): b"delivery.delivered",
    (b"rcpt", b"rejected"): b"delivery.rcpt-to-rejected",
    (b"rcpt", b"failed"): b"delivery.rcpt-to-failed",
    (b"message", b"rejected"): b"delivery.message-rejected",
    (b"message", b"failed"): b"delivery.message-rejected",
    (b"sender", b"rejected"): b"delivery.mail-from-rejected",
    (b"ehlo", b"rejected"): b"delivery.ehlo-rejected",
    (b"auth", b"failed"): b"delivery.auth-failed",
    (b"greeting", b"invalid"): b"delivery.greeting-failed",
    (b"tls", b"unavailable"): b"delivery.start-tls-unavailable",
    (b"tls", b"failed"): b"delivery.start-tls-error",
    (b"tls", b"disabled"): b"delivery.start-tls-disabled",
    (b"connect", b"success"): b"delivery.connect",
    (b"connect", b"failed"): b"delivery.connect-error",
    (b"dns", b"mx-lookup-failed"): b"delivery.mx-lookup-failed",
    (b"dns", b"ip-lookup-failed"): b"delivery.ip-lookup-failed",
    (b"dns", b"null-mx"): b"delivery.null-mx",
    (b"sts", b"policy-error"): b"mta-sts.not-authorized",
    (b"sts", b"policy-fetch-failure"): b"mta-sts.policy-fetch-error",
    (b"dane", b"authenticated"): b"dane.authentication-success",
    (b"dane", b"auth-failure"): b"dane.authentication-failure",
    (b"dane", b"no-tlsa-records"): b"dane.tlsa-record-invalid",
    (b"dane", b"tlsa-dnssec-missing"): b"dane.tlsa-record-not-dnssec-signed",
    (b"dane", b"tlsa-missing"): b"dane.tlsa-record-not-found",
    (b"queue", b"requeue"): b"queue.rescheduled",
    (b"queue", b"completed"): b"delivery.completed",
}

Keys = dict[bytes, Any]  # bytes, or a list of bytes


class Event(NamedTuple):
    """One event: its name, what it is called in words, its keys, and where and when it was logged."""

    name: bytes
    title: bytes
    keys: Keys
    number: int
    at: int | None
    pid: bytes | None = None

    def word(self, key: bytes) -> bytes:
        """A key's value; empty where it has none, or is a list."""
        value = self.keys.get(key)
        return value if isinstance(value, bytes) else b""

    def cause(self) -> bytes:
        """What the event says of its cause."""
        parts: list[bytes] = []
        for key in (b"code", b"details", b"reason", b"causedBy"):
            for name, value in self.keys.items():
                text = b", ".join(value) if isinstance(value, list) else value
                if text and (name == key or name.startswith(key + b".")) and text not in parts:
                    parts.append(text)
        return b": ".join(parts)

    def text(self) -> bytes:
        """The event in words."""
        return b": ".join(part for part in (self.title, self.cause()) if part)

    def codes(self) -> tuple[int | None, bytes | None]:
        """Reply code and enhanced code of a server's answer."""
        code = enhanced = None
        for key, value in self.keys.items():
            if not isinstance(value, bytes):
                continue
            last = key.rpartition(b".")[2]
            if last == b"code" and code is None and _CODE(value):
                code = int(value)
            elif last in (b"details", b"reason") and enhanced is None and (match := _ENHANCED(value)):
                enhanced = match[1]
        return code, enhanced


def keys_of(text: bytes) -> Keys:
    """The ``key = value`` list of an event in text."""
    keys: Keys = {}
    outer: list[bytes] = []
    for name, value, brace in _PAIR(text[:MAX_TEXT]):
        if outer:
            key = b".".join((*outer[:3], name))
        elif name in _UNUSED:
            continue
        else:
            key = name
        if key not in keys:
            if value.startswith(b'"'):
                keys[key] = _plain(value[1:-1])
            elif value.startswith(b"["):
                keys[key] = [_plain(item) for item in _ITEM(value)]
            else:
                keys[key] = value.strip() if value != b"(null)" else b""
        if brace.endswith(b"{"):
            if len(outer) < 8:
                outer.append(name)
        elif brace and outer:
            outer.pop()
    return keys


def json_event(text: bytes, wanted: Container[bytes]) -> tuple[bytes, bytes, bytes, Keys] | None:
    """Name, title, time and keys of an event in JSON; the keys of one that is not wanted are left out."""
    try:
        record = json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("data"), dict):
        return None
    name, created = _bytes(record.get("type")), _bytes(record.get("createdAt"))
    if not name or not created:
        return None
    keys: Keys = {}
    if name in wanted:
        for key, value in record["data"].items():
            _add_json(keys, key.encode("utf-8", "replace"), value)
    return name, _bytes(record.get("text")) or name, created, keys


def old_event(line: bytes, head: re.Match[bytes]) -> tuple[bytes, bytes, Keys] | None:
    """Name, title and keys of a line of the form before, in the words of today; `None`: it has no counterpart."""
    keys: Keys = {}
    for part in (head[1], head[2] or b"", line[head.end() : head.end() + MAX_TEXT]):
        for key, value in _OLD_PAIR(part):
            keys[key] = _plain(value[1:-1]) if value.startswith(b'"') else value
    what = keys.get(b"event", b"")
    name = _OLD_EVENTS.get((keys.get(b"context", b""), what))
    if what == b"delivery-expired":
        name = b"delivery.failed"
    if name is None or b"id" not in keys:
        return None
    keys[b"queueId"] = keys[b"id"]
    if b"return_path" in keys:
        keys[b"from"] = keys[b"return_path"] or b"<>"
    for old, new in (
        (b"rcpt", b"to"),
        (b"mx", b"hostname"),
        (b"response", b"details"),
        (b"error", b"reason"),
    ):
        if old in keys:
            keys.setdefault(new, keys[old])
    keys[b"strict"] = b"true"  # it logs these where the policy is enforced
    if reply := _OLD_REPLY(keys.get(b"details", b"") or keys.get(b"reason", b"")):
        keys[b"code"], keys[b"details"] = reply[1], reply[2] + b" " + reply[3]
        keys.pop(b"reason", None)
    return name, what.replace(b"-", b" "), keys


def _add_json(keys: Keys, key: bytes, value: Any, depth: int = 0) -> None:
    if isinstance(value, dict):
        inner = value.get("data") if isinstance(value.get("data"), dict) else value
        if isinstance(inner, dict) and depth < 4:
            for name, one in inner.items():
                _add_json(keys, key + b"." + name.encode("utf-8", "replace"), one, depth + 1)
    elif isinstance(value, list):
        keys[key] = [text for one in value if (text := _bytes(one)) is not None]
    elif (text := _bytes(value)) is not None:
        keys[key] = text


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, (int, float)):
        value = str(value)
    if not isinstance(value, str):
        return None
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair
        return value.encode("utf-8", "replace")


def _plain(text: bytes) -> bytes:
    """A quoted value without its escapes."""
    if b"\\" not in text:
        return text
    return _ESCAPE.sub(
        lambda match: bytes([int(match[1], 16)]) if match[1] else _ESCAPES.get(match[2], match[2]), text
    )
