"""The dialogue of a probe: greeting, EHLO, STARTTLS, EHLO, QUIT, without input or output (RFC 5321, 3207, 8689 §2)."""

from __future__ import annotations

from enum import StrEnum


class FeatureState(StrEnum):
    """Whether a server has a feature, told apart from not knowing."""

    YES = "yes"
    NO = "no"  # a whole EHLO reply without it
    FAILED = "failed"  # offered; then a 5yz or a broken handshake
    UNKNOWN = "unknown"  # tried, no conclusion: time-out, limit, any 4yz
    NOT_TESTED = "not_tested"


class SessionOutcome(StrEnum):
    """How a session ended; the last four were not contacted."""

    COMPLETED = "completed"  # to the end of what was offered
    TIMEOUT = "timeout"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    RATE_LIMITED = "rate_limited"  # 421 and kin
    GREYLISTED = "greylisted"  # another 4yz
    BLOCKED = "blocked"  # 5yz to the connection or to EHLO
    PROTOCOL_ERROR = "protocol_error"  # garbage, or a budget spent
    TLS_FAILED = "tls_failed"  # STARTTLS refused, or the handshake broke
    CLOSED_EARLY = "closed_early"
    ADDRESS_REFUSED = "address_refused"  # a special address, not allowed
    OPTED_OUT = "opted_out"
    NOT_SAMPLED = "not_sampled"
    FAMILY_UNAVAILABLE = "family_unavailable"  # the vantage lacks IPv4 or IPv6


class SessionStage(StrEnum):
    """The last stage that a session began."""

    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    EHLO_TLS = "ehlo_tls"
    QUIT = "quit"
