"""Can a REQUIRETLS message go this way? The decision table of RFC 8689 §4.2.1, with its obstacles."""

from __future__ import annotations

from enum import StrEnum


class Obstacle(StrEnum):
    """What stops a REQUIRETLS message at one address, in the order in which a sender would meet it."""

    DNS_ERROR = "dns_error"
    NO_MX = "no_mx"
    UNREACHABLE = "unreachable"  # no session worth a verdict
    STS_FORBIDS_HOST = "sts_forbids_host"
    MX_UNAUTHENTICATED = "mx_unauthenticated"
    NO_STARTTLS = "no_starttls"
    TLS_FAILED = "tls_failed"
    TLS_TOO_OLD = "tls_too_old"
    DANE_MISMATCH = "dane_mismatch"
    CERTIFICATE_UNVERIFIED = "certificate_unverified"
    REQUIRETLS_NOT_OFFERED = "requiretls_not_offered"
    UNKNOWN = "unknown"  # nothing sure, something could not be told
    NONE = ""  # no obstacle
