"""What a lookup ends in: the answer, its DNSSEC state, and why there is none (RFC 1034, 2308, 4035)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DnsSecurity(StrEnum):
    """The DNSSEC state of an answer as the sender's resolver sees it (RFC 4035 §4.3, RFC 7672 §2.1.1)."""

    SECURE = "secure"  # validated, also a validated denial
    INSECURE = "insecure"  # provably unsigned
    ERROR = "error"  # bogus, SERVFAIL, time-out: no answer that may be used
    NOT_TESTED = "not_tested"  # the resolver is not trusted, or nothing was asked


class DnsStatus(StrEnum):
    """How a lookup ended: two kinds of answer without records, and the kinds of failure, never mixed."""

    NOERROR = "noerror"  # records
    NODATA = "nodata"  # the name exists, records of this type do not
    NXDOMAIN = "nxdomain"  # the name does not exist
    SERVFAIL = "servfail"
    BOGUS = "bogus"  # SERVFAIL, but an answer with checking disabled
    REFUSED = "refused"
    TIMEOUT = "timeout"
    ERROR = "error"  # anything else: malformed, another rcode, a loop of aliases


FAILURES = frozenset(
    {DnsStatus.SERVFAIL, DnsStatus.BOGUS, DnsStatus.REFUSED, DnsStatus.TIMEOUT, DnsStatus.ERROR}
)


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    r"""One question and what came of it.

    `security` is ERROR exactly where `status` is one of `FAILURES`. `canonical` is the name at the end of the
    aliases (`aliases` lists the names on the way, the question's own first); without an alias it is `name`.
    `records` are the records of the type asked for in presentation form; TXT records are their strings joined
    without spaces, undecodable bytes as ``\xNN``.
    """

    name: str
    rdtype: str
    status: DnsStatus
    security: DnsSecurity
    records: tuple[str, ...] = ()
    canonical: str = ""
    aliases: tuple[str, ...] = ()
    ttl: int | None = None
    detail: str = ""

    @property
    def failed(self) -> bool:
        """No answer that may be used: neither records nor a denial."""
        return self.status in FAILURES
