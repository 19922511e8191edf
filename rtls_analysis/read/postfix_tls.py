"""What Postfix says of TLS: the ``tls=`` field of 3.11 on, and the line of a TLS connection.

``tls=LEVEL[/requiretls]``; each part is ``[!]name[:actual][?]``. A `!` marks a violated policy (the connection was
not used for mail), `?` one that was not decided, and what follows the colon is what it was lowered to.
"""

from __future__ import annotations

import re

from rtls_analysis.outcomes import RequireTls, TlsLevel, TlsOutcome, Told
from rtls_analysis.read.log_rows import Tls
from rtls_analysis.schema import TlsVersion

_REQUIRETLS = {
    b"": RequireTls.SENT,
    b"none": RequireTls.NOT_OFFERED,
    b"nostarttls": RequireTls.NO_STARTTLS,
    b"noencryption": RequireTls.NO_ENCRYPTION,
    b"nocertmatch": RequireTls.NO_CERTIFICATE_MATCH,
    b"nomatch": RequireTls.NO_CERTIFICATE_MATCH,  # one of the two spellings in the manual
}
_VERIFYING = frozenset({b"dane", b"dane-only", b"verify", b"secure", b"fingerprint"})
_STRICT = {
    b"dane": Told.YES,
    b"dane-only": Told.YES,
    b"secure": Told.YES,
    b"verify": Told.UNKNOWN,  # the name matched may come from an MX record that anybody could have forged
    b"fingerprint": Told.UNKNOWN,
}
_LEVELS = {
    b"Verified": TlsLevel.VERIFIED,
    b"Trusted": TlsLevel.TRUSTED,
    b"Untrusted": TlsLevel.UNTRUSTED,
    b"Anonymous": TlsLevel.ANONYMOUS,
}
_VERSIONS = {
    b"SSLv3": TlsVersion.SSLV3,
    b"TLSv1": TlsVersion.TLSV1_0,
    b"TLSv1.0": TlsVersion.TLSV1_0,
    b"TLSv1.1": TlsVersion.TLSV1_1,
    b"TLSv1.2": TlsVersion.TLSV1_2,
    b"TLSv1.3": TlsVersion.TLSV1_3,
}
_CIPHER = re.compile(rb"(\S+)(?: with cipher (\S+)(?: \((\d{1,6})/\d{1,6} bits\))?)?").match

NEVER_ENCRYPTED = frozenset(
    {
        TlsOutcome.STARTTLS_NOT_SUPPORTED,
        TlsOutcome.STARTTLS_REFUSED,
        TlsOutcome.TLS_HANDSHAKE_FAILED,
        TlsOutcome.TLS_VERSION_TOO_LOW,
    }
)
BAD_CERTIFICATE = frozenset(
    {
        TlsOutcome.CERTIFICATE_UNVERIFIED,
        TlsOutcome.CERTIFICATE_EXPIRED,
        TlsOutcome.CERTIFICATE_NOT_TRUSTED,
        TlsOutcome.CERTIFICATE_HOST_MISMATCH,
        TlsOutcome.TLSA_INVALID,
        TlsOutcome.VALIDATION_FAILURE,
    }
)


def tls_of_line(word: bytes, rest: bytes) -> Tls:
    """What ``WORD TLS connection established to HOST: REST`` tells; old versions have no word."""
    match = _CIPHER(rest)
    level = _LEVELS.get(word, TlsLevel.ENCRYPTED)
    if match is None:
        return Tls(level)
    version, cipher, bits = match.groups()
    return Tls(level, version=_VERSIONS.get(version), cipher=cipher, bits=int(bits) if bits else None)


def tls_of_field(field: bytes, line: Tls | None, *, session: bool, sent: bool, outcome: TlsOutcome) -> Tls:
    """Level and REQUIRETLS out of ``tls=``; the line of the same connection adds what it knows.

    Parameters
    ----------
    field
        The value of ``tls=``.
    line
        What the TLS line of this connection told, where there was one.
    session, sent
        Whether there was a session, and whether the message went through it.
    outcome
        Why it did not.

    Notes
    -----
    ``may?`` on a message that was sent is cleartext over a cached connection. A `!` on the first part means that
    the connection was not used: its TLS was had where a certificate is what was wrong.
    """
    first, _slash, second = field.partition(b"/")
    name, _colon, actual = first.strip(b"!?").partition(b":")
    reached = actual or name
    undecided, violated = first.endswith(b"?"), first.startswith(b"!")
    level: TlsLevel | None
    if not session:
        line = level = None
    elif reached == b"none":
        line, level = None, TlsLevel.NONE
    elif line is not None:
        level = line.level
    elif outcome in NEVER_ENCRYPTED or (undecided and sent and name == b"may"):
        level = TlsLevel.NONE
    elif undecided or reached == b"unknown" or (violated and outcome not in BAD_CERTIFICATE):
        level = TlsLevel.UNKNOWN
    elif violated or reached not in _VERIFYING:
        level = TlsLevel.ENCRYPTED
    else:
        level = TlsLevel.VERIFIED
    wish, broken, strict = _wish(second, certain=not (undecided or violated), reached=reached)
    return Tls(
        level,
        name or None,
        line.version if line else None,
        line.cipher if line else None,
        line.bits if line else None,
        wish,
        broken,
        strict,
    )


def _wish(part: bytes, *, certain: bool, reached: bytes) -> tuple[RequireTls, bool | None, Told | None]:
    """What became of the REQUIRETLS wish, whether it was violated, and whether RFC 8689 was met in full."""
    if not part:
        return RequireTls.NOT_REQUESTED, None, None
    broken = part.startswith(b"!")
    name, _colon, actual = part.strip(b"!?").partition(b":")
    if name != b"requiretls":
        return RequireTls.UNKNOWN, broken, None
    if part.endswith(b"?"):
        return RequireTls.UNDECIDED, broken, None
    wish = _REQUIRETLS.get(actual, RequireTls.UNKNOWN)
    if wish is RequireTls.NO_CERTIFICATE_MATCH and certain and not broken:
        return RequireTls.SENT_UNAUTHENTICATED, broken, Told.NO
    # halfdane: the MX record was not secured; any other level that gets here checks no certificate
    return wish, broken, _STRICT.get(reached, Told.NO) if wish is RequireTls.SENT else None
