"""The tls= field of Postfix 3.11 and its TLS lines."""

from __future__ import annotations

import pytest

from rtls_analysis.outcomes import RequireTls, TlsLevel, TlsOutcome
from rtls_analysis.read.log_rows import Tls
from rtls_analysis.read.postfix_tls import tls_of_field, tls_of_line

SENT = {"sent": True, "session": True, "outcome": TlsOutcome.OK}
NOT_SENT = {"sent": False, "session": True, "outcome": TlsOutcome.NOT_TLS}
NO_SESSION = {"sent": False, "session": False, "outcome": TlsOutcome.LOCAL_POLICY}
REFUSED = {"sent": False, "session": True, "outcome": TlsOutcome.CERTIFICATE_UNVERIFIED}
NO_STARTTLS = {"sent": False, "session": True, "outcome": TlsOutcome.STARTTLS_NOT_SUPPORTED}

# why, field, how it went: policy, level, requiretls, violated, strict
FIELDS = [
    ("opportunistic", "may", SENT, "may", "encrypted", "not_requested", None, None),
    ("TLS switched off", "none", SENT, "none", "none", "not_requested", None, None),
    ("lowered to cleartext", "may:none", SENT, "may", "none", "not_requested", None, None),
    ("cleartext over a cached connection", "may?", SENT, "may", "none", "not_requested", None, None),
    ("undecided when it failed", "may?", NOT_SENT, "may", "unknown", "not_requested", None, None),
    ("DANE held", "dane", SENT, "dane", "verified", "not_requested", None, None),
    ("documented, not seen: lowered", "dane:halfdane", SENT, "dane", "encrypted", "not_requested", None, None),
    ("certificate checked, none demanded", "encrypt", SENT, "encrypt", "encrypted", "not_requested", None, None),
    ("DANE and REQUIRETLS", "dane/requiretls", SENT, "dane", "verified", "sent", False, "yes"),
    ("MTA-STS and REQUIRETLS", "secure/requiretls", SENT, "secure", "verified", "sent", False, "yes"),
    ("dane-only", "dane-only/requiretls", SENT, "dane-only", "verified", "sent", False, "yes"),
    ("a plain CA check", "verify/requiretls", SENT, "verify", "verified", "sent", False, "unknown"),
    ("a fingerprint", "fingerprint/requiretls", SENT, "fingerprint", "verified", "sent", False, "unknown"),
    ("MX record unsigned", "halfdane/requiretls", SENT, "halfdane", "encrypted", "sent", False, "no"),
    ("sent without a match", "may/requiretls:nocertmatch", SENT, "may", "encrypted", "sent_unauthenticated", False,
     "no"),
    ("the manual's other spelling", "may/requiretls:nomatch", SENT, "may", "encrypted", "sent_unauthenticated", False,
     "no"),
    ("not offered, sent without it", "dane/requiretls:none", SENT, "dane", "verified", "not_offered", False, None),
    ("in cleartext all the same", "may:none/requiretls:none", SENT, "may", "none", "not_offered", False, None),
    ("not offered, refused", "dane/!requiretls:none", NOT_SENT, "dane", "verified", "not_offered", True, None),
    ("level matches no certificate", "may?/!requiretls:nocertmatch", NO_SESSION, "may", None,
     "no_certificate_match", True, None),
    ("wrong certificate", "!dane/!requiretls:nocertmatch", REFUSED, "dane", "encrypted", "no_certificate_match", True,
     None),
    ("wrong certificate, not blamed on REQUIRETLS", "!dane/requiretls:nocertmatch", REFUSED, "dane", "encrypted",
     "no_certificate_match", False, None),
    ("no STARTTLS", "!dane/!requiretls:nostarttls", NO_STARTTLS, "dane", "none", "no_starttls", True, None),
    ("TLS switched off here", "none?/!requiretls:noencryption", NO_SESSION, "none", None, "no_encryption", True, None),
    ("connection failed first", "dane?/requiretls?", NOT_SENT, "dane", "unknown", "undecided", False, None),
    ("TLSA lookup failed", "unknown?/requiretls?", {**NO_SESSION, "outcome": TlsOutcome.DNSSEC_INVALID}, "unknown",
     None, "undecided", False, None),
    ("TLS demanded, not offered", "!encrypt", NO_STARTTLS, "encrypt", "none", "not_requested", None, None),
    ("a part we do not know", "may/other", SENT, "may", "encrypted", "unknown", False, None),
    ("nothing", "", SENT, None, "encrypted", "not_requested", None, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "how", "policy", "level", "requiretls", "violated", "strict"),
    [pytest.param(*row, id=why) for why, *row in FIELDS],
)
def test_field(
    field: str,
    how: dict[str, object],
    policy: str | None,
    level: str | None,
    requiretls: str,
    violated: bool | None,
    strict: str | None,
) -> None:
    """Level and REQUIRETLS come out of the two parts of the field, and of whether the message went."""
    tls = tls_of_field(field.encode(), None, **how)  # type: ignore[arg-type]
    assert (tls.policy, tls.level, tls.requiretls) == (policy and policy.encode(), level, requiretls)
    assert (tls.violated, tls.strict) == (violated, strict)


def test_line_adds_what_it_knows() -> None:
    """The TLS line of the connection tells how far the peer was authenticated; a lowered level outweighs it."""
    line = Tls(TlsLevel.TRUSTED, cipher=b"TLS_AES_256_GCM_SHA384", bits=256)
    assert tls_of_field(b"may", line, sent=True, session=True, outcome=TlsOutcome.OK).level == "trusted"
    lowered = tls_of_field(b"may:none", line, sent=True, session=True, outcome=TlsOutcome.OK)
    assert (lowered.level, lowered.cipher) == ("none", None)
    suspended = tls_of_field(b"may?", line, sent=False, session=False, outcome=TlsOutcome.NOT_TLS)
    assert (suspended.level, suspended.cipher) == (None, None)


@pytest.mark.parametrize(
    ("word", "rest", "expected"),
    [
        (b"Verified", b"TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange x25519",
         ("verified", "TLSv1.3", b"TLS_AES_256_GCM_SHA384", 256)),
        (b"Untrusted", b"TLSv1 with cipher RC4-SHA (128/128 bits)", ("untrusted", "TLSv1.0", b"RC4-SHA", 128)),
        (b"Anonymous", b"TLSv1.2 with cipher ADH-AES256", ("anonymous", "TLSv1.2", b"ADH-AES256", None)),
        (b"", b"TLSv9 with", ("encrypted", None, None, None)),
        (b"Odd", b"", ("encrypted", None, None, None)),
    ],
)  # fmt: skip
def test_tls_line(word: bytes, rest: bytes, expected: tuple[object, ...]) -> None:
    """What stands behind the bits changes between versions and is not looked at."""
    tls = tls_of_line(word, rest)
    assert (tls.level, tls.version, tls.cipher, tls.bits) == expected
    assert tls.requiretls is RequireTls.UNKNOWN
