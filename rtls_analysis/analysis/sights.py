"""One server at one address, seen from two places: what differs between two sessions with it, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Any

from rtls_analysis.outcomes import DaneState, FeatureState, PkixState, SessionOutcome

Row = Mapping[str, Any]


class Sight(StrEnum):
    """Whether two vantages tell the same of a server."""

    SAME = "same"
    DIFFERS = "differs"


class Difference(StrEnum):
    """Why two vantages tell otherwise of a server; where several reasons hold, the first is the one that counts."""

    ONE_ONLY = "one_only"  # one has nothing of it: the DNS told it otherwise, or its scan is not finished
    FAMILY_UNAVAILABLE = "family_unavailable"  # one has no way to addresses of that family
    LEFT_ALONE = "left_alone"  # one chose not to contact it: opted out, not sampled, pushed back too often
    BLOCKED = "blocked"  # one was turned away
    RATE_LIMITED = "rate_limited"  # one was told to come less often
    GREYLISTED = "greylisted"  # one was told to come later
    REFUSED = "refused"  # one got no connection
    UNREACHABLE = "unreachable"  # one found no way to it
    TIMEOUT = "timeout"  # one had no answer in time
    CLOSED_EARLY = "closed_early"  # one was hung up on
    PROTOCOL_ERROR = "protocol_error"  # one heard no SMTP
    TLS_FAILED = "tls_failed"  # at one the handshake broke
    INJECTED_TEXT = "injected_text"  # at one there was plaintext where TLS was due
    NO_STARTTLS = "no_starttls"  # one was not offered STARTTLS
    REQUIRETLS_NOT_OFFERED = "requiretls_not_offered"  # one was not offered REQUIRETLS
    TLS_VERSION = "tls_version"  # another version of TLS
    CERTIFICATE = "certificate"  # another leaf certificate
    VERDICT = (
        "verdict"  # the same one, judged otherwise: with other certificates above it, or at another time
    )
    CAPABILITIES = "capabilities"  # other lines in the reply to EHLO
    CIPHER = "cipher"  # another cipher, or another key exchange


FIRST, SECOND, BOTH = "first", "second", ""
"""Where a difference holds."""

_BY_CHOICE = (SessionOutcome.OPTED_OUT, SessionOutcome.NOT_SAMPLED, SessionOutcome.ADDRESS_REFUSED)
_OF_OUTCOME: Mapping[str, Difference] = {
    outcome: Difference.LEFT_ALONE if outcome in _BY_CHOICE else Difference(outcome)
    for outcome in SessionOutcome
    if outcome is not SessionOutcome.COMPLETED
}
_TLS_TOLD = frozenset({FeatureState.YES, FeatureState.NO, FeatureState.FAILED})
_OFFER_TOLD = frozenset({FeatureState.YES, FeatureState.NO})

FACTS = (
    "outcome",
    "starttls",
    "requiretls_tls",
    "injected",
    "tls_version",
    "leaf",
    "pkix",
    "dane",
    "ehlo_plain",
    "ehlo_tls",
    "cipher",
    "key_exchange",
)
"""What is compared; two sessions that agree in all of it tell the same."""


def facts_of(session: Row) -> dict[str, Any]:
    """Give the facts of a row of `sessions` that are compared."""
    facts = {name: session.get(name) for name in FACTS}
    facts["injected"] = bool(session.get("injected_bytes"))
    facts["leaf"] = next(iter(session.get("chain_sha256") or ()), None)
    for name in ("ehlo_plain", "ehlo_tls"):
        lines = session.get(name) or ()
        # the first line greets whoever asks
        facts[name] = _capabilities(tuple(lines[1:])) if len(lines) else None
    return facts


@lru_cache(maxsize=4096)
def _capabilities(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Give what a reply to EHLO offers, in an order of its own; thousands of servers offer the same.

    The code before each line is left out: it has another sign after it in the last line, whichever that is.
    """
    return tuple(sorted(" ".join(_CODE.sub("", line).upper().split()) for line in lines))


_CODE = re.compile(r"\A\d{3}[- ]")


def differences(first: Row | None, second: Row | None) -> dict[Difference, str]:
    """List what differs between two sessions with a server, in the order of `Difference`, and where.

    Parameters
    ----------
    first, second
        What `facts_of` gave; None where there is nothing on record.

    Examples
    --------
    >>> differences({"outcome": "completed", "starttls": "yes"}, {"outcome": "blocked", "starttls": "unknown"})
    {<Difference.BLOCKED: 'blocked'>: 'second'}
    """
    found: dict[Difference, str] = {}
    for difference, where in _found(first, second):
        found[difference] = where if difference not in found else BOTH
    return {difference: found[difference] for difference in Difference if difference in found}


def _found(first: Row | None, second: Row | None) -> Iterator[tuple[Difference, str]]:
    if first is None or second is None:
        yield Difference.ONE_ONLY, FIRST if first is None else SECOND
        return
    if first["outcome"] != second["outcome"]:
        for where, row in ((FIRST, first), (SECOND, second)):
            if (reason := _OF_OUTCOME.get(row["outcome"])) is not None:
                yield reason, where
    for difference, name, told, bad in (
        (Difference.INJECTED_TEXT, "injected", _TLS_TOLD, True),
        (Difference.NO_STARTTLS, "starttls", _TLS_TOLD, FeatureState.NO),
        (Difference.REQUIRETLS_NOT_OFFERED, "requiretls_tls", _OFFER_TOLD, FeatureState.NO),
    ):
        decides = "starttls" if name == "injected" else name
        is_bad = [row.get(name) == bad for row in (first, second)]
        if first.get(decides) in told and second.get(decides) in told and is_bad[0] != is_bad[1]:
            yield difference, FIRST if is_bad[0] else SECOND
    if _apart(first, second, "tls_version"):
        yield Difference.TLS_VERSION, BOTH
    elif _apart(first, second, "cipher", "key_exchange"):
        yield Difference.CIPHER, BOTH
    if _apart(first, second, "leaf"):
        yield Difference.CERTIFICATE, BOTH
    elif _apart(first, second, "pkix", "dane"):
        yield Difference.VERDICT, BOTH
    inside = first.get("ehlo_tls") is not None and second.get("ehlo_tls") is not None
    if _apart(first, second, "ehlo_tls" if inside else "ehlo_plain"):
        yield Difference.CAPABILITIES, BOTH


def _apart(first: Row, second: Row, *names: str) -> bool:
    """Tell whether both have a word on one of these, and not the same; what was not tested is none."""
    untold = (None, PkixState.NOT_TESTED, DaneState.NOT_TESTED)
    return any(
        first.get(name) != second.get(name)
        and first.get(name) not in untold
        and second.get(name) not in untold
        for name in names
    )


_TOLD_BY: Mapping[Difference, tuple[str, ...]] = {
    Difference.NO_STARTTLS: ("starttls",),
    Difference.REQUIRETLS_NOT_OFFERED: ("requiretls_tls",),
    Difference.TLS_VERSION: ("tls_version",),
    Difference.CERTIFICATE: ("leaf",),
    Difference.VERDICT: ("pkix", "dane"),
    Difference.CIPHER: ("cipher", "key_exchange"),
}


def words_on(difference: Difference, session: Row | None, facts: Row | None, others: Row | None) -> str:
    """Say in a phrase what one vantage has to say of a difference.

    Parameters
    ----------
    difference
        The one that counts.
    session
        Its row of `sessions`; None where it has none.
    facts, others
        What is compared of it, and of the other vantage's.
    """
    if session is None or facts is None:
        return "not on record"
    if difference is Difference.INJECTED_TEXT:
        return "plaintext before TLS" if facts["injected"] else "no plaintext"
    if difference is Difference.CAPABILITIES:
        name = "ehlo_tls" if others is not None and facts["ehlo_tls"] and others["ehlo_tls"] else "ehlo_plain"
        more = set(facts[name] or ()) - set((others or {}).get(name) or ())
        return ", ".join(sorted(more)) or "nothing more"
    if (names := _TOLD_BY.get(difference)) is not None:
        return ", ".join(str(facts[name]) for name in names if facts[name] is not None)
    said = [session.get("reply_code"), session.get("reply_text") or session.get("detail")]
    return " ".join([str(session["outcome"]), *(str(word) for word in said if word not in (None, ""))])
