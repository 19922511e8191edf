"""One message: is it a notice, and what does it say of which recipient (RFC 3464, RFC 6533, and what is sent instead).

A message is taken apart only as far as needed: the delivery-status part, the words for people, the header of the
message that came back. The outermost report counts; what a returned message holds is nobody's news any more.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from rtls_analysis.outcomes import Action, TlsOutcome, Told
from rtls_analysis.read import bounce_families, bounce_json
from rtls_analysis.read.bounce_families import UNNAMED, Failure
from rtls_analysis.read.bounce_json import JsonNotice, read_json_notice
from rtls_analysis.read.mail_parts import (
    Part,
    all_fields,
    cut_header,
    decode_words,
    parameter,
    parts,
    read_fields,
    unfold,
    unify_newlines,
)
from rtls_analysis.read.tls_reasons import reason_in_code, reason_in_words
from rtls_analysis.schema import Returned
from rtls_analysis.standards.dsn import (
    DeliveryStatus,
    Fields,
    TypedValue,
    find_enhanced_code,
    find_reply_code,
    parse_delivery_status,
    parse_recipient,
    parse_status,
    parse_typed,
)
from rtls_analysis.standards.mail_date import find_date
from rtls_analysis.standards.names import NameProblem, to_ascii

MAX_NESTING = 3  # a forwarded notice in a forwarded notice

Row = dict[str, Any]
"""Values of `bounces` by column, without the source."""


class MailKind(StrEnum):
    """What a message is, to a reader of notices."""

    DSN = "dsn"  # about a failure or a success
    DELAY = "delay"  # about a delay, and nothing else
    AUTO_REPLY = "auto_reply"  # somebody is away (RFC 3834)
    COMPLAINT = "complaint"  # somebody did not want it (RFC 5965)
    RECEIPT = "receipt"  # somebody read it (RFC 8098)
    TLS_REPORT = "tls_report"  # RFC 8460
    ORDINARY = "ordinary"
    UNREADABLE = "unreadable"  # no mail, or nothing of it could be made out


@dataclass(frozen=True, slots=True)
class Notice:
    """What one message says: its kind, its rows, and why a message that should have some has none."""

    kind: MailKind
    rows: Sequence[Row] = ()
    detail: str = ""


NAMES_NOBODY = "a notice that names no recipient"
MAX_RECIPIENTS = 10_000
TOO_MANY = f"only the first {MAX_RECIPIENTS:,} recipients of a notice"

_STATUS_TYPES = frozenset({"message/delivery-status", "message/global-delivery-status"})
_MESSAGE_TYPES = frozenset({"message/rfc822", "message/global", "text/rfc822"})
_HEADER_TYPES = frozenset(
    {"text/rfc822-headers", "text/rfc822-header", "message/rfc822-headers", "message/global-headers"}
)
_RETURNED_TYPES = _MESSAGE_TYPES | _HEADER_TYPES
_UNSAID_TYPES = frozenset(
    {"text/plain", "application/octet-stream", "message/delivery_status", "message/status"}
)
_WORDS_TYPES = frozenset({"text/plain", "text/html", "text/enriched"})
_OTHER_REPORTS = {
    b"feedback-report": MailKind.COMPLAINT,
    b"disposition-notification": MailKind.RECEIPT,
    b"tlsrpt": MailKind.TLS_REPORT,
}
_OTHER_PARTS = {
    "message/feedback-report": MailKind.COMPLAINT,
    "message/disposition-notification": MailKind.RECEIPT,
    "message/global-disposition-notification": MailKind.RECEIPT,
    "application/tlsrpt+gzip": MailKind.TLS_REPORT,
    "application/tlsrpt+json": MailKind.TLS_REPORT,
}


def read_notice(data: bytes) -> Notice:
    """Tell what a message is, and if it is a notice, what it says of which recipient.

    Whatever the bytes are, nothing raises, and time and memory grow no faster than they do.
    """
    return _read(unify_newlines(data), MAX_NESTING)


def _read(data: bytes, nesting: int) -> Notice:
    header, body = cut_header(data)
    fields = read_fields(header)
    if not fields:
        return Notice(MailKind.UNREADABLE, detail="no header" if data.strip() else "empty")
    leaves = parts(fields, body)
    report_type = parameter(fields.get(b"content-type", b""), b"report-type").lower()
    if (kind := _OTHER_REPORTS.get(report_type)) is not None:
        return Notice(kind)
    message = _Message(header, fields, leaves, nesting)
    for leaf in leaves:
        if leaf.media_type in _STATUS_TYPES:
            form = "rfc6533" if leaf.media_type == "message/global-delivery-status" else "rfc3464"
            return message.notice_with_fields(parse_delivery_status(leaf.text()), form=form)
        if (kind := _OTHER_PARTS.get(leaf.media_type)) is not None:
            return Notice(kind)
    if notice := message.notice_in_words(is_report=report_type == b"delivery-status"):
        return notice
    if rows := [row for inner in message.enclosed() for row in inner.rows]:  # forwarded, or a digest
        return Notice(_kind_of(rows), rows)
    return Notice(MailKind.AUTO_REPLY if message.is_auto_reply() else MailKind.ORDINARY)


class _Message:
    """A message that may be a notice; what it holds is looked up only when somebody asks."""

    def __init__(self, header: bytes, fields: dict[bytes, bytes], leaves: list[Part], nesting: int) -> None:
        self.header, self.fields, self.leaves, self.nesting = header, fields, leaves, nesting
        self._words: tuple[str, str] | None = None

    def field(self, name: bytes) -> str:
        """A field of the message's own header as text; empty where it is not there."""
        return unfold(self.fields[name]) if name in self.fields else ""

    def words(self) -> tuple[str, str]:
        """The words for people, and the message that is returned below them in the same text."""
        if self._words is None:
            text = ""
            for leaf in self.leaves:
                if leaf.media_type in _WORDS_TYPES:
                    text = leaf.text()
                    if leaf.media_type == "text/html":
                        text = _without_tags(text)
                    if text.strip():
                        break
                elif leaf.media_type in _STATUS_TYPES or leaf.media_type in _RETURNED_TYPES:
                    break
            self._words = bounce_families.cut_returned(text)
        return self._words

    def enclosed(self) -> Iterator[Notice]:
        """What the messages inside this one are: attached, or forwarded in its text."""
        if not self.nesting:
            return
        for leaf in self.leaves:
            if leaf.media_type in _MESSAGE_TYPES:
                yield _read(leaf.message(), self.nesting - 1)
            elif leaf.media_type in _WORDS_TYPES and b"orward" in leaf.body[: bounce_families.MAX_TEXT]:
                text = leaf.text()[: bounce_families.MAX_TEXT]
                if (mark := _FORWARDED.search(text)) is not None:
                    inner = _QUOTED.sub("", text[mark.end() :])
                    yield _read(inner.encode("utf-8", "replace"), self.nesting - 1)

    # -- a notice with fields -------------------------------------------------------------------------------------

    def notice_with_fields(self, status: DeliveryStatus, *, form: str) -> Notice:
        """The rows of a delivery status."""
        recipients = [(fields, address) for fields in status.recipients if (address := _address_of(fields))]
        if not recipients:
            return self.notice_in_words(is_report=True, form=form, status=status) or Notice(
                MailKind.DSN, detail=NAMES_NOBODY
            )
        shared = self._shared(status.message, form)
        rows: dict[tuple[Any, ...], Row] = {}
        reasons: dict[str, str] | None = None
        for fields, address in recipients[:MAX_RECIPIENTS]:
            diagnostic = parse_typed(fields.get("diagnostic-code", ""))
            said = ""
            if not diagnostic.value or _words_may_tell_more(diagnostic, fields.get("status", "")):
                if reasons is None:
                    reasons = self._reasons([other for _, other in recipients[:MAX_RECIPIENTS]])
                said = reasons.get(address.lower(), "")
            row = shared | _row_of_fields(fields, address, diagnostic.type, diagnostic.value, said)
            rows.setdefault((address, row["action"], row["enhanced_code"]), row)
        return _finished(list(rows.values()), TOO_MANY if len(recipients) > MAX_RECIPIENTS else "")

    def _reasons(self, recipients: Sequence[str]) -> dict[str, str]:
        failures = bounce_families.find_reasons(self.words()[0], recipients, only_theirs=True)
        return {failure.recipient.lower(): failure.reason for failure in failures}

    # -- a notice in words ----------------------------------------------------------------------------------------

    def notice_in_words(
        self, *, is_report: bool, form: str = "", status: DeliveryStatus | None = None
    ) -> Notice | None:
        """The rows of a bounce whose recipients no delivery-status part names; `None` where it is no bounce."""
        notice, returned = self.words()
        if notice[:200].lstrip().startswith("{") and (told := read_json_notice(notice)) is not None:
            return self._notice_in_json(told)
        known = [
            match[0]
            for value in all_fields(self.header, b"x-failed-recipients")
            for match in bounce_families.find_addresses(unfold(value))
        ]
        if not (is_report or known or self._seems_a_bounce(notice)):
            return None
        if status is None and (inner := self._fields_as_text(notice)) is not None:
            return self.notice_with_fields(inner, form="rfc3464")
        if known:
            failures = bounce_families.find_reasons(notice, list(dict.fromkeys(known)), only_theirs=False)
        else:
            senders = self._addresses_in(b"from", b"reply-to", b"sender")
            writers = self._addresses_in(b"to")  # who may have written to themselves
            failures = bounce_families.find_failures(notice, senders + writers)
            failures = failures or bounce_families.find_failures(notice, senders)
        if not failures and returned and self.nesting:
            inner_notice = _read(returned.encode("utf-8", "replace"), self.nesting - 1)
            if inner_notice.rows:
                return inner_notice
        if not failures and (is_report or _NOT_DELIVERED.search(notice)):
            failures = self._only_addressee()
        if not failures:
            return Notice(MailKind.DSN, detail=NAMES_NOBODY)
        shared = self._shared(
            status.message if status is not None else {},
            form or bounce_families.family_of(self.header.decode("latin-1"), notice),
        )
        if shared["reporting_mta"] is None and (writer := _REPORTS.search(notice)) is not None:
            shared["reporting_mta"] = writer[1]
        delayed = bounce_families.says_delayed(f"{self.field(b'subject')}\n{notice}")
        everything = notice if len(failures) == 1 else ""
        return _finished(
            [shared | _row_of_words(failure, everything, delayed=delayed) for failure in failures]
        )

    def _notice_in_json(self, told: JsonNotice) -> Notice:
        if told.is_complaint:
            return Notice(MailKind.COMPLAINT)
        notice = self.notice_with_fields(told.status, form=bounce_json.FORM)
        for row in notice.rows:
            row["original_message_id"] = told.message_id
        return notice

    def _fields_as_text(self, notice: str) -> DeliveryStatus | None:
        """Delivery-status fields among the words, or in a part that does not say what it is."""
        texts = [notice]
        texts += [
            leaf.text()[: bounce_families.MAX_TEXT]
            for leaf in self.leaves[1:]
            if leaf.media_type in _UNSAID_TYPES and len(leaf.body) <= bounce_families.MAX_TEXT
        ]
        for text in texts:
            if (begin := _FIELDS_AS_TEXT.search(text)) is not None:
                status = parse_delivery_status(_MARGIN.sub("", text[begin.start() :]))
                if any(_address_of(fields) for fields in status.recipients):
                    return status
        return None

    def _seems_a_bounce(self, notice: str) -> bool:
        """Whether the sender or the subject is that of a notice, and the words are those of a failure."""
        if not (bounce_families.says_failed(notice) or find_enhanced_code(notice, "45")):
            return False
        path = self.fields.get(b"return-path", b"x").strip().lower()
        if path in (b"<>", b"<mailer-daemon>") or _PROGRAM.search(self.field(b"from")):
            return True
        subject = self.field(b"subject")
        if b"x-mlserver" not in self.fields and (
            _REPLIED.match(subject) or not _ABOUT_FAILURE.search(subject)
        ):
            return False
        returns = any(leaf.media_type in _RETURNED_TYPES for leaf in self.leaves)
        return returns or bounce_families.family_of(self.header.decode("latin-1"), notice) != UNNAMED

    def _addresses_in(self, *names: bytes) -> list[str]:
        return [match[0] for name in names for match in bounce_families.find_addresses(self.field(name))]

    def _only_addressee(self) -> list[Failure]:
        original = read_fields(self._original()[0])
        addressees = [match[0] for match in bounce_families.find_addresses(unfold(original.get(b"to", b"")))]
        return [Failure(addressees[0], "")] if len(addressees) == 1 else []

    def is_auto_reply(self) -> bool:
        """Whether a program answered for somebody (RFC 3834)."""
        if self.fields.get(b"auto-submitted", b"no").strip().lower().startswith(b"auto"):
            return True
        if b"x-autoreply" in self.fields or b"x-autorespond" in self.fields:
            return True
        return _AWAY.match(self.field(b"subject")) is not None

    # -- what all rows of a notice share --------------------------------------------------------------------------

    def _original(self) -> tuple[bytes, bytes, bool]:
        """Header and body of the message that came back, and whether it was said to be a header alone."""
        for leaf in self.leaves:
            if leaf.media_type in _RETURNED_TYPES:
                return *cut_header(leaf.message()), leaf.media_type in _HEADER_TYPES
        if all(leaf.media_type.startswith("text/") for leaf in self.leaves):
            return *cut_header(self.words()[1].encode("utf-8", "replace")), False
        return b"", b"", False

    def _shared(self, message: Fields, form: str) -> Row:
        header, body, is_header = self._original()
        original = read_fields(header) if header else {}
        returned = Returned.FULL if body.strip() and not is_header else Returned.HEADERS
        if not original:
            returned = Returned.NONE
        date = find_date(self.field(b"date"))
        envelope_id = message.get("original-envelope-id", "").strip()
        return {
            "reported_at": date.moment if date is not None else None,
            "reporting_mta": parse_typed(message.get("reporting-mta", "")).value or None,
            "reporting_software": _software(self.header, message, form),
            "original_message_id": _message_id(original.get(b"message-id", b"")),
            "original_envelope_id": envelope_id or None,
            "requiretls_requested": _requiretls_requested(header, original),
            "tls_required_no": _tls_required_no(original, self.fields),
            "returned": returned,
            "redacted": returned is Returned.HEADERS if original else None,
            "form": form,
        }


def _finished(rows: list[Row], detail: str = "") -> Notice:
    """The notice of these rows; a refusal that speaks of REQUIRETLS tells that the message asked for it."""
    if any("requiretls" in (row["diagnostic"] or "").lower() for row in rows):
        for row in rows:
            row["requiretls_requested"] = Told.YES
    return Notice(_kind_of(rows), rows, detail)


def _kind_of(rows: Sequence[Row]) -> MailKind:
    return MailKind.DELAY if all(row["action"] is Action.DELAYED for row in rows) else MailKind.DSN


# -- is it a notice -----------------------------------------------------------------------------------------------

_AWAY = re.compile(
    r"(?:auto(?:mat\w+)?[ -]?(?:re(?:ply|sponse)|antwort)|out of (?:the )?office|abwesen|vacation)",
    re.IGNORECASE,
)
_PROGRAM = re.compile(
    r"mailer-daemon|mail[ _.-]?daemon|post[_.-]?master|microsoftexchange|mail delivery|(?:mail|system) administrator"
    r"|mail ?system|delivery subsystem|<>|bounce",
    re.IGNORECASE,
)
_ABOUT_FAILURE = re.compile(
    r"undeliver|returned mail|return(?:ing|ed) (?:mail|message|to sender)|bounce|non[- ]?(?:delivery|remis)"
    r"|deliver\w*.{0,30}(?:fail|status|error|problem|delay|report)|fail(?:ed|ure).{0,30}(?:deliver|notice|mail)"
    r"|mail (?:system )?error|could not (?:be )?(?:deliver|send)|(?:error|problem).{0,20}sending|unzustellbar"
    r"|メールエラー|не доставлено",
    re.IGNORECASE,
)
_REPLIED = re.compile(r"(?:re|fwd?|aw|wg|tr|sv|vs|rv)[ \t]*:", re.IGNORECASE)
_FORWARDED = re.compile(
    r"^[ \t>]*+(?:begin forwarded message|-+ ?forwarded message)[^\n]*+\n", re.IGNORECASE | re.MULTILINE
)
_QUOTED = re.compile(r"^>[> ]?", re.MULTILINE)
_REPORTS = re.compile(
    r"(?:program at|mail system at host|program at host|Generating server:)\s+([\w-]+(?:\.[\w-]+)+)"
)
_REPLIES = re.compile(r"(?:\bhost|\btalking to) ([\w-]+(?:\.[\w-]+)+)")
_NOT_DELIVERED = re.compile(r"(?:could|can|was|were|not|unable|fail)[^.\n]{0,40}deliver", re.IGNORECASE)
_FIELDS_AS_TEXT = re.compile(
    r"^[ \t|]{0,8}(?:Reporting-MTA|Final-Recipient|Original-Recipient)[ \t]*:.*\n(?:.*\n){0,12}?"
    r"[ \t|]{0,8}(?:Action|Status|Final-Recipient|Diagnostic-Code)[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_MARGIN = re.compile(r"^[ \t|]{1,8}(?=[A-Za-z-]+[ \t]*:)", re.MULTILINE)
_UNSEEN = re.compile(r"<(/?)(?:style|script|head)\b[^<>]{0,2000}>", re.IGNORECASE)
_TAGS = re.compile(r"<(/?(?:p|br|div|tr|li|h\d|table|td|th)\b)?[^<>]{0,2000}>", re.IGNORECASE)


def _without_tags(text: str) -> str:
    text = text[: 4 * bounce_families.MAX_TEXT]
    shown, begin, hidden = [], 0, False
    for tag in _UNSEEN.finditer(text):
        if not hidden:
            shown.append(text[begin : tag.start()])
        begin, hidden = tag.end(), not tag[1]
    text = "".join(shown) + ("" if hidden else text[begin:])
    return html.unescape(_TAGS.sub(lambda match: "\n" if match[1] else " ", text))


# -- one recipient ------------------------------------------------------------------------------------------------

_ACTIONS = {
    "failed": Action.FAILED, "failure": Action.FAILED, "fail": Action.FAILED,
    "delayed": Action.DELAYED, "deferred": Action.DELAYED,
    "delivered": Action.DELIVERED, "deliverable": Action.DELIVERED,
    "relayed": Action.RELAYED, "expanded": Action.EXPANDED,
}  # fmt: skip
_BY_CLASS = {"2": Action.DELIVERED, "4": Action.DELAYED, "5": Action.FAILED}
_WENT = frozenset({Action.DELIVERED, Action.RELAYED, Action.EXPANDED})


def _address_of(fields: Fields) -> str:
    for name in ("final-recipient", "x-actual-recipient", "original-recipient"):
        value = fields.get(name, "")
        if "=?" in value and "@" not in value:
            value = decode_words(value)
        if address := parse_recipient(value):
            return address
    return ""


def _row_of_fields(fields: Fields, address: str, kind: str, diagnostic: str, said: str) -> Row:
    """The columns of one recipient; `said` is what the words for people say of it."""
    status = parse_status(fields.get("status", ""))
    text = diagnostic or said
    inner = find_enhanced_code(text)
    action = _action(fields.get("action", ""), status or inner)
    return {
        "remote_mta": parse_typed(fields.get("remote-mta", "")).value or None,
        "original_recipient": parse_recipient(fields.get("original-recipient", "")) or None,
        "final_recipient": address,
        "recipient_domain": _domain_of(address),
        "action": action,
        "enhanced_code": status,
        "reply_code": find_reply_code(text),
        "diagnostic": text or None,
        "diagnostic_type": kind or None,
        "diagnostic_code": inner,
        "tls_outcome": _tls_outcome(action, diagnostic, said, inner, status),
    }


def _row_of_words(failure: Failure, everything: str, *, delayed: bool) -> Row:
    """The columns of a recipient whom only words name: no field tells a code, so that of the words stands.

    `everything` is the whole notice where it is about nobody else.
    """
    reason = failure.reason
    code = find_enhanced_code(reason, "45") or find_enhanced_code(everything, "45")
    action = Action.DELAYED if delayed else Action.FAILED
    reply_code = find_reply_code(reason, "45") or find_reply_code(everything, "45")
    remote = _REPLIES.search(reason) if reply_code is not None else None
    return {
        "remote_mta": remote[1] if remote is not None else None,
        "final_recipient": failure.recipient,
        "recipient_domain": _domain_of(failure.recipient),
        "action": action,
        "enhanced_code": code,
        "reply_code": reply_code,
        "diagnostic": reason or None,
        "diagnostic_code": code,
        "tls_outcome": _tls_outcome(action, reason, "", code),
    }


def _action(word: str, code: str | None) -> Action | None:
    """The action without its comment; where the field is not there, what the class of the code says."""
    words = word.replace("(", " ").split()
    action = _ACTIONS.get(words[0].lower().rstrip(".,;")) if words else None
    return _BY_CLASS.get(code[0]) if action is None and code else action


@lru_cache(maxsize=10_000)
def _domain(text: str) -> str | None:
    try:
        return to_ascii(text)
    except NameProblem:
        return text.lower().rstrip(".") or None


def _domain_of(address: str) -> str | None:
    at = address.rfind("@")
    return _domain(address[at + 1 :]) if at >= 0 else None


# -- why TLS decided ----------------------------------------------------------------------------------------------

# Words that stand where a reason should: that it was given up, not why.
_NO_REASON = re.compile(
    "|".join(
        (
            r"network error on destination mxs", r"envelope expired", r"retry timeout exceeded", r"tried all mxs",
            r"too many failures", r"failure reason:", r"error:", r"all hosts (?:for \S+ )?have been failing[^:]*",
            r"delay reason:", r"(?:delivery )?time expired", r"delivery temporarily suspended:?", r"deferred(?!:)",
            r"host \S+ ?\[[^\]]*\]", r"message could not be delivered for[^:]*", r"message will be deleted from queue",
            r"-----[^-]*-----", r"warning: message still undelivered[^:]*", r"will keep trying until[^:]*",
        )
    ),
    re.IGNORECASE,
)  # fmt: skip
_WORD = re.compile(r"[^\W\d_]{2}")
# sendmail's, for whatever went wrong with TLS; it remembers a host that turned it away at STARTTLS, and at the next
# try says no more than "Deferred"
_LOCAL_RULE = re.compile(r"454 4\.7\.0 authentication failure")
_BARE_DEFERRED = re.compile(r"\.\.\. Deferred(?!:)")


def _words_may_tell_more(diagnostic: TypedValue, status: str) -> bool:
    """Whether the words for people may know more: of a server's own reason, or of a reply about security."""
    if diagnostic.type == "x-postfix":  # they are the same
        return False
    text = diagnostic.value
    if _LOCAL_RULE.match(text):
        return True
    if find_reply_code(text) is not None and (find_enhanced_code(text) or status)[1:4] != ".7.":
        return False
    return reason_in_words(text) is TlsOutcome.NOT_TLS


def _tls_outcome(action: Action | None, diagnostic: str, said: str, *codes: str | None) -> TlsOutcome:
    """By the field, then by the words, then by the code: codes alone do not identify a cause."""
    if action in _WENT:
        return TlsOutcome.OK
    texts = (diagnostic, said)
    if _LOCAL_RULE.match(diagnostic):
        if _BARE_DEFERRED.search(said):
            return TlsOutcome.STARTTLS_REFUSED
        texts = (said, diagnostic)
    for text in texts:
        if text and (outcome := reason_in_words(text)) is not TlsOutcome.NOT_TLS:
            return outcome
    for code in codes:
        if (outcome := reason_in_code(code)) is not TlsOutcome.NOT_TLS:
            return outcome
    told = any(_WORD.search(_NO_REASON.sub("", text)) for text in texts)
    return TlsOutcome.NOT_TLS if told else TlsOutcome.UNKNOWN


# -- the original and the reporter --------------------------------------------------------------------------------

_ID = re.compile(rb"<([^<>]*)>")
_TLS_REQUIRED_NAMES = (b"tls-required", b"requiretls", b"require-tls")  # the drafts' too


def _message_id(value: bytes) -> str | None:
    match = _ID.search(value)
    return (match[1] if match else value).strip().decode("utf-8", "replace") or None


def _requiretls_requested(header: bytes, original: Mapping[bytes, bytes]) -> Told:
    """Whether a private mark in the returned header says so; the lack of one says nothing."""
    if original.get(b"require-tls-esmtp", b"").strip().lower() == b"yes":  # Postfix
        return Told.YES
    if b"(requiretls)" in header or b"with esmtpS" in header:  # mox; Exim 4.92, whose esmtps is ordinary TLS
        return Told.YES
    return Told.UNKNOWN


def _tls_required_no(original: Mapping[bytes, bytes], own: Mapping[bytes, bytes]) -> Told:
    """Whether the original had ``TLS-Required: No`` (RFC 8689 §3); Postfix copies the field to its notice."""
    for fields in (original, own):
        for name in _TLS_REQUIRED_NAMES:
            if name in fields:
                return Told.YES if fields[name].strip().lower() == b"no" else Told.NO
    return Told.NO if original else Told.UNKNOWN


_SOFTWARE = (
    (b"(Postfix", "Postfix"), (b"(Exim ", "Exim"), (b"(Haraka", "Haraka"), (b"OpenSMTPD", "OpenSMTPD"),
    (b"Microsoft SMTP Server", "Microsoft Exchange"), (b"(qmail ", "qmail"), (b"Stalwart", "Stalwart"),
    (b"PowerMTA", "PowerMTA"), (b"KumoMTA", "KumoMTA"), (b"Apache James", "Apache James"), (b"Domino", "Domino"),
)  # fmt: skip
_SENDMAIL = re.compile(rb"\((?:8\.\d+\.\d+|Sendmail)[^)\n]{0,60}/8\.\d+")


def _software(header: bytes, message: Fields, form: str) -> str | None:
    """The program that wrote the notice: by its own fields, else by the oldest Received field of the notice."""
    if "x-postfix-queue-id" in message:
        return "Postfix"
    oldest = header[max(header.rfind(b"\nReceived:"), 0) :][:1000]
    for mark, name in _SOFTWARE:
        if mark in oldest:
            return name
    if _SENDMAIL.search(oldest):
        return "Sendmail"
    return None if form.startswith("rfc") or form == UNNAMED else form
