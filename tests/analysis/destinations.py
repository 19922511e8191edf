"""The destinations of the real-server lab as a scan would have found them, from the list of what they were set up to do.

The evidence is written down from `destinations.csv`; what it comes to is judged by the package.
"""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path
from typing import Any

from rtls_analysis.outcomes import (
    DaneState,
    DnsSecurity,
    FeatureState,
    MxState,
    PkixState,
    SessionOutcome,
    SessionStage,
    StsRecordState,
    TlsaState,
)
from rtls_analysis.providers import provider_of
from rtls_analysis.schema import SNAPSHOT_TABLES, to_frame
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.standards.requiretls import Rules
from rtls_analysis.store import Snapshot
from rtls_analysis.verdicts import Judge, rules_record

AT = dt.datetime(2026, 11, 23, 16, 30, tzinfo=dt.UTC)
ZONES = {
    "signed": DnsSecurity.SECURE,
    "unsigned": DnsSecurity.INSECURE,
    "bogus": DnsSecurity.ERROR,
    "nxdomain": DnsSecurity.INSECURE,
}
CERTIFICATES = {
    "valid": PkixState.VALID,
    "expired": PkixState.EXPIRED,
    "wrongname": PkixState.NAME_MISMATCH,
    "selfsigned": PkixState.SELF_SIGNED,
}
TLSA = {
    "ok311": TlsaState.USABLE,
    "ok201": TlsaState.USABLE,
    "mismatch": TlsaState.USABLE,
    "unusable": TlsaState.UNUSABLE,
    "bogus": TlsaState.ERROR,
    "none": TlsaState.NONE,
}
DANE = {
    "pass": DaneState.MATCH,
    "mx-unsigned(half)": DaneState.MATCH,
    "fail": DaneState.MISMATCH,
    "unusable": DaneState.UNUSABLE,
    "tlsa-bogus": DaneState.ERROR,
    "none": DaneState.NONE,
    "no-tls": DaneState.NOT_TESTED,
}
NO_SESSION = {
    "no_banner": (SessionOutcome.TIMEOUT, SessionStage.GREETING),
    "banner_554": (SessionOutcome.BLOCKED, SessionStage.GREETING),
    "refused": (SessionOutcome.REFUSED, SessionStage.CONNECT),
    "starttls_454": (SessionOutcome.GREYLISTED, SessionStage.STARTTLS),
    "tls_stall": (SessionOutcome.TIMEOUT, SessionStage.HANDSHAKE),
}


def snapshot_of(path: Path) -> Snapshot:
    """Make the snapshot: one row of the list per MX host."""
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    tables: dict[str, list[dict[str, Any]]] = {table.name: [] for table in SNAPSHOT_TABLES}
    judge = Judge(Rules(), Roots(()), {}.__getitem__)
    for name in dict.fromkeys(line["domain"] for line in lines):
        own = [line for line in lines if line["domain"] == name and line["mx"] and line["zone"] != "bogus"]
        domain = _domain(next(line for line in lines if line["domain"] == name), len(own))
        mx = [_mx(line) for line in own]
        hosts = [_host(line) for line in own]
        sessions = [_session(line) for line in own]
        result = judge.domain(
            domain,
            mx,
            {row["mx_host"]: row for row in hosts},
            {row["mx_host"]: [row] for row in sessions},
        )
        tables["domains"].append({**domain, **result.domain})
        tables["mx"] += [{**row, **verdict} for row, verdict in zip(mx, result.mx, strict=True)]
        tables["hosts"] += hosts
        tables["sessions"] += sessions
    frames = {table.name: to_frame(table, tables[table.name]) for table in SNAPSHOT_TABLES}
    manifest = {"rules": rules_record(Rules()), "started_at": AT.isoformat(), "state": "complete"}
    return Snapshot(None, manifest, b"", frames)


def _domain(line: dict[str, str], hosts: int) -> dict[str, Any]:
    states = {"nxdomain": MxState.NXDOMAIN, "nullmx": MxState.NULL_MX}
    state = states.get(line["daemon"], MxState.MX)
    if line["zone"] == "bogus":
        state = MxState.DNS_FAILURE
    row: dict[str, Any] = {
        "domain": line["domain"],
        "mx_state": state,
        "mx_dnssec": ZONES[line["zone"]],
        "mx_hosts": hosts,
        "addresses": hosts,
        "provider": provider_of(line["mx"]) if line["mx"] else None,
        "sts_record": StsRecordState.ABSENT,
        "scanned_at": AT,
    }
    if line["mta_sts"] != "none":
        mode = "testing" if line["mta_sts"] == "testing" else "enforce"
        named = "elsewhere.test" if line["mta_sts"] == "mxmismatch" else line["mx"]
        row |= {
            "sts_record": StsRecordState.VALID,
            "sts_http_status": 404 if line["mta_sts"] == "fetchfail" else 200,
            "sts_content_type": "text/plain",
            "sts_policy_text": f"version: STSv1\nmode: {mode}\nmx: {named}\nmax_age: 86400\n",
        }
    return row


def _mx(line: dict[str, str]) -> dict[str, Any]:
    return {
        "domain": line["domain"],
        "preference": int(line["pref"]),
        "mx_host": line["mx"],
        "mx_state": MxState.MX,
        "provider": provider_of(line["mx"]),
    }


def _host(line: dict[str, str]) -> dict[str, Any]:
    signed = line["zone"] == "signed" or line["tlsa"] != "none"
    return {
        "mx_host": line["mx"],
        "canonical_name": line["mx"],
        "addresses": [line["ip"]],
        "addresses_dnssec": DnsSecurity.SECURE if signed else DnsSecurity.INSECURE,
        "mx_state": MxState.MX,
        "tlsa_state": TLSA[line["tlsa"]],
        "tlsa_base": line["mx"],
        "provider": provider_of(line["mx"]),
    }


def _session(line: dict[str, str]) -> dict[str, Any]:
    behaviour = "refused" if line["daemon"] == "refused" else line["behaviour"]
    row: dict[str, Any] = {
        "mx_host": line["mx"],
        "address": line["ip"],
        "port": 25,
        "started_at": AT,
        "attempts": 1,
        "starttls": FeatureState.UNKNOWN,
        "requiretls_tls": FeatureState.NOT_TESTED,
        "pkix": PkixState.NOT_TESTED,
        "dane": DaneState.NOT_TESTED if TLSA[line["tlsa"]] is TlsaState.USABLE else DaneState.NONE,
    }
    if behaviour in NO_SESSION:
        outcome, stage = NO_SESSION[behaviour]
        return {**row, "outcome": outcome, "stage": stage}
    if behaviour in ("tls_abort", "tls_garbage"):
        return {
            **row,
            "outcome": SessionOutcome.TLS_FAILED,
            "stage": SessionStage.HANDSHAKE,
            "starttls": FeatureState.FAILED,
        }
    row |= {"outcome": SessionOutcome.COMPLETED, "stage": SessionStage.QUIT}
    if line["starttls"] == "no":
        return {**row, "starttls": FeatureState.NO}
    pkix = CERTIFICATES[line["cert"]]
    named = pkix is not PkixState.NAME_MISMATCH
    offered = FeatureState.YES if line["requiretls"] == "yes" else FeatureState.NO
    return {
        **row,
        "starttls": FeatureState.YES,
        "tls_version": {"TLSv1": "TLSv1.0"}.get(line["tls_max"], line["tls_max"]),
        "requiretls_tls": offered,
        "pkix": pkix,
        "name_match": named,
        "dns_id_match": named,
        "dane": DANE[line["dane"]],
    }
