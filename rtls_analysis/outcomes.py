"""The closed vocabularies of what can happen, those of the standards among them.

The words of one standard live in its module and are offered here too; the words that logs, mail and scans
share live here. Each is a `StrEnum`: a word compares equal to its text.
"""

from __future__ import annotations

from enum import StrEnum

from rtls_analysis.standards.certificates import PkixState
from rtls_analysis.standards.dane import DaneState, TlsaState
from rtls_analysis.standards.dns_answer import DnsSecurity, DnsStatus
from rtls_analysis.standards.mta_sts import StsMode, StsPolicyState, StsRecordState
from rtls_analysis.standards.mx import MxState
from rtls_analysis.standards.received import HopTls
from rtls_analysis.standards.requiretls import Obstacle
from rtls_analysis.standards.smtp_session import FeatureState, SessionOutcome, SessionStage
from rtls_analysis.standards.tls_report import SumsDiffer
from rtls_analysis.standards.tlsrpt import TlsrptState

__all__ = [
    "NOT_CONTACTED",
    "Action",
    "DaneState",
    "DnsSecurity",
    "DnsStatus",
    "DomainShare",
    "FeatureState",
    "HopTls",
    "MxState",
    "Obstacle",
    "PkixState",
    "Purpose",
    "RequireTls",
    "SecuredBy",
    "SessionOutcome",
    "SessionStage",
    "StsMode",
    "StsPolicyState",
    "StsRecordState",
    "SumsDiffer",
    "TlsLevel",
    "TlsOutcome",
    "TlsaState",
    "TlsrptState",
    "Told",
]


class DomainShare(StrEnum):
    """How many of a domain's addresses are a yes, over all its MX hosts."""

    ALL = "all"
    SOME = "some"  # at least one
    NONE = "none"  # each is a no, or failed
    UNKNOWN = "unknown"  # no yes, and one or more without a conclusion
    NOT_TESTED = "not_tested"  # by our choice: opted out, refused, not sampled, resolver not trusted
    NOT_APPLICABLE = "not_applicable"  # no address to ask


class SecuredBy(StrEnum):
    """How the name of an MX host is secured against forgery for one domain (RFC 8689 §4.2.1)."""

    DNSSEC = "dnssec"
    MTA_STS = "mta_sts"
    IMPLICIT_MX = "implicit_mx"  # there was no MX lookup to secure
    NONE = "none"
    UNKNOWN = "unknown"


class Purpose(StrEnum):
    """What a connection was made for."""

    PROBE = "probe"
    POLICY = "policy"


class Told(StrEnum):
    """A fact that a source may leave untold."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Action(StrEnum):
    """What happened to a recipient (RFC 3464 §2.3.3)."""

    DELIVERED = "delivered"  # in a log: accepted by the next hop or by the mailbox
    RELAYED = "relayed"
    EXPANDED = "expanded"
    DELAYED = "delayed"
    FAILED = "failed"


class TlsLevel(StrEnum):
    """What TLS the sender achieved; missing where there was no session."""

    NONE = "none"  # cleartext
    ENCRYPTED = "encrypted"  # TLS; how far the peer was authenticated is not told
    ANONYMOUS = "anonymous"
    UNTRUSTED = "untrusted"
    TRUSTED = "trusted"  # a good certificate, but identity not enforced, or the log does not tell
    VERIFIED = "verified"  # by DANE, by a policy or by a level that demands it
    UNKNOWN = "unknown"  # a session; TLS not told


class RequireTls(StrEnum):
    """What became of the REQUIRETLS wish in one delivery attempt (RFC 8689 §4.2.1)."""

    NOT_REQUESTED = "not_requested"
    SENT = "sent"
    SENT_UNAUTHENTICATED = "sent_unauthenticated"
    NOT_OFFERED = "not_offered"
    NO_STARTTLS = "no_starttls"
    NO_ENCRYPTION = "no_encryption"
    NO_CERTIFICATE_MATCH = "no_certificate_match"
    UNDECIDED = "undecided"
    UNKNOWN = "unknown"  # the log has no word for it


class TlsOutcome(StrEnum):
    """Why TLS decided, or did not decide, a delivery: the types of RFC 8460 §4.3 and what they lack."""

    OK = "ok"  # it went, however weakly
    STARTTLS_NOT_SUPPORTED = "starttls_not_supported"
    CERTIFICATE_HOST_MISMATCH = "certificate_host_mismatch"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CERTIFICATE_NOT_TRUSTED = "certificate_not_trusted"
    VALIDATION_FAILURE = "validation_failure"
    TLSA_INVALID = "tlsa_invalid"  # unusable, or none matches
    DNSSEC_INVALID = "dnssec_invalid"  # the TLSA lookup failed
    DANE_REQUIRED = "dane_required"
    STS_POLICY_FETCH_ERROR = "sts_policy_fetch_error"
    STS_POLICY_INVALID = "sts_policy_invalid"
    STS_WEBPKI_INVALID = "sts_webpki_invalid"
    STARTTLS_REFUSED = "starttls_refused"  # offered, then refused
    STS_MX_MISMATCH = "sts_mx_mismatch"
    REQUIRETLS_NOT_SUPPORTED = "requiretls_not_supported"
    MX_UNAUTHENTICATED = "mx_unauthenticated"
    TLS_HANDSHAKE_FAILED = "tls_handshake_failed"
    TLS_VERSION_TOO_LOW = "tls_version_too_low"
    CERTIFICATE_UNVERIFIED = "certificate_unverified"  # the log says no more
    PEER_REQUIRES_TLS = "peer_requires_tls"
    LOCAL_POLICY = "local_policy"  # the sender's own settings or TLS library
    NOT_TLS = "not_tls"  # failed for another reason
    UNKNOWN = "unknown"


NOT_CONTACTED = frozenset(
    {
        SessionOutcome.ADDRESS_REFUSED,
        SessionOutcome.OPTED_OUT,
        SessionOutcome.NOT_SAMPLED,
        SessionOutcome.FAMILY_UNAVAILABLE,
    }
)
"""Outcomes of sessions that were never tried, by our choice or for lack of an address family."""
