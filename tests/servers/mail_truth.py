"""What must come of a message, from what its sender is set to, what it asks for, and what its destination is.

Written from the documentation of ``smtp_requiretls_policy``, ``smtp_tls_security_level`` and RFC 8689 §4.2, and from
what Postfix 3.11 is known to do where they leave it open; no log, notice or stored copy is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rtls_analysis.outcomes import RequireTls, TlsLevel, TlsOutcome, Told
from tests.servers.mail_world import BY_DOMAIN, BY_HOST, NEXT_HOP, NOBODY, Destination, Level, Message, Policy


@dataclass(frozen=True, slots=True)
class Expected:
    """What the last try for a recipient comes to, in the words of the tables; `None` where a column is missing."""

    code: str
    is_delivered: bool = False
    expires: bool = False  # a temporary failure, which lasts here until the message is given up
    outcome: TlsOutcome = TlsOutcome.OK
    notice_outcome: TlsOutcome = (
        TlsOutcome.OK
    )  # a notice quotes the reason, and lacks the lines of the connection
    policy: str | None = None
    level: TlsLevel | None = None
    requiretls: RequireTls = RequireTls.NOT_REQUESTED
    violated: bool | None = None
    strict: Told | None = None
    host: str | None = None  # `None`: the result names no server
    reply_code: int | None = None  # where the reason holds a server's reply
    is_reply: bool = False  # whether that reply is the reason, and not just part of Postfix's own

    @property
    def status_word(self) -> str:
        """Postfix's word for the last try."""
        return "sent" if self.is_delivered else "deferred" if self.expires else "bounced"


def expect(message: Message, recipient: str) -> Expected:
    """Give what must come of a message for one of its recipients."""
    local_part, _, domain = recipient.rpartition("@")
    row = BY_DOMAIN[domain.lower()]
    if row.dns:  # no server, and no word of TLS
        code = {"null_mx": "5.1.0", "nxdomain": "5.4.4"}[row.dns]
        return _refused(Expected(code, requiretls=RequireTls.UNKNOWN), code, TlsOutcome.NOT_TLS)
    return _follow(message, row, local_part)


def _follow(message: Message, row: Destination, local_part: str) -> Expected:
    level = _level(message, row)
    found = Expected(
        "2.0.0", is_delivered=True, policy=level.partition(":")[0], host=_host(message, row, level)
    )
    if message.requiretls:
        found = replace(found, requiretls=RequireTls.UNDECIDED, violated=False)
    found = _connect(message, row, level, found)
    return _mail(message, row, level, local_part, found) if found.is_delivered else found


def expect_at_relay(message: Message) -> Expected:
    """Give what must come of a message at the relay, which enforces at level dane; the next server has no REQUIRETLS.

    That it was asked for travels in the header, whether or not the first sender could pass it on.
    """
    row = BY_DOMAIN[NEXT_HOP]
    return _follow(replace(message, policy=Policy.ENFORCE, level=Level.DANE), row, "user")


def _level(message: Message, row: Destination) -> str:
    """The level as it is logged: what it comes to at this destination."""
    if message.tls_required_no and not message.requiretls:
        return "may"
    return row.dane if message.level is Level.DANE else message.level.value


def _host(message: Message, row: Destination, level: str) -> str:
    """The server with the last word: the next is tried where the first lacks what is needed."""
    if message.requiretls and message.policy is Policy.ENFORCE:
        return row.hosts[-1]
    return row.hosts[-1] if level == "secure" else row.hosts[0]


def _connect(message: Message, row: Destination, level: str, found: Expected) -> Expected:
    """What comes of connection and TLS, in the order in which Postfix finds out."""
    asked, enforced = message.requiretls, message.requiretls and message.policy is Policy.ENFORCE
    if level == "unknown":
        return replace(_deferred(found, "4.7.5", TlsOutcome.DNSSEC_INVALID), host=None)
    if enforced and level in ("may", "encrypt"):
        wish = RequireTls.NO_CERTIFICATE_MATCH
        return replace(_violated(found, "5.7.10", TlsOutcome.LOCAL_POLICY, wish), host=None)
    if "refused" in row.settings:
        return replace(_deferred(found, "4.4.1", TlsOutcome.NOT_TLS), host=None)
    if "no_smtputf8" in row.settings and message.is_utf8:  # the first EHLO says so
        return replace(_refused(found, "5.6.7", TlsOutcome.NOT_TLS), level=TlsLevel.UNKNOWN)
    must_encrypt = asked and message.policy is not Policy.OPPORTUNISTIC
    if row.starttls != "yes":
        clear = replace(found, level=TlsLevel.NONE)
        code, refused_code, outcome = {
            "no": ("4.7.4", "5.7.30", TlsOutcome.STARTTLS_NOT_SUPPORTED),
            "refused": ("4.7.0", "5.7.10", TlsOutcome.STARTTLS_REFUSED),
            "broken": ("4.7.5", "", TlsOutcome.TLS_HANDSHAKE_FAILED),
        }[row.starttls]
        clear = replace(clear, reply_code=454 if row.starttls == "refused" else None)
        if must_encrypt and refused_code:
            return _violated(clear, refused_code, outcome, RequireTls.NO_STARTTLS)
        if must_encrypt or level != "may":
            return _deferred(replace(clear, is_reply=row.starttls == "refused"), code, outcome)
        return clear  # after a broken handshake at the second try
    found = replace(found, level=_seen(row, level))
    if fault := _fault(row, level):
        told = TlsOutcome.CERTIFICATE_UNVERIFIED
        if not enforced:
            found = replace(_deferred(found, "4.7.5", fault), notice_outcome=told)
            return replace(found, requiretls=RequireTls.NO_CERTIFICATE_MATCH) if asked else found
        if fault is TlsOutcome.CERTIFICATE_HOST_MISMATCH:
            told = fault  # no matching certificate; the others, no trusted one
        return replace(
            _violated(found, "5.7.10", fault, RequireTls.NO_CERTIFICATE_MATCH), notice_outcome=told
        )
    return found


def _fault(row: Destination, level: str) -> TlsOutcome | None:
    """What is wrong with the certificate by the rules of a level; ``may`` and ``encrypt`` have none."""
    word = row.dane_fault if level in ("dane", "halfdane") else row.pkix_fault if level == "secure" else ""
    return TlsOutcome(word) if word else None


def _seen(row: Destination, level: str) -> TlsLevel:
    """How the line of the connection calls the server's certificate."""
    if level in ("dane", "halfdane", "secure"):
        fault = _fault(row, level)
        if fault is None:
            return TlsLevel.TRUSTED if level == "halfdane" else TlsLevel.VERIFIED
        return TlsLevel.TRUSTED if fault is TlsOutcome.CERTIFICATE_HOST_MISMATCH else TlsLevel.UNTRUSTED
    if level == "may" and "tls12" in row.settings:
        return TlsLevel.ANONYMOUS  # nobody asked for a certificate
    if level == "dane:encrypt":
        return TlsLevel.UNTRUSTED  # it was asked for a bare key
    return TlsLevel.TRUSTED if row.pkix_fault in ("", "certificate_host_mismatch") else TlsLevel.UNTRUSTED


def _mail(message: Message, row: Destination, level: str, local_part: str, found: Expected) -> Expected:
    """What comes of MAIL and RCPT."""
    if message.requiretls:
        offers = found.level is not TlsLevel.NONE and BY_HOST[found.host or ""].offers_requiretls
        if not offers and message.policy is Policy.ENFORCE:
            outcome = TlsOutcome.REQUIRETLS_NOT_SUPPORTED
            return _violated(found, "5.7.30", outcome, RequireTls.NOT_OFFERED)
        wish, strict = RequireTls.NOT_OFFERED, None
        if offers and level in ("dane", "secure", "halfdane"):
            wish, strict = RequireTls.SENT, Told.NO if level == "halfdane" else Told.YES
        elif offers:
            wish, strict = RequireTls.SENT_UNAUTHENTICATED, Told.NO
        found = replace(found, requiretls=wish, strict=strict)
    if "refuses_mail" in row.settings:
        return _refused(
            replace(found, reply_code=550, is_reply=True), "5.7.30", TlsOutcome.REQUIRETLS_NOT_SUPPORTED
        )
    if local_part.startswith(NOBODY):
        return _refused(replace(found, reply_code=550, is_reply=True), "5.1.1", TlsOutcome.NOT_TLS)
    return found


def _refused(found: Expected, code: str, outcome: TlsOutcome) -> Expected:
    return replace(found, is_delivered=False, code=code, outcome=outcome, notice_outcome=outcome)


def _deferred(found: Expected, code: str, outcome: TlsOutcome) -> Expected:
    return replace(_refused(found, code, outcome), expires=True)


def _violated(found: Expected, code: str, outcome: TlsOutcome, wish: RequireTls) -> Expected:
    return replace(_refused(found, code, outcome), requiretls=wish, violated=True)
