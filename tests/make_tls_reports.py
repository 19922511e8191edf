"""Make ``data/tls-reports``: what the senders of ``data/postfix-3.11`` would report of their sessions (RFC 8460).

``python -m tests.make_tls_reports [FOLDER]``, run by hand when those logs are made anew. Sessions are counted from the logs,
and the policies are those that the scan of the servers found. One report is a plain JSON file, one is packed, one comes as
the mail in which it is sent.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pandas as pd

from rtls_analysis.outcomes import TlsOutcome
from rtls_analysis.samples import load_sample
from rtls_analysis.store import Snapshot

FOLDER = Path(__file__).parents[1] / "data" / "tls-reports"
NOT_TLS = {TlsOutcome.NOT_TLS, TlsOutcome.LOCAL_POLICY, TlsOutcome.UNKNOWN}  # RFC 8460 has no word for these
RESULT_TYPES = {
    TlsOutcome.STARTTLS_REFUSED: "starttls-not-supported",
    TlsOutcome.DNSSEC_INVALID: "dnssec-invalid",
    TlsOutcome.STARTTLS_NOT_SUPPORTED: "starttls-not-supported",
    TlsOutcome.CERTIFICATE_EXPIRED: "certificate-expired",
    TlsOutcome.CERTIFICATE_NOT_TRUSTED: "certificate-not-trusted",
    TlsOutcome.CERTIFICATE_HOST_MISMATCH: "certificate-host-mismatch",
    TlsOutcome.TLSA_INVALID: "tlsa-invalid",
}


def report(sender: str, connections: pd.DataFrame, scan: Snapshot) -> dict[str, Any]:
    """Write the report of one sender about the day of its log."""
    day = f"{connections['logged_at'].min():%Y-%m-%d}"
    return {
        "organization-name": sender,
        "date-range": {"start-datetime": f"{day}T00:00:00Z", "end-datetime": f"{day}T23:59:59Z"},
        "contact-info": f"postmaster@{sender}",
        "report-id": f"{day}.{sender}",
        "policies": [
            part for part in (policy(row, connections, scan) for row in mx_rows(scan)) if part is not None
        ],
    }


def mx_rows(scan: Snapshot) -> list[dict[str, Any]]:
    """Give the domains that have an MX host of their own, with it."""
    mx = scan.mx.merge(scan.hosts[["mx_host", "tlsa", "addresses"]], on="mx_host")
    own = mx[mx["mx_host"] == "mx." + mx["domain"]]
    return own.to_dict("records")


def policy(row: dict[str, Any], connections: pd.DataFrame, scan: Snapshot) -> dict[str, Any] | None:
    """Write the part about one domain; None where no session was."""
    own = connections[connections["relay_host"] == row["mx_host"]]
    own = own[~own["tls_outcome"].isin(list(NOT_TLS))]
    if own.empty:
        return None
    signed = scan.domains.set_index("domain").at[row["domain"], "mx_dnssec"] == "secure"
    tlsa = list(row["tlsa"]) if signed and row["tlsa"] is not None else []
    head: dict[str, Any] = {
        "policy-type": "tlsa" if tlsa else "no-policy-found",
        "policy-domain": row["domain"],
    }
    if tlsa:
        head |= {"policy-string": tlsa, "mx-host": [row["mx_host"]]}
    outcomes = Counter(own["tls_outcome"].astype(str))
    good = outcomes.pop(TlsOutcome.OK, 0)
    details = [
        {
            "result-type": RESULT_TYPES.get(TlsOutcome(outcome), "validation-failure"),
            "sending-mta-ip": "10.25.1.250",
            "receiving-mx-hostname": row["mx_host"],
            "receiving-ip": row["addresses"][0],
            "failed-session-count": count,
            **({} if TlsOutcome(outcome) in RESULT_TYPES else {"failure-reason-code": outcome}),
        }
        for outcome, count in sorted(outcomes.items())
    ]
    summary = {
        "total-successful-session-count": good,
        "total-failure-session-count": sum(outcomes.values()),
    }
    return {"policy": head, "summary": summary, **({"failure-details": details} if details else {})}


def mail_of(data: dict[str, Any], to: str) -> bytes:
    """Write the mail by which a report travels (RFC 8460 §5.3)."""
    sender = data["organization-name"]
    mail = EmailMessage(policy=SMTP.clone(max_line_length=78))
    mail["From"] = f"postmaster@{sender}"
    mail["To"] = f"tls@{to}"
    mail["Date"] = "Thu, 26 Nov 2026 00:10:00 +0000"
    mail["Message-ID"] = f"<{data['report-id']}>"
    mail["Subject"] = f"Report Domain: {to} Submitter: {sender} Report-ID: <{data['report-id']}>"
    mail["TLS-Report-Domain"] = to
    mail["TLS-Report-Submitter"] = sender
    mail["TLS-Required"] = "No"
    mail.set_content(f"This is an aggregate TLS report from {sender}.\n")
    mail.make_mixed()
    packed = gzip.compress(json.dumps(data).encode(), mtime=0)
    mail.add_attachment(
        packed, maintype="application", subtype="tlsrpt+gzip", filename=f"{sender}!{to}.json.gz"
    )
    mail.replace_header(
        "Content-Type", f'multipart/report; report-type="tlsrpt"; boundary="{mail.get_boundary()}"'
    )
    return bytes(mail)


def main() -> None:
    """Make the reports, one for each sender."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    connections, deliveries = load_sample("postfix-3.11-connections"), load_sample("postfix-3.11")
    scan: Snapshot = load_sample("postfix-3.11-scan")
    senders = deliveries.dropna(subset=["sender_domain"]).drop_duplicates("reporting_host")
    for place, (host, sender) in enumerate(
        zip(senders["reporting_host"], senders["sender_domain"], strict=True)
    ):
        data = report(sender, connections[connections["reporting_host"] == host], scan)
        name = f"{sender}!{data['report-id'].partition('.')[0]}"
        match place:
            case 0:
                (folder / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            case 1:
                (folder / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))
            case _:
                (folder / f"{name}.eml").write_bytes(mail_of(data, "receiver.test"))


if __name__ == "__main__":
    main()
