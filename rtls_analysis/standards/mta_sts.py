"""MTA-STS: the record, the policy, and which MX hosts it names (RFC 8461)."""

from __future__ import annotations

from enum import StrEnum


class StsRecordState(StrEnum):
    """What the TXT answer at ``_mta-sts.<domain>`` amounts to (RFC 8461 §3.1)."""

    VALID = "valid"  # exactly one record, within the grammar
    ABSENT = "absent"  # no text there begins as an MTA-STS record does
    MULTIPLE = "multiple"  # two or more: senders act as if there were none
    MALFORMED = "malformed"  # one record, outside the grammar
    DNS_FAILURE = "dns_failure"
    NOT_TESTED = "not_tested"


class StsMode(StrEnum):
    """The mode of a policy (RFC 8461 §3.2, §5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class StsPolicyState(StrEnum):
    """What fetching and reading the policy came to (RFC 8461 §3.3)."""

    VALID = "valid"
    NO_RECORD = "no_record"
    DNS_FAILURE = "dns_failure"
    NO_ADDRESS = "no_address"
    ADDRESS_REFUSED = "address_refused"
    CONNECT_FAILED = "connect_failed"
    TIMEOUT = "timeout"
    TLS_FAILED = "tls_failed"
    CERTIFICATE_INVALID = "certificate_invalid"
    REDIRECT = "redirect"
    HTTP_STATUS = "http_status"
    CONTENT_TYPE = "content_type"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    NOT_TESTED = "not_tested"
