"""SMTP TLS Reporting: the record that asks for reports (RFC 8460 §3)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rtls_analysis.standards.mta_sts import record_fields


class TlsrptState(StrEnum):
    """What the TXT answer at ``_smtp._tls.<domain>`` amounts to (RFC 8460 §3)."""

    VALID = "valid"
    ABSENT = "absent"
    MULTIPLE = "multiple"
    MALFORMED = "malformed"
    DNS_FAILURE = "dns_failure"
    NOT_TESTED = "not_tested"


@dataclass(frozen=True, slots=True)
class TlsrptRecordCheck:
    """A verdict with its evidence: `rua` is set exactly when `state` is VALID."""

    state: TlsrptState
    rua: tuple[str, ...] = ()  # mailto: and https: addresses, in order
    detail: str = ""  # why there is no usable record, in a phrase


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_VALUE = re.compile(r"[\x21-\x3a\x3c\x3e-\x7e]+")
# what may stand in a URI (RFC 3986 §2)
_ADDRESS = re.compile(r"[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+")
_MAILTO = re.compile(r"mailto:[^@?]+@[^@?]+(\?.*)?", re.IGNORECASE)
_HTTPS = re.compile(r"https://[^/?#]+.*", re.IGNORECASE)


def check_tlsrpt_record(texts: Sequence[str]) -> TlsrptRecordCheck:
    """Judge the TXT answer at ``_smtp._tls.<domain>`` as a sender does (RFC 8460 §3).

    Parameters
    ----------
    texts
        The TXT strings of the answer; empty when the name does not exist.

    Notes
    -----
    As in MTA-STS the grammar allows white space before the first ``;`` and the prose does not: we follow the
    prose. A repeated field keeps its first value. Schemes other than mailto and https are passed over where one
    of these two is left.

    Examples
    --------
    >>> check_tlsrpt_record(["v=TLSRPTv1; rua=mailto:tls@example.org,https://example.org/r"]).rua
    ('mailto:tls@example.org', 'https://example.org/r')
    """
    records = [text for text in texts if text.startswith("v=TLSRPTv1;")]
    if not records:
        return TlsrptRecordCheck(TlsrptState.ABSENT)
    if len(records) > 1:
        return TlsrptRecordCheck(TlsrptState.MULTIPLE, detail=f"{len(records)} records")
    values: dict[str, str] = {}
    for field in record_fields(records[0]):
        name, sign, value = field.partition("=")
        if not sign or _NAME.fullmatch(name) is None or (name != "rua" and _VALUE.fullmatch(value) is None):
            return _malformed(f"not a field: {field[:80]!r}")
        values.setdefault(name, value)
    return _check_rua(values["rua"]) if "rua" in values else _malformed("no rua")


def _malformed(detail: str) -> TlsrptRecordCheck:
    return TlsrptRecordCheck(TlsrptState.MALFORMED, detail=detail)


def _check_rua(value: str) -> TlsrptRecordCheck:
    addresses: list[str] = []
    for address in (part.strip(" \t") for part in value.split(",")):
        if "!" in address or _ADDRESS.fullmatch(address) is None:
            return _malformed(f"not an address for reports: {address[:80]!r}")
        if _MAILTO.fullmatch(address) or _HTTPS.fullmatch(address):
            addresses.append(address)
        elif ":" not in address or address.lower().startswith(("mailto:", "https:")):
            return _malformed(f"not an address for reports: {address[:80]!r}")
    if not addresses:
        return _malformed(f"neither mailto: nor https: in rua: {value[:80]!r}")
    return TlsrptRecordCheck(TlsrptState.VALID, tuple(addresses))
