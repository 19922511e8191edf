"""Certificates as an MTA judges them: path, dates and name, each with its reason (RFC 5280, 9525, 6125)."""

from __future__ import annotations

from enum import StrEnum


class PkixState(StrEnum):
    """Verdict on a presented chain, the first that holds."""

    NOT_TESTED = "not_tested"  # no TLS
    ANONYMOUS = "anonymous"  # no certificate
    MALFORMED = "malformed"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    SELF_SIGNED = "self_signed"
    BAD_SIGNATURE = "bad_signature"
    UNTRUSTED = "untrusted"  # no path to a root for another reason
    NAME_MISMATCH = "name_mismatch"
    VALID = "valid"
