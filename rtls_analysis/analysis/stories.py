"""What the sources tell of one message: each recipient's story, each happening in words, and the gaps."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rtls_analysis.analysis.experiment import ASKED
from rtls_analysis.analysis.messages import ACCEPTED
from rtls_analysis.outcomes import Action, RequireTls, TlsLevel, TlsOutcome, Told

Row = Mapping[str, Any]

_QUEUED_AS = re.compile(r"\bqueued as ([A-Za-z0-9.-]{4,64})|\bid=([A-Za-z0-9-]{6,40})\b", re.I)


class Kind(StrEnum):
    """What tells of the message."""

    ATTEMPT = "attempt"
    CONNECTION = "connection"
    NOTICE = "notice"
    HOP = "hop"
    REPORT = "report"


class Tone(StrEnum):
    """How a happening stands for the message and its wish."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"
    FACT = "fact"


class Fate(StrEnum):
    """What became of the message for a recipient, all sources taken together."""

    DELIVERED = "delivered"  # accepted by the last server that is known
    RETURNED = "returned"
    RETURNED_LATER = "returned_later"  # accepted by one server, returned by another behind it
    QUEUED = "queued"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that a source tells: when, who tells it, what, and where it stands."""

    at: dt.datetime | None
    kind: Kind
    teller: str
    text: str
    tone: Tone = Tone.FACT
    source: str = ""


@dataclass(frozen=True, slots=True)
class RecipientStory:
    """What is known about one recipient."""

    recipient: str
    fate: Fate
    happenings: tuple[Happening, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The rows of each table that belong to the message, in the order of time."""

    deliveries: Sequence[Row] = ()
    connections: Sequence[Row] = ()
    bounces: Sequence[Row] = ()
    reports: Sequence[Row] = ()
    hops: Sequence[Row] = ()
    guessed: bool = False  # a log without Message-IDs was joined by recipient and time


def short_name(host: Any) -> str:
    """The first label of a host: logs often write no more."""
    return host.partition(".")[0].lower() if isinstance(host, str) else ""


def queued_as(text: str | None) -> str | None:
    """The queue id that the next server gave, where its reply tells."""
    found = _QUEUED_AS.search(text) if text else None
    return (found[1] or found[2]) if found else None


# -- what it amounts to ----------------------------------------------------------------------------------------

REQUIRETLS_WORDS: Mapping[RequireTls, tuple[str, Tone]] = {
    RequireTls.SENT: ("REQUIRETLS sent on", Tone.GOOD),
    RequireTls.SENT_UNAUTHENTICATED: ("REQUIRETLS sent on, the server not authenticated", Tone.BAD),
    RequireTls.NOT_OFFERED: ("the server does not offer REQUIRETLS", Tone.BAD),
    RequireTls.NO_STARTTLS: ("REQUIRETLS asked for, no STARTTLS", Tone.BAD),
    RequireTls.NO_ENCRYPTION: ("REQUIRETLS asked for, TLS switched off", Tone.BAD),
    RequireTls.NO_CERTIFICATE_MATCH: ("REQUIRETLS asked for, no certificate that matches", Tone.BAD),
    RequireTls.UNDECIDED: ("REQUIRETLS asked for, nothing decided", Tone.OPEN),
}


def stories(found: Found) -> list[RecipientStory]:
    """Tell each recipient's story, those of the log first."""
    names: dict[str, str] = {}
    for row in found.deliveries:
        names.setdefault((row["recipient"] or "").lower(), row["recipient"] or "(recipient not told)")
    for row in found.bounces:
        names.setdefault((_notice_for(row, names)).lower(), row["final_recipient"] or "(recipient not told)")
    result = []
    for key, name in names.items():
        tries = [row for row in found.deliveries if (row["recipient"] or "").lower() == key]
        notices = [row for row in found.bounces if _notice_for(row, names).lower() == key]
        happenings = [_attempt(row) for row in tries] + [_notice(row) for row in notices]
        result.append(RecipientStory(name, _fate(tries, notices), tuple(in_time(happenings))))
    return result


def _notice_for(notice: Row, names: Mapping[str, str]) -> str:
    """The recipient as the sender knows it: a notice may name the one behind an alias too."""
    original, final = notice["original_recipient"] or "", notice["final_recipient"] or ""
    return original if original.lower() in names and original else final or original


def in_time(happenings: Iterable[Happening]) -> list[Happening]:
    """Put happenings into the order of time; those without a time come last."""
    far = dt.datetime.max.replace(tzinfo=dt.UTC)
    return sorted(happenings, key=lambda item: item.at or far)


def _fate(tries: Sequence[Row], notices: Sequence[Row]) -> Fate:
    early = dt.datetime.min.replace(tzinfo=dt.UTC)
    accepted = [row["logged_at"] or early for row in tries if row["action"] in ACCEPTED]
    failed = [row["logged_at"] or early for row in tries if row["action"] == Action.FAILED]
    failed += [row["reported_at"] or early for row in notices if row["action"] == Action.FAILED]
    if accepted and failed:  # failed before it was accepted: sent again
        return Fate.RETURNED_LATER if max(failed) >= min(accepted) else Fate.DELIVERED
    if failed:
        return Fate.RETURNED
    if accepted or any(row["action"] in ACCEPTED for row in notices):
        return Fate.DELIVERED
    return Fate.QUEUED if tries or notices else Fate.UNKNOWN


def _attempt(row: Row) -> Happening:
    relay = row["relay_host"] or (f"[{row['relay_address']}]" if row["relay_address"] else "")
    parts = []
    if row["attempted"] is False:
        parts.append(f"no try ({row['status_word'] or 'not told why'})")
    elif relay:
        parts.append(f"to {relay}")
    if told := _tls(row):
        parts.append(told)
    word = RequireTls(row["requiretls"]) if row["requiretls"] is not None else RequireTls.UNKNOWN
    wish, tone = REQUIRETLS_WORDS.get(word, ("", Tone.FACT))
    if wish:
        parts.append(wish)
    outcome = row["tls_outcome"]
    went = row["action"] in ACCEPTED
    if not went and outcome not in (None, TlsOutcome.OK, TlsOutcome.UNKNOWN, TlsOutcome.NOT_TLS):
        parts.append(f"reason: {outcome.replace('_', ' ')}")
    if row["action"] == Action.FAILED:
        tone = Tone.BAD
    elif row["action"] == Action.DELAYED:
        tone = Tone.OPEN
    elif tone is Tone.FACT:
        tone = Tone.GOOD
    text = (
        f"{row['action'] or 'no result'}: {', '.join(parts)}" if parts else f"{row['action'] or 'no result'}"
    )
    if row["reply_text"]:
        text += f"; {row['enhanced_code'] or ''} {row['reply_text']}".replace(";  ", "; ")
    where = (
        f"{row['source_file'] or ''}:{row['line_number']}" if row["line_number"] else row["source_file"] or ""
    )
    return Happening(row["logged_at"], Kind.ATTEMPT, _teller(row), text, tone, where)


def _teller(row: Row) -> str:
    host = row["reporting_host"] or row["mta"] or "a log"
    return f"{host} ({row['queue_id']})" if row["queue_id"] else str(host)


def _tls(row: Row) -> str:
    match row["tls_level"]:
        case None:
            return ""
        case TlsLevel.NONE:
            return "in cleartext"
        case TlsLevel.UNKNOWN:
            return "TLS not told"
        case level:
            version = f" {row['tls_version']}" if row["tls_version"] else " TLS"
            return f"{level}{version}" + (f" {row['cipher']}" if row["cipher"] else "")


def connection_happening(row: Row) -> Happening:
    """What a TLS connection or attempt for the message tells."""
    relay = row["relay_host"] or row["relay_address"] or "a server not named"
    failed = row["tls_outcome"] not in (TlsOutcome.OK, None)
    text = f"{'gave up on' if failed else 'connected to'} {relay}: {_tls(row) or 'no session'}"
    if failed:
        text += f", {row['tls_outcome'].replace('_', ' ')}"
    if row["text"]:
        text += f"; {row['text']}"
    where = (
        f"{row['source_file'] or ''}:{row['line_number']}" if row["line_number"] else row["source_file"] or ""
    )
    return Happening(
        row["logged_at"], Kind.CONNECTION, _teller(row), text, Tone.BAD if failed else Tone.FACT, where
    )


def _notice(row: Row) -> Happening:
    text = f"notice: {row['action'] or 'not told'}"
    if row["enhanced_code"]:
        text += f" {row['enhanced_code']}"
    if row["remote_mta"]:
        text += f", quoting {row['remote_mta']}"
    if row["diagnostic"]:
        text += f"; {row['diagnostic']}"
    if row["returned"]:
        text += f"; returned of the message: {row['returned']}"
    tones = {Action.FAILED: Tone.BAD, Action.DELAYED: Tone.OPEN, None: Tone.OPEN}
    tone = tones.get(row["action"], Tone.GOOD)
    return Happening(
        row["reported_at"],
        Kind.NOTICE,
        row["reporting_mta"] or "a server not named",
        text,
        tone,
        row["source_file"] or "",
    )


def hop_happening(row: Row) -> Happening:
    """What a Received field tells."""
    client = row["from_name"] or row["from_address"] or "a client not told"
    told = [row["with_protocol"] or "", row["tls_version"] or row["tls_state"] or ""]
    text = f"hop {row['hop']}: from {client}, {', '.join(filter(None, told))}"
    if row["requiretls_mark"]:
        text += f", marked {row['requiretls_mark']}"
    if row["queue_id"]:
        text += f", queued as {row['queue_id']}"
    disproved = row["could_be_requiretls"] == Told.NO
    if disproved:
        text += f"; not REQUIRETLS: {row['detail']}"
    return Happening(
        row["received_at"],
        Kind.HOP,
        row["by_host"] or "a host not told",
        text,
        Tone.BAD if disproved else Tone.FACT,
        row["source_file"] or "",
    )


def report_happening(row: Row) -> Happening:
    """What a TLS report tells about the destination at that time."""
    failed = row["failed_sessions"] or 0
    text = f"sessions to {row['policy_domain']} ({row['policy_type']}): "
    text += f"{row['sessions_ok'] or 0:,} ok, {row['sessions_failed'] or 0:,} failed"
    if failed:
        text += f"; {failed:,} for {row['result_type']}"
        text += f" at {row['receiving_mx']}" if row["receiving_mx"] else ""
    tone = Tone.BAD if failed else Tone.FACT
    teller = row["organization"] or "a report"
    return Happening(row["begins_at"], Kind.REPORT, teller, text, tone, row["source_file"] or "")


def asked(found: Found) -> tuple[Told, tuple[str, ...]]:
    """Whether the sender asked for REQUIRETLS, and who says so."""
    words = {str(word) for word in ASKED}
    who = []
    if any(row["requiretls"] in words for row in found.deliveries):
        who.append("the log")
    if any(row["requiretls_requested"] == Told.YES for row in found.bounces):
        who.append("a notice")
    if any(row["requiretls_requested"] == Told.YES for row in found.hops):
        who.append("the message itself, which can be forged")
    if who:
        return Told.YES, tuple(who)
    if any(row["requiretls"] == RequireTls.NOT_REQUESTED for row in found.deliveries):
        return Told.NO, ("the log",)
    return Told.UNKNOWN, ()


def not_known(found: Found, given: Iterable[str]) -> list[str]:
    """What cannot be told of the message, and why."""
    there = set(given)
    gaps = []
    if not found.deliveries:
        gaps.append(
            "What its sender did: no log with this message was given."
            if "deliveries" not in there
            else "What its sender did: no line of the logs given belongs to it."
        )
    elif found.guessed:
        gaps.append(
            "Whether the lines of the log are its own: that log has no Message-IDs; recipient and time fit one message."
        )
    if asked(found)[0] is Told.UNKNOWN:
        gaps.append("Whether its sender asked for REQUIRETLS: no source has a word for it.")
    if not any(_has_word(rows, "tls_required_no") for rows in (found.deliveries, found.bounces, found.hops)):
        gaps.append("Whether it carries TLS-Required: No: no source tells.")
    gaps += _dark_hops(found)
    if not found.bounces:
        gaps.append(
            "Whether a notice came back: no bounces were given."
            if "bounces" not in there
            else "Whether a notice was written: there is none; it may have been lost, or not asked for."
        )
    if not found.hops:
        gaps.append(
            "Its way as the recipient sees it: the Received fields of the message itself are not at hand."
        )
    if not found.reports and "tls_reports" in there:
        gaps.append("What the destination's TLS was like then: no TLS report about it covers that time.")
    return gaps


def _has_word(rows: Sequence[Row], column: str) -> bool:
    return any(row[column] in (Told.YES, Told.NO) for row in rows)


def _dark_hops(found: Found) -> list[str]:
    """Servers that took the message and of which no log is there."""
    loggers = {short_name(row["reporting_host"]) for row in found.deliveries}
    queues = {row["queue_id"] for row in found.deliveries}
    dark = {
        row["relay_host"]: queued_as(row["reply_text"])
        for row in found.deliveries
        if row["action"] in ACCEPTED
        and row["relay_host"] is not None
        and row["tls_level"] is not None
        and short_name(row["relay_host"]) not in loggers
        and queued_as(row["reply_text"]) not in queues
    }
    return [
        f"What became of it behind {host}{f' (there: {queue})' if queue else ''}: no log of that server is at hand."
        for host, queue in dark.items()
    ]
