"""Bounces that a mail service tells of in JSON, sent by mail: notifications of Amazon SES, bare or wrapped by SNS."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rtls_analysis.standards.dsn import DeliveryStatus, find_enhanced_code

FORM = "amazon-ses"


@dataclass(frozen=True, slots=True)
class JsonNotice:
    """What a notification tells: fields as a delivery status would have them; none for a complaint."""

    status: DeliveryStatus
    message_id: str
    is_complaint: bool = False


def read_json_notice(text: str) -> JsonNotice | None:
    """Read a notification out of a text that has one; `None` for any other text.

    >>> text = '{"notificationType": "Complaint", "mail": {"messageId": "1"}}'
    >>> read_json_notice(text).is_complaint
    True
    """
    if "notificationType" not in text and "eventType" not in text:
        return None
    try:
        record, _end = json.JSONDecoder().raw_decode(text[text.index("{") :])
        if isinstance(record.get("Message"), str):  # SNS, by its protocol email-json
            record = json.loads(record["Message"])
        kind = record.get("notificationType") or record["eventType"]
        message_id = str(record["mail"]["messageId"])
        if kind == "Complaint":
            return JsonNotice(DeliveryStatus(), message_id, is_complaint=True)
        return JsonNotice(_status_of(record["bounce" if kind == "Bounce" else "delivery"]), message_id)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _status_of(about: dict[str, Any]) -> DeliveryStatus:
    reply = str(about.get("smtpResponse", ""))
    told = about.get("bouncedRecipients") or [
        {"emailAddress": address, "action": "delivered", "diagnosticCode": f"smtp; {reply}"}
        for address in about["recipients"]
    ]
    recipients = []
    for one in told:
        diagnostic = str(one.get("diagnosticCode", ""))
        recipients.append(
            {
                "final-recipient": str(one["emailAddress"]),
                "action": str(one.get("action", "failed")),
                "status": str(one.get("status") or find_enhanced_code(diagnostic) or ""),
                "diagnostic-code": diagnostic,
            }
        )
    return DeliveryStatus({"reporting-mta": str(about.get("reportingMTA", ""))}, tuple(recipients))
