"""How the words of truth.csv map to ours, many to one, and what a table of deliveries must say about each recipient.

The truth knows the settings of the sender and what the receiver saw; a log does not. What it cannot tell is given to
`disagreements` by the test of that mail server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]
Told = Mapping[str, frozenset[Any]]


def _words(text: str) -> frozenset[Any]:
    return frozenset(None if word == "missing" else word for word in text.split())


ACTIONS: Told = {
    "delivered": _words("delivered"),
    "bounced": _words("failed"),
    "expired": _words("failed"),
    "deferred": _words("delayed"),
    "held": _words("delayed"),
}
LEVELS: Told = {
    "": _words("missing none encrypted anonymous untrusted trusted verified unknown"),  # no mail went through
    "none": _words("none"),
    "encrypted": _words("encrypted anonymous untrusted"),  # not checked, or not trusted
    "trusted": _words("trusted"),
    "verified": _words("verified"),
}
_CERTIFICATE = _words(
    "certificate_expired certificate_host_mismatch certificate_not_trusted certificate_unverified tlsa_invalid"
    " validation_failure sts_mx_mismatch"
)
_DELIVERED = _words("ok")
_NOT_TLS = _words("not_tls")
_NO_REQUIRETLS = _words("requiretls_not_supported")
OUTCOMES: Told = {
    "delivered_cleartext": _DELIVERED,
    "delivered_requiretls_not_supported_by_server_cleartext": _DELIVERED,
    "delivered_requiretls_not_supported_by_server_tls": _DELIVERED,
    "delivered_requiretls_satisfied": _DELIVERED,
    "delivered_requiretls_sent_without_cert_match": _DELIVERED,
    "delivered_requiretls_with_half_dane": _DELIVERED,
    "delivered_tls_authenticated": _DELIVERED,
    "delivered_tls_unauthenticated": _DELIVERED,
    "connection_refused": _NOT_TLS,
    "connection_timeout": _NOT_TLS,
    "dns_no_such_domain": _NOT_TLS,
    "dns_temporary_failure": _NOT_TLS,
    "greylisted": _NOT_TLS,
    "held_by_local_policy": _NOT_TLS,
    "null_mx": _NOT_TLS,
    "policy_rejection_not_tls": _NOT_TLS,
    "remote_lost_connection": _NOT_TLS,
    "service_refused_by_banner": _NOT_TLS,
    "user_unknown": _NOT_TLS,
    "certificate_not_verified": _CERTIFICATE,
    "server_certificate_not_acceptable_for_requiretls": _CERTIFICATE,
    "dane_lookup_failed": _words("dnssec_invalid dane_required"),
    "remote_says_encryption_needed": _words("peer_requires_tls"),
    "sender_config_disables_cert_matching": _words("local_policy"),
    "server_lacks_requiretls": _NO_REQUIRETLS,
    "server_rejected_recipient_requiretls": _NO_REQUIRETLS,
    "server_rejected_requiretls_at_mail_from": _NO_REQUIRETLS,
    "tls_required_but_not_offered": _words("starttls_not_supported"),
    "server_lacks_starttls_for_requiretls": _words("starttls_not_supported"),
    "starttls_refused_by_server": _words("starttls_refused"),
    "server_refused_starttls_for_requiretls": _words("starttls_refused"),
    "tls_handshake_failed": _words("tls_handshake_failed tls_version_too_low"),
}
STATUS_WORDS: Told = {"expired": _words("expired force-expired"), "held": _words("held")}


def last_rows(frame: Any) -> dict[tuple[str, str], Row]:
    """The last row of each (queue id, recipient), missing values as `None`."""
    plain = frame.astype(object).where(frame.notna(), None)
    return {(row["queue_id"], row["recipient"]): row for row in plain.to_dict("records")}


def disagreements(
    frame: Any,
    truth: list[dict[str, str]],
    *,
    untold: Callable[[Row, Row], set[str]] = lambda said, row: set(),
    **words: Told,
) -> list[str]:
    """What the last row of a recipient says otherwise than the truth does.

    Parameters
    ----------
    frame
        Deliveries of one sender.
    truth
        Its rows of truth.csv.
    untold
        The columns of one recipient that this log cannot tell, or that the truth has wrong: from the row of the truth
        and ours.
    words
        What this log says instead of some words of `LEVELS`, `OUTCOMES`, `ACTIONS` or `STATUS_WORDS`.
    """
    final = last_rows(frame)
    maps = {
        "action": ACTIONS, "tls_level": LEVELS, "tls_outcome": OUTCOMES, "status_word": STATUS_WORDS,
    }  # fmt: skip
    maps = {column: {**table, **words.get(column, {})} for column, table in maps.items()}
    wrong = []
    for said in truth:
        who = said["queue_id"], said["recipient"]
        row = final.get(who)
        if row is None:
            wrong.append(f"{who}: no row")
            continue
        expected = {
            "action": maps["action"][said["final_action"]],
            "tls_outcome": maps["tls_outcome"][said["reason_category"]],
            "sender": frozenset({said["envelope_from"]}),
        }
        if said["final_action"] in maps["status_word"]:
            expected["status_word"] = maps["status_word"][said["final_action"]]
        elif row["attempted"]:
            expected["tls_level"] = maps["tls_level"][said["tls_used"]]
        if said["enhanced_status"]:
            expected["enhanced_code"] = frozenset({said["enhanced_status"]})
        if said["tls_logged"] == "yes" and row["attempted"]:
            expected["tls_version"] = frozenset({said["tls_protocol"]})
            expected["cipher"] = frozenset({said["tls_cipher"]})
        if row["relay_host"] is not None and row["attempted"]:
            expected["relay_host"] = frozenset(
                {row["relay_host"] if row["relay_host"] in said["relay"] else ""}
            )
        if row["message_id"] is not None:
            expected["message_id"] = frozenset({said["message_id"].strip("<>")})
        wrong += [
            f"{who} {said['final_action']} {said['reason_category']}: {column} {row[column]!r},"
            f" not {sorted(map(str, expected[column]))}"
            for column in sorted(expected.keys() - untold(said, row))
            if row[column] not in expected[column]
        ]
    return wrong
