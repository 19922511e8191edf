"""A few days of own mail, for plots: deliveries and connections of two servers."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd

from rtls_analysis.schema import CONNECTIONS, DELIVERIES, to_frame

AT = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)
WORDS = ["sent", "sent_unauthenticated", "not_offered", "no_starttls", "no_certificate_match", "undecided"]
REASONS = ["starttls_refused", "certificate_expired", "not_tls"]


def own_mail() -> pd.DataFrame:
    """Sixty messages over three days: some delivered at once, some later, some returned, some still queued."""
    rows: list[dict[str, Any]] = []
    for number in range(60):
        domain = f"d{number % 4}.test"
        word = WORDS[number % len(WORDS)]
        row = {
            "logged_at": AT + dt.timedelta(days=number % 3, minutes=number),
            "mta": "postfix",
            "reporting_host": f"out{number % 2}",
            "queue_id": f"Q{number}",
            "sender_domain": f"own{number % 2}.test",
            "recipient": f"x@{domain}",
            "recipient_domain": domain,
            "relay_host": f"mx.{domain}",
            "transport": "smtp",
            "attempted": True,
            "action": "delivered",
            "tls_level": ("none", "encrypted", "trusted", "verified")[number % 4],
            "tls_version": (None, "TLSv1.2", "TLSv1.3", "TLSv1.3")[number % 4],
            "cipher": (None, "ECDHE-RSA-AES128-GCM-SHA256", "TLS_AES_256_GCM_SHA384", None)[number % 4],
            "requiretls": word,
            "requiretls_strict": "yes" if word == "sent" else None,
            "tls_outcome": "ok",
            "delay_seconds": float(number),
        }
        bad = {"action": "delayed", "tls_outcome": REASONS[number % 3], "delay_seconds": 0.5}
        if number % 5 == 0:
            rows.append({**row, **bad})
            row = {**row, "logged_at": row["logged_at"] + dt.timedelta(minutes=30)}
        if number % 7 == 0:
            row |= {**bad, "action": "failed", "requiretls_violated": True}
        if number % 11 == 0:
            row |= bad
        rows.append(row)
    return to_frame(DELIVERIES, rows)


def own_connections() -> pd.DataFrame:
    """The connections of some of that mail."""
    groups = ["X25519MLKEM768", "X25519", "prime256v1"]
    return to_frame(
        CONNECTIONS,
        [
            {
                "logged_at": AT + dt.timedelta(days=number % 3),
                "mta": "postfix",
                "reporting_host": "out0",
                "process_id": str(number),
                "queue_id": f"Q{number}",
                "relay_host": f"mx.d{number % 4}.test",
                "tls_level": "trusted",
                "tls_version": "TLSv1.3",
                "cipher": "TLS_AES_256_GCM_SHA384",
                "reused": False,
                "tls_outcome": "ok" if number % 4 else "tlsa_invalid",
                "text": f"established key-exchange {groups[number % 3]} server-signature",
            }
            for number in range(30)
        ],
    )
