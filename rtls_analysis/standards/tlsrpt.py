"""SMTP TLS Reporting: the record that asks for reports (RFC 8460 §3)."""

from __future__ import annotations

from enum import StrEnum


class TlsrptState(StrEnum):
    """What the TXT answer at ``_smtp._tls.<domain>`` amounts to (RFC 8460 §3)."""

    VALID = "valid"
    ABSENT = "absent"
    MULTIPLE = "multiple"
    MALFORMED = "malformed"
    DNS_FAILURE = "dns_failure"
    NOT_TESTED = "not_tested"
