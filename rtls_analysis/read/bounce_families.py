"""Bounces that carry no delivery-status fields: who failed and why, from the words written for people.

Programs word their notices in a few ways, and the ways are read here rather than the programs: a list of addresses
behind a sentence that announces it, a label with an address, a dialogue with its ``RCPT TO``, an address in a sentence
about the failure. The family only names the program where its words give it away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MAX_TEXT = 64 << 10  # characters of a notice that are looked at
MAX_RECIPIENTS = 10_000
MAX_REASON = 4000
UNNAMED = "text"  # the family of words that name no program


def _either(*phrases: str, whole: bool = False) -> re.Pattern[str]:
    pattern = "|".join(phrases)
    flags = re.IGNORECASE | re.MULTILINE
    return re.compile(rf"^(?:{pattern})$" if whole else pattern, flags)


@dataclass(frozen=True, slots=True)
class Failure:
    """A recipient, and what the notice says of it; empty where it says nothing."""

    recipient: str
    reason: str


# -- where the notice ends and the returned message begins --------------------------------------------------------

_MARK = _either(
    r"[ \t>|*#]*+-*+ ?(?:below|here|this|following|attached|enclosed|included)\b[^\n]{0,50}\b(?:copy|copies|headers?)\b"
    r"[^\n]{0,20}\b(?:message|mail|headers?)\b[^\n]*+",
    r"[ \t>|*#]*+[-=_]{2,} ?[^\n]{0,30}(?:message|mail)(?: (?:text|headers?|body|contents?))*+"
    r" (?:follows?|is following|info|copy)\b[^\n]*+",
    r"[ \t>|*#]*+[-=_]{2,} ?(?:start of )?"
    r"(?:original|returned|unsent|undelivered|failed|bounced|forwarded|your|header|the)\b"
    r"[^\n]{0,30}(?:message|mail|headers?)[^\n]{0,30}",
    r"[ \t]*+(?:the |your )?(?:original|returned|bounced|unsent|undelivered) (?:e-?mail|message|mail)"
    r"(?: (?:text|headers?|body|contents?|follows?|below|attached|is|as))*+ ?[.:]?[ \t]*+",
    r"[ \t]*+(?:message|mail) (?:headers?|text|contents?|body)(?: (?:follows?|below))?[.:][ \t]*+",
    r"[ \t]*+-*+ ?here is your returned mail[^\n]*+",
    r"[ \t]*+-*+ ?returned mail follows[^\n]*+",
    whole=True,
)
_HEADER_BLOCK = re.compile(
    r"^(?:Received|Return-Path|Message-ID|DKIM-Signature|Delivered-To|X-Envelope-From|From|Date) ?:[^\n]*+\n"
    r"(?:[ \t][^\n]*+\n)*+"
    r"(?:[A-Za-z][A-Za-z0-9-]{1,40}:[^\n]*+(?:\n[ \t][^\n]*+)*+(?:\n|\Z)){3,}+",
    re.MULTILINE,
)


def cut_returned(text: str) -> tuple[str, str]:
    """A notice without the message that it returns below its own words, and that message; empty where none is."""
    text = text[: 4 * MAX_TEXT]
    block = _HEADER_BLOCK.search(text)
    mark = _MARK.search(text)
    if mark is None or (block is not None and block.start() < mark.start()):
        end = begin = len(text) if block is None else block.start()
    else:
        end, begin = mark.start(), mark.end() if block is None else block.start()
    return text[:end][:MAX_TEXT], text[begin:].strip("\n")


# -- addresses ----------------------------------------------------------------------------------------------------

_LOCAL_PART = r"""(?:"[^"\n]{1,64}+"|[^\s<>()\[\],;:"@\\|\x00-\x1f]{1,128}+)"""
_HOST = r"(?:[\w-]{1,63}+(?:\.[\w-]{1,63}+){0,20}+|\[[^\]\s]{2,60}\])"
_ADDRESS = f"{_LOCAL_PART}@{_HOST}"
_ANY_ADDRESS = re.compile(rf"(?<![\w.+=/~-]){_ADDRESS}")


def find_addresses(text: str) -> Iterator[re.Match[str]]:
    """Mail addresses in a text, one after the other."""
    return _ANY_ADDRESS.finditer(text[:MAX_TEXT])


_AT_START = re.compile(
    r"(?P<indent>[ \t]*+)(?:[>|*#-]{1,3} )?"
    r"(?P<code>(?:[245]\d\d[ -])?(?:[245]\.\d{1,3}\.\d{1,3} )?)"
    rf"(?P<open>[<\"'(]?)(?:mailto:|rfc822; ?|smtp:)?(?P<address>{_ADDRESS})[>\"')]?(?P<rest>[^\n]*+)",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(rf"[ \t]*<({_ADDRESS})>")
_LABEL = re.compile(
    r"[ \t]*+(?:[>|*#-]{1,3} ?)?(?P<label>[^\n:=<@]{1,90}?)[ \t]*[:=][ \t]*[<\"'\[(]{0,2}(?:mailto:)?"
    rf"(?P<address>{_ADDRESS})",
    re.IGNORECASE,
)
_RECIPIENT_LABEL = re.compile(
    r"(?:(?:intended|failed|final|original|undeliver\w+|invalid|bad|rejected|bounced|the|following|your|envelope|e-?mail"
    r"|mail|recipient'?s?|unknown|delivery|actual) )*+"
    r"(?:recipients?(?:\(s\))?(?: (?:address|e-?mail|mail address))?|address(?:ee|es|ed to)?|rcpt(?: to)?|user|mailbox"
    r"|account|userid)(?: (?:is|was|are))?",
    re.IGNORECASE,
)
_TO_LABEL = re.compile(r"(?:x-)?(?:envelope-)?to", re.IGNORECASE)
_RCPT = re.compile(rf"RCPT[ \t]+TO:[ \t]*<?({_ADDRESS})>?", re.IGNORECASE)
_IN_SENTENCE = re.compile(
    r"\b(?:to|for|recipient|address|user|account|mailbox|by|of|in)[ \t\n]{1,3}"
    r"(?:(?:the|mailbox|address|recipient|user) )*"
    rf"[<\"'\[(]{{0,2}}(?P<address>{_ADDRESS})",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\n[ \t]*\n|(?<=[.!?])[ \n]")

# -- what the words say -------------------------------------------------------------------------------------------

_FAILED = _either(
    r"un-?deliver(?:able|ed)",
    r"(?:not|n['’]t|never|(?:unable|failed|impossible) to)\s+(?:be\s+|yet\s+|been\s+|able to\s+){0,3}"
    r"(?:deliver|sen[dt]\b|reach|receive|accept|process|relay|forward|complet|find)",
    r"deliver(?:y|ing|ed)?\b[^.\n]{0,60}"
    r"\b(?:fail|abort|error|problem|unsuccess|impossible|suspend|delay|refus|reject|attempts)",
    r"(?:fail|error|problem|trouble|unable|could not|refus|reject)\w*\b[^.\n]{0,60}\bdeliver",
    r"(?:reject|refus)\w* (?:the |your )?(?:recipient|address|message|mail)",
    r"(?:permanent|fatal|transient|persistent|temporary|delivery) (?:fatal |non-fatal )?(?:error|failure)",
    r"(?:mail|message|address\(?e?s?\)?|recipients?)\b[^.\n]{0,50}\b(?:fail|reject|refus|bounce|return|block|undeliver|delayed"
    r"|invalid)",
    r"fail(?:ed|ure) (?:recipients?|address|reasons?|notice)",
    r"(?:user|mailbox|recipient|address|account|host|domain|inbox)\b[^.\n]{0,40}\b(?:unknown|full|invalid|unavailable|disabled"
    r"|exceed|over|does(?: not|n't)|no longer|suspended|not (?:found|exist|listed|known|recognized))",
    r"(?:unknown|no such|invalid|illegal) (?:\w+ ){0,3}(?:user|mailbox|recipient|address|account|host|domain)",
    r"incorrectly constructed",
    r"malformed address",
    r"duplicated message-id",
    r"loop (?:detected|alert)",
    r"not (?:a )?member",
    r"transcript of session",
    r"over quota",
    r"return(?:ed|ing) (?:mail|to sender|message)",
    r"bounced?\b",
    r"nicht (?:zugestellt|\w+ werden)",
    r"non (?:remis|distribu|recapit|consegn)",
    r"no (?:se pudo|entregad)",
    r"onbestelbaar",
)
_DELAYED = _either(
    r"\bdelayed\b",
    r"still (?:being )?(?:retr|undelivered|in the queue|trying)",
    r"not yet been delivered",
    r"will (?:keep|continue|retry|be retried)",
    r"warning:? (?:message|could)",
    r"temporary failure report",
    r"delivery attempts will continue",
    r"no action is required",
    r"do not need to re-?send",
    r"transient non-fatal",
)
_GIVEN_UP = _either(
    r"permanent", r"given up", r"giving up", r"will be deleted", r"could not be delivered for", r"returning message",
    r"has failed", r"no longer",
)  # fmt: skip
_ANNOUNCES = _either(
    r"(?:following|these|this|listed|below)[ \t]+(?:\w+[ \t]+){0,2}"
    r"(?:address|recipient|user|destination|mailbox|persons?\b|people|group)",
    r"(?:address|recipient)(?:es|s|\(e?s\))?[^\n]{0,60}(?:fail|fatal|error|could|reject|incorrect|undeliver|not )",
    r"(?:deliver|sen[dt]|reach)\w*[ \t]+(?:(?:your|this|the|mail|message|e-?mail) )*(?:to|for)\b[^\n@]{0,60}$",
    r"fail(?:ed|ure) (?:recipients?|address|reasons?)",
    r"of its$",
    r"recipients? *:[ \t]*$",
)
_DETAILS = _either(r"transcript of session", r"technical details", r"diagnostic information")
_SOMEBODY_ELSE = _either(
    r"contact", r"assistance", r"further help", r"support\b", r"questions?\b", r"postmaster at", r"mail from", r"from:",
    r"sender", r"sent by", r"reply[- ]to", r"abuse@", r"http",
)  # fmt: skip


def says_failed(text: str) -> bool:
    """Whether a text speaks of mail that could not be delivered."""
    return _FAILED.search(text) is not None


def says_delayed(text: str) -> bool:
    """Whether a notice is about mail that is still tried."""
    return _DELAYED.search(text) is not None and _GIVEN_UP.search(text) is None


# -- who failed ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Line:
    """A line with a recipient in it, and what stands behind the address."""

    number: int
    indent: int
    address: str
    rest: str


def find_failures(notice: str, strangers: Iterable[str] = ()) -> list[Failure]:
    """Find the recipients that a notice says failed, with the reason of each.

    Parameters
    ----------
    notice
        The words of the notice, without the message that it returns.
    strangers
        Addresses that are no recipients: the notice's own sender and addressee.

    Returns
    -------
    list[Failure]
        In the order of the text, each recipient once. Where no words stand with a recipient, all are its reason.
    """
    lines = notice.split("\n")
    others = {address.lower() for address in strangers}
    listed = _listed(lines, others) or _labelled(lines, others)
    begins = {line.number for line in listed}
    failures = [Failure(line.address, _reason_of(line, lines, begins)) for line in listed]
    if not failures:
        failures = [Failure(address, "") for address in _in_sentences(notice, others)]
    return _each_once(failures, lines, listed)


def find_reasons(notice: str, recipients: Sequence[str], *, only_theirs: bool) -> list[Failure]:
    """Find what a notice says of recipients that are told elsewhere: in its fields, or in ``X-Failed-Recipients``.

    Parameters
    ----------
    notice
        The words of the notice, without the message that it returns.
    recipients
        Whom to look for.
    only_theirs
        Words that stand with a recipient, or in a dialogue below, count; otherwise, where there are none, all words.
    """
    lines = notice.split("\n")
    listed = _first_mentions(lines, recipients)
    begins = {line.number for line in listed}
    reasons = {line.address.lower(): _reason_of(line, lines, begins) for line in listed}
    failures = [Failure(address, reasons.get(address.lower(), "")) for address in recipients]
    if only_theirs:
        return [_with_dialogue(failure, lines, alone=len(failures) == 1) for failure in failures]
    return _each_once(failures, lines, listed)


def _each_once(failures: Sequence[Failure], lines: Sequence[str], listed: Sequence[_Line]) -> list[Failure]:
    by_name: dict[str, Failure] = {}
    everything = ""
    for failure in failures[:MAX_RECIPIENTS]:
        if failure.recipient.lower() in by_name:
            continue
        if not any(letter.isalpha() for letter in failure.reason):
            behind = listed[-1].number + 1 if listed else 0
            everything = everything or _on_one_line(lines[behind : behind + 120])
            failure = Failure(failure.recipient, everything)
        by_name[failure.recipient.lower()] = failure
    return list(by_name.values())


def _listed(lines: Sequence[str], others: set[str]) -> list[_Line]:
    """Lines that begin with a recipient: behind the sentence that announces them, as far indented as the first."""
    found: list[_Line] = []
    announced = -1
    end = len(lines)
    for number, line in enumerate(lines):
        if "@" in line and (match := _AT_START.match(line)) is not None and _is_item(match, line):
            address = _own_address(match)
            if address.lower() not in others:
                rest = match["code"] + match["rest"][_echo_end(match["rest"]) :]
                found.append(_Line(number, len(match["indent"].expandtabs()), address, rest))
                continue
        if announced < 0 and _ANNOUNCES.search(line):
            announced = number
        if found and found[-1].number > announced and _DETAILS.search(line):
            end = min(end, number)
    found = [line for line in found if announced < line.number < end] or found
    return [line for line in found if line.indent == found[0].indent]


def _first_mentions(lines: Sequence[str], recipients: Sequence[str]) -> list[_Line]:
    missing = {address.lower() for address in recipients}
    found = []
    for number, line in enumerate(lines):
        if not missing:
            break
        for match in _ANY_ADDRESS.finditer(line) if "@" in line else ():
            if (address := match[0].rstrip(".")).lower() in missing:
                missing.discard(address.lower())
                rest = line[match.end() :]
                found.append(_Line(number, 0, address, rest[_echo_end(rest) :]))
    return found


_SENTENCE = re.compile(r"[ \t]+(?:for|at|if|or|and|with|please|to |is the)\b", re.IGNORECASE)


def _is_item(match: re.Match[str], line: str) -> bool:
    """Whether a line that begins with an address is one of a list, and no sentence about somebody."""
    rest = match["rest"]
    if not rest or rest.isspace() or rest[0] in ":.,;)([<'\">-=*":
        return True
    return rest[0] in " \t" and _SENTENCE.match(rest) is None and _SOMEBODY_ELSE.search(line) is None


def _own_address(match: re.Match[str]) -> str:
    """The address of a line; one in angle brackets behind another makes the first a name for people."""
    behind = _IN_BRACKETS.match(match["rest"]) if not match["open"] else None
    return behind[1] if behind is not None else match["address"].rstrip(".").strip("'")


def _labelled(lines: Sequence[str], others: set[str]) -> list[_Line]:
    """Lines with a recipient behind a label; else those of a dialogue, else the addressee of the message."""
    labelled, dialogue, to = [], [], []
    for number, line in enumerate(lines):
        if "@" not in line:
            continue
        if match := _RCPT.search(line):
            dialogue.append(_Line(number, 0, match[1], line[match.end() :].lstrip(">")))
        elif match := _LABEL.match(line):
            label, address = match["label"].strip(), match["address"].rstrip(".")
            if address.lower() in others:
                continue
            found = _Line(number, 0, address, line[match.end() :].lstrip(">'\")] "))
            if _TO_LABEL.fullmatch(label):
                to.append(found)
            elif _RECIPIENT_LABEL.fullmatch(label) or _FAILED.search(label) or _ANNOUNCES.search(label):
                labelled.append(found)
    return labelled or dialogue or to


def _in_sentences(notice: str, others: set[str]) -> list[str]:
    """Addresses to, for or of which something failed, in a sentence."""
    found = [
        match["address"].rstrip(".")
        for sentence in _SENTENCE_END.split(notice)
        if "@" in sentence and _FAILED.search(sentence)
        for match in _IN_SENTENCE.finditer(sentence)
        if not _SOMEBODY_ELSE.search(sentence[: match.start()][-30:])
    ]
    return [address for address in found if address.lower() not in others]


# -- why ----------------------------------------------------------------------------------------------------------

_ECHO = re.compile(r"(?:<mailto:[^>]*>|[ \t]*<[^<>]*@[^<>]*>)?[ \t>:.\-)\"']*")


def _reason_of(line: _Line, lines: Sequence[str], begins: set[int]) -> str:
    """What stands behind a recipient, to the next one or to an empty line."""
    words = [line.rest]
    for number in range(line.number + 1, min(line.number + 60, len(lines))):
        if number in begins or not lines[number].strip():
            break
        words.append(lines[number])
    return _on_one_line(words)


def _echo_end(rest: str) -> int:
    match = _ECHO.match(rest)
    return match.end() if match else 0


def _with_dialogue(failure: Failure, lines: Sequence[str], *, alone: bool) -> Failure:
    """A failure with what the dialogue below the list tells of it, as sendmail does: all, if it is the only one."""
    begin = next((number for number, line in enumerate(lines) if "ranscript of session" in line), None)
    if begin is None:
        return failure
    dialogue = lines[begin + 1 : begin + 41] if alone else lines[begin + 1 : begin + 1001]
    told = [line for line in dialogue if alone or failure.recipient in line]
    return Failure(failure.recipient, _on_one_line([failure.reason, *told]))


def _on_one_line(lines: Iterable[str]) -> str:
    return " ".join(" ".join(lines).split())[:MAX_REASON]


# -- whose words they are -----------------------------------------------------------------------------------------

_FAMILIES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (family, _either(*phrases))
    for family, phrases in {
        "mailru": (r"mailer-daemon@(?:corp\.)?mail\.ru", r"сервером mail\.ru"),
        "zoho": (r"x-mailer: zoho", r"mailer-daemon@\S*zoho\."),
        "mfilter": (r"m-filter",),
        "fml": (r"x-mlserver: fml",),
        "imail": (r"x-mailer: <?smtp32",),
        "mxlogic": (r"mxlogic", r"mxl_mta"),
        "qmail": (r"qmail-send program at", r"qmail-(?:remote|inject)"),
        "yahoo": (r"mailer-daemon@yahoo\.", r"sorry, we were unable to deliver your message to the following address"),
        "dragonfly": (r"dragonfly mail agent",),
        "opensmtpd": (r"this is the mailer-daemon, please do not reply to this e-?mail",),
        "haraka": (r"this is the haraka mailer program",),
        "google-groups": (r"the group you tried to contact", r"groups\.google\.com", r"googlegroups"),
        "gmail": (r"mailer-daemon@(?:googlemail|google)\.com", r"technical details of (?:permanent|temporary) failure"),
        "office365": (r"prod\.outlook\.com", r"onmicrosoft\.com", r"office 365"),
        "exchange": (r"msexch", r"generating server:", r"internet mail service", r"microsoft exchange",
                     r"did not reach the following recipient\(s\)"),
        "notes": (r"failure reasons", r"name & address book"),
        "domino": (r"lotus (?:notes|domino)", r"router: ", r"domino directory"),
        "amazon-workmail": (r"x-mailer: amazon workmail",),
        "mimecast": (r"mimecast", r"\[postmaster\] email delivery failure"),
        "mailfoundry": (r"mailfoundry",),
        "courier": (r"this is a delivery status notification from", r"courier mail server", r"undeliverable mail$"),
        "groupwise": (r"groupwise",),
        "james": (r"apache james", r"james mail server", r"javamail"),
        "exim": (r"created automatically by mail delivery software", r"x-failed-recipients", r"\(exim "),
        "postfix": (r"this is the (?:postfix|mail system)", r"postfix (?:program|smtp server)"),
        "sendmail": (r"transcript of session follows", r"unsent message follows", r"fatal errors -----"),
    }.items()
)  # fmt: skip


def family_of(header: str, notice: str) -> str:
    """The program whose words these are, as far as they tell; `text` where they do not."""
    whole = f"{header[:8000]}\n{notice[:8000]}"
    return next((family for family, pattern in _FAMILIES if pattern.search(whole)), UNNAMED)
