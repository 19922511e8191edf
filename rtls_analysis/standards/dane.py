"""DANE for SMTP: which TLSA records count, and whether a presented chain matches them (RFC 6698, 7671, 7672)."""

from __future__ import annotations

from enum import StrEnum


class TlsaState(StrEnum):
    """Verdict on the TLSA RRset of a host (RFC 7672 §2.2)."""

    USABLE = "usable"
    UNUSABLE = "unusable"  # secure, but no record that a client may use
    NONE = "none"
    INSECURE = "insecure"
    ERROR = "error"
    NOT_TESTED = "not_tested"


class DaneState(StrEnum):
    """Verdict on a chain against the secure TLSA records of the host, whoever's MX it is."""

    NONE = "none"
    UNUSABLE = "unusable"
    MATCH = "match"
    MISMATCH = "mismatch"
    ERROR = "error"
    NOT_TESTED = "not_tested"  # usable records but no chain seen, or DNS not trusted
