"""One Received field: who gave the message to whom, by which protocol, and what it tells of TLS (RFC 5321 §4.4).

The grammar has one clause for TLS (RFC 8314 §4.3), but most servers tell it in comments, each in its own form. All of
it is written by the receiving host about a session in which it was the server: it can disprove that the hop met
RFC 8689, and never prove it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

from rtls_analysis.standards.mail_date import find_date
from rtls_analysis.standards.received_comments import (
    Client,
    Comment,
    read_address,
    read_comment,
    read_host,
    read_pairs,
    read_program,
)

MAX_FIELD = 8192  # characters that are read; more than any server writes
MAX_COMMENT = 1024
TLS_VERSIONS = ("SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3")  # the weakest first


class HopTls(StrEnum):
    """What a Received field says of its hop's TLS."""

    NONE = "none"  # said, or said by the silence of a server that names TLS wherever there is any
    ENCRYPTED = "encrypted"
    ANONYMOUS = "anonymous"  # encrypted, but the server sent no certificate
    AUTHENTICATED_CLIENT = "authenticated_client"  # the client's certificate was verified
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Received:
    """What one Received field says. `None`: it does not say."""

    from_name: str | None = None  # the word after `from`: what the client called itself, or its DNS name
    helo_name: str | None = None  # what the client called itself, where that is told apart
    reverse_name: str | None = None  # the DNS name of the client, where that is told apart
    from_address: str | None = None
    by_host: str | None = None
    with_protocol: str | None = None  # as written
    queue_id: str | None = None
    recipient: str | None = None
    received_at: datetime | None = None
    mta: str | None = None  # who wrote the field
    tls: HopTls = HopTls.UNKNOWN
    tls_version: str | None = None  # one of `TLS_VERSIONS`; `None` also where the text fits several
    tls_version_text: str | None = None  # as written
    cipher: str | None = None  # as written
    cipher_bits: int | None = None
    client_certificate: str | None = None  # what is said of it, as written
    is_authenticated: bool = False  # the client logged in: a submission
    requiretls_mark: str | None = None  # private mark that the message came with REQUIRETLS, as written
    is_inside_host: bool = False  # handed over within one host: no hop for RFC 8689


def parse_received(value: str) -> Received:
    """Read the value of a Received field, whichever server wrote it (RFC 5321 §4.4, RFC 3848, RFC 8314 §4.3).

    Parameters
    ----------
    value
        The field without its name, folded or not. Nothing in it makes this fail: what cannot be read is `None`.

    Notes
    -----
    Clauses come in any order. The word after a keyword is its value, even where it looks like a keyword. A `with`
    before `by` counts only where none follows: some servers let the client choose the words there.

    A version that names the family of the cipher and not the protocol of the session has no `tls_version`: with
    OpenSSL before 1.1.0 some servers wrote ``TLSv1/SSLv3`` for TLS 1.2 too.

    ``=3D`` is taken for ``=``: such fields come out of mail that was stored undecoded.

    Examples
    --------
    >>> hop = parse_received(
    ...     "from mx.example.net (mx.example.net [192.0.2.25]) (using TLSv1.2 with cipher AECDH-AES256-SHA "
    ...     "(256/256 bits)) (No client certificate requested) by mail.example.org (Postfix) with ESMTPS id AA784; "
    ...     "Sat, 26 Jan 2019 07:35:43 -0800 (PST)"
    ... )
    >>> hop.from_address, hop.by_host, hop.tls_version, hop.cipher, hop.cipher_bits
    ('192.0.2.25', 'mail.example.org', 'TLSv1.2', 'AECDH-AES256-SHA', 256)
    >>> str(hop.tls), why_not_requiretls(hop)
    ('anonymous', 'anonymous cipher: the server sent no certificate that could be verified')
    """
    text = " ".join(value[:MAX_FIELD].split())
    if "=3D" in text:
        text = text.replace("=3D", "=")
    if "\\" in text:
        text = _ESCAPED.sub("", text)
    found = find_date(text)
    if found is None:
        return _assemble(_sides(*_clauses(text)), None)
    return _assemble(_sides(*_clauses(f"{text[: found.begin]}; {text[found.end :]}")), found.moment)


def why_not_requiretls(received: Received, minimum_tls: str = "TLSv1.2") -> str:
    """Give the reason why a message cannot have passed this hop as RFC 8689 §4.2.1 demands; empty where there is none.

    Parameters
    ----------
    received
        The hop.
    minimum_tls
        The lowest TLS version that counts, one of `TLS_VERSIONS`.

    Notes
    -----
    No reason is no proof: a Received field never tells whether the client verified the server. What happens inside
    one host is no hop.

    Examples
    --------
    >>> why_not_requiretls(parse_received("from a.example ([192.0.2.1]) by b.example with esmtp (Exim 4.98) id 1"))
    'no TLS, which exim names wherever there is any'
    >>> why_not_requiretls(parse_received("from a.example ([192.0.2.1]) by b.example with ESMTP id 1"))
    ''
    """
    lowest = TLS_VERSIONS.index(minimum_tls)
    if received.is_inside_host:
        return ""
    if received.tls is HopTls.ANONYMOUS:
        return "anonymous cipher: the server sent no certificate that could be verified"
    if received.tls is HopTls.NONE:
        if received.cipher is not None:
            return f"{received.cipher} encrypts nothing"
        return f"no TLS, which {received.mta} names wherever there is any"
    if received.tls_version is not None:
        if TLS_VERSIONS.index(received.tls_version) < lowest:
            return f"{received.tls_version} is below {minimum_tls}"
    elif "/" in (received.tls_version_text or "") and minimum_tls == TLS_VERSIONS[-1]:
        return f"{received.tls_version_text} is below {minimum_tls}"
    return ""


# -- words of TLS --------------------------------------------------------------------------------------------

_VERSION = re.compile(r"(TLS|SSL)[-_ ]?v?(\d)(?:[._]?(\d))?", re.IGNORECASE)
_ANONYMOUS = re.compile(r"(?:^|-)A(?:EC)?DH-|(?:^|[-_])anon(?:[-_]|$)", re.IGNORECASE)
_NO_CIPHER = re.compile(r"(?:^|[-_])e?NULL(?:[-_]|$)", re.IGNORECASE)


@lru_cache(maxsize=256)
def tls_version(text: str) -> str | None:
    """Name a TLS version as our tables do, however it is written; `None` where the text fits several or none.

    >>> [tls_version(text) for text in ("TLS1_2", "TLS-1.0", "TLSv1", "SSLv3", "TLSv1/SSLv3")]
    ['TLSv1.2', 'TLSv1.0', 'TLSv1.0', 'SSLv3', None]
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    family, major, minor = match.groups()
    name = f"SSLv{major}" if family.upper() == "SSL" else f"TLSv{major}.{minor or 0}"
    return name if name in TLS_VERSIONS else None


def is_anonymous(cipher: str) -> bool:
    """Tell whether a cipher suite, in the spelling of any library, does without a certificate (RFC 5246 §A.5).

    >>> [is_anonymous(name) for name in ("ADH-AES256-SHA", "TLS_ECDH_anon_WITH_AES_256_CBC_SHA", "DHE-RSA-AES256-SHA")]
    [True, True, False]
    """
    return _ANONYMOUS.search(cipher) is not None


# -- clauses -------------------------------------------------------------------------------------------------


def _nested_comment(depth: int) -> str:
    inner = rf"|{_nested_comment(depth - 1)}" if depth else ""
    return rf"\((?:[^()]++{inner})*+\)"


# A parenthesis that closes nowhere, or too deep, stands for itself: the words behind it are read all the same.
_TOKEN = re.compile(rf'{_nested_comment(5)}|"[^"]*+"|[^\s();"]++|[();"]')
_ESCAPED = re.compile(r"\\[()]")
_KEYWORDS = {
    form: word
    for word in ("from", "by", "with", "id", "for", "via", "tls", ";")
    for form in (word, word.upper(), word.capitalize())
}
_LONE_SIGNS = frozenset('()";')


@dataclass(slots=True)
class _Clause:
    """A keyword with the words up to the next, and the comments on hosts; none before the first, ``;`` at the date."""

    keyword: str
    words: list[str]
    comments: list[Comment]

    @property
    def value(self) -> str:
        return self.words[0].strip("<>,") if self.words else ""


def _clauses(text: str) -> tuple[list[_Clause], list[Comment]]:
    """Cut a field at its keywords. The comments that tell of the session mean the same wherever they stand."""
    words: list[str] = []
    comments: list[Comment] = []
    told: list[Comment] = []
    clauses = [_Clause("", words, comments)]
    wants_value = False
    for token in _TOKEN.findall(text):
        if token in _KEYWORDS and not wants_value:
            words, comments = [], []
            clauses.append(_Clause(_KEYWORDS[token], words, comments))
            wants_value = token != ";"
            continue
        if token[0] == "(" and token != "(":
            comment = read_comment(token[1:-1][:MAX_COMMENT])
            (told if comment.client is None else comments).append(comment)
        elif token not in _LONE_SIGNS:
            words.append(token)
        wants_value = False
    return clauses, told


@dataclass(slots=True)
class _Sides:
    """What tells of the client, and what begins with `by`: words before it may be the client's own."""

    client: list[_Clause]
    own: list[_Clause]
    first: dict[str, _Clause]  # of its own, by keyword: the first that has a word
    told: list[Comment]  # on the session

    def value(self, keyword: str) -> str:
        """The word after a keyword, or nothing."""
        clause = self.first.get(keyword)
        return clause.value if clause is not None else ""


def _sides(clauses: list[_Clause], told: list[Comment]) -> _Sides:
    begin, end = 0, 1
    for place, clause in enumerate(clauses):
        if clause.keyword == "from":
            begin, end = place, place + 1
            break
    for place in range(end, len(clauses)):
        if clauses[place].keyword == "by" and clauses[place].words:
            end = place
            break
    own = clauses[:begin] + clauses[end:]
    first: dict[str, _Clause] = {}
    for clause in own:
        if clause.words and clause.keyword not in first:
            first[clause.keyword] = clause
    return _Sides(clauses[begin:end], own, first, told)


# -- the protocol --------------------------------------------------------------------------------------------

_SMTP = re.compile(r"(?:LOCAL-)?(?:UTF8)?(?:(E?SSMTP)|(?:[EAB]?SMTP|LMTP)(-TLS|S?))(A?)", re.IGNORECASE)
_REQUIRETLS_WORD = re.compile(r"(?:local-)?(?:utf8)?e?smtpSa?")  # Exim 4.92 with its experiment: a capital S
_SLASHED = re.compile(r"(\w+)/(?:TLS|SSL)(?:/(\S+))?", re.IGNORECASE)  # IronPort
_CIPHER = re.compile(r"0x[0-9A-Fa-f]{4}|[A-Za-z0-9]+[-_][A-Za-z0-9_+-]+")
_BITS = re.compile(r"[0-9]{1,5}")
_TLS_WORDS = frozenset({"TLS", "SSL", "STARTTLS"})


@dataclass(frozen=True, slots=True)
class _Protocol:
    """The protocol word, and what it and the words beside it say."""

    text: str | None = None
    is_smtp: bool = False
    is_encrypted: bool = False
    is_authenticated: bool = False
    cipher: str | None = None
    requiretls_mark: str | None = None


_NO_PROTOCOL = _Protocol()


def _protocol(sides: _Sides) -> _Protocol:
    clause = sides.first.get("with")
    if clause is None:
        clause = next((one for one in sides.client if one.keyword == "with" and one.words), None)
    if clause is None:
        return _NO_PROTOCOL
    return _read_protocol(" ".join(clause.words), _names_program(clause))


def _names_program(clause: _Clause) -> bool:
    """Whether the word is no protocol but a program, with its version in a comment (emfmta)."""
    return bool(clause.comments) and clause.comments[0].text.startswith("version ")


@lru_cache(maxsize=1024)
def _read_protocol(phrase: str, names_program: bool) -> _Protocol:
    """Read the words after `with`: often one, sometimes the name of the software around the protocol."""
    cipher = None
    words = [word for word in phrase.partition(":")[0].split(" ") if "=" not in word]
    if words[1:2] == ["encrypted"]:  # qmail
        cipher, words = words[0], words[2:]
    if match := _SLASHED.fullmatch(words[0] if words else ""):
        words, cipher = [match[1]], match[2] or ""
    text = " ".join(words).strip(" ,_")
    smtp = next((match for word in reversed(words) if (match := _SMTP.fullmatch(word.strip(",_[]")))), None)
    if smtp is None:
        if text.startswith("Microsoft SMTP"):
            return _Protocol(text)
        is_protocol = text and not names_program
        return _Protocol(text if is_protocol else None, is_encrypted=text.upper() == "HTTPS", cipher=cipher)
    direct, secure, login = smtp.groups()
    mark = smtp[0] if _REQUIRETLS_WORD.fullmatch(smtp[0]) else None
    return _Protocol(
        text, True, bool(direct or secure or cipher is not None), bool(login), cipher or None, mark
    )


def _names_tls(clauses: Sequence[_Clause]) -> bool:
    """Whether TLS is named in words: ``with ESMTP with TLS``, ``by TLS``, ``via SSL``, ``over TLS secured channel``."""
    for clause in clauses:
        if clause.keyword in ("with", "by", "via") and clause.value.upper() in _TLS_WORDS:
            return True
        if clause.keyword == "tls" and clause.words == ["secured", "channel"]:
            return True
    return False


# -- who wrote it --------------------------------------------------------------------------------------------

NAMES_TLS = frozenset({"chasquid", "exim", "google", "haraka", "kumomta", "maddy", "mox", "opensmtpd", "postfix",
                       "sendmail", "stalwart"})  # fmt: skip
"""Servers that name TLS wherever there is any, by protocol word, clause or comment: their silence means cleartext."""

_POSTFIX_NAMES_TLS_SINCE = datetime(2010, 1, 1, tzinfo=UTC)
_GOOGLE_NAMES_TLS = frozenset({"mx.google.com", "gmr-mx.google.com", "smtp.gmail.com"})  # not inside Google
_HOSTS = {
    "exchangelabs.com": "exchange",
    "google.com": "google",
    "mimecast.com": "mimecast",
    "mxlogic.net": "mxlogic",
    "office365.com": "exchange",
    "outlook.com": "exchange",
    "postini.com": "postini",
    "pphosted.com": "proofpoint",
    "yahoo.com": "yahoo",
}
_QUEUE_IDS = (
    (re.compile(r".+\.(?:19|20)\d\d(?:\.\d\d){5}"), "google"),
    (re.compile(r"[0-9A-F]{16}\.[0-9A-F]{16}\.[0-9A-F]{8}"), "courier"),
    (re.compile(r"[0-9A-Za-z]{6}-(?:[0-9A-Za-z]{6}-[0-9A-Za-z]{2}|[0-9A-Za-z]{11}-[0-9A-Za-z]{4})"), "exim"),
    (re.compile(r"[0-9a-f]{4}(?:_[0-9a-f]{4,12}){4,7}"), "mcafee"),
)


def _writer(sides: _Sides, protocol: str, by_host: str, queue_id: str) -> str | None:
    """Name the server that wrote the field: by its own name, else by its manner."""
    for clause in sides.own if sides.client[0].keyword else [*sides.client, *sides.own]:
        for comment in clause.comments:
            if (program := read_program(comment.text)) is not None:
                return program
    if protocol.startswith("Microsoft SMTPSVC"):
        return "smtpsvc"
    if protocol.startswith("Microsoft SMTP") or protocol == "mapi":
        return "exchange"
    if (writer := _HOSTS.get(".".join(by_host.rsplit(".", 2)[-2:]))) is not None:
        return writer
    for clause in sides.own:
        first = clause.words[0] if clause.words else ""
        if clause.keyword == "via" and first == "tcp":
            return "mox"
        if clause.keyword == "with" and "/TLS" in first:
            return "ironport"
        if clause.keyword == "with" and first == "TLS":
            return "tumbleweed"
        if clause.keyword == "with" and "encrypted" in clause.words[1:2]:
            return "qmail"
        if clause.keyword == "by" and any(one.text.startswith("envelope-sender ") for one in clause.comments):
            return "maddy"
    if any(comment.text.startswith(("No client", "Client ")) for comment in sides.told):
        return "postfix"  # under another name: it and its kin alone say this
    if any(comment.cipher and comment.text.endswith(" encrypted") for comment in sides.told):
        return "qmail"
    for pattern, writer in _QUEUE_IDS:
        if pattern.fullmatch(queue_id) and (writer != "exim" or protocol.islower()):
            return writer
    if any(comment.text.startswith("HELO ") for clause in sides.client for comment in clause.comments):
        return "qmail"
    return None


def _may_be_silent(mta: str | None, by_host: str, moment: datetime | None) -> bool:
    """Whether this server may have had TLS without a word of it in the field."""
    if mta == "postfix":  # it wrote `with ESMTP` for TLS too, before it took up RFC 3848; seen until 2007
        return moment is not None and moment < _POSTFIX_NAMES_TLS_SINCE
    return mta not in NAMES_TLS or (mta == "google" and by_host not in _GOOGLE_NAMES_TLS)


# -- the whole -----------------------------------------------------------------------------------------------

_LOOPBACK = ("127.0.", "::1", "::ffff:127.0.")  # the rest of 127/8 is where laboratories put their hosts
_NEAR = ("10.", "192.168.", "169.254.", "fe80:", "fc", "fd")  # from where a client's own name can be believed


def _assemble(sides: _Sides, moment: datetime | None) -> Received:
    by_host = read_host(sides.value("by")) or ""
    protocol = _protocol(sides)
    queue_id, recipient = sides.value("id"), sides.value("for")
    mta = _writer(sides, protocol.text or "", by_host, queue_id)
    client = _client(sides.client)
    tls = _tls(sides, protocol)
    is_silent = tls.encrypted is None and protocol.is_smtp and not _may_be_silent(mta, by_host, moment)
    state = HopTls.NONE if is_silent else _state(tls)
    return Received(
        from_name=client.name,
        helo_name=client.helo,
        reverse_name=client.reverse,
        from_address=client.address,
        by_host=by_host or None,
        with_protocol=protocol.text,
        queue_id=queue_id or None,
        recipient=recipient if "@" in recipient else None,
        received_at=moment,
        mta=mta,
        tls=state,
        tls_version=tls_version(tls.version) if tls.version is not None else None,
        tls_version_text=tls.version,
        cipher=tls.cipher,
        cipher_bits=int(tls.bits) if tls.bits is not None and _BITS.fullmatch(tls.bits) else None,
        client_certificate=tls.certificate,
        is_authenticated=protocol.is_authenticated or tls.is_authenticated,
        requiretls_mark="requiretls" if tls.has_requiretls else protocol.requiretls_mark,
        is_inside_host=_is_inside_host(client, sides.first.get("by"), by_host, protocol),
    )


def _client(side: Sequence[_Clause]) -> Client:
    """Who the client is, by the first word after `from` and the comments behind it."""
    clause = side[0]
    name = clause.value
    if "]:" in name:  # a port behind an address literal
        name = name.partition("]:")[0] + "]"
    helo = reverse = address = None
    is_local = clause.words == ["mail", "pickup", "service"]
    for one in side:
        for comment in one.comments:
            if (told := comment.client) is not None:
                name = name or told.name or ""
                helo = helo or told.helo
                reverse = reverse or told.reverse
                address = address or told.address
                is_local = is_local or told.is_local
    if helo is not None and reverse is None and "." in name and read_address(name) is None:
        reverse = read_host(name)
    if address is None:
        address = read_address(" ".join(clause.words[1:4])) or read_address(name)
    return Client(read_host(name), helo, reverse, address, is_local)


def _tls(sides: _Sides, protocol: _Protocol) -> Comment:
    """All that is said of the session, as one comment; of two that say the same thing the first counts."""
    encrypted = True if protocol.is_encrypted or _names_tls(sides.own) else None
    version = bits = certificate = None
    cipher = protocol.cipher
    is_authenticated = "id" in sides.first and "auth=yes" in sides.first["id"].words
    has_requiretls = False
    if (clause := sides.value("tls")) and _CIPHER.fullmatch(clause):
        encrypted, cipher = True, cipher or clause
    for comment in sides.told or _unclosed(sides.own):
        encrypted = encrypted or comment.encrypted
        version = version or comment.version
        cipher = cipher or comment.cipher
        bits = bits or comment.bits
        certificate = certificate or comment.certificate
        is_authenticated = is_authenticated or comment.is_authenticated
        has_requiretls = has_requiretls or comment.has_requiretls
    return Comment("", encrypted, version, cipher, bits, certificate, is_authenticated, has_requiretls)


def _unclosed(clauses: Sequence[_Clause]) -> list[Comment]:
    """What words say that were meant as a comment, but its parenthesis is never closed."""
    for clause in clauses:
        for word in clause.words:
            if word.startswith(("cipher=", "version=")):
                return [read_pairs(" ".join(clause.words))]
    return []


def _state(tls: Comment) -> HopTls:
    if tls.encrypted is None:
        return HopTls.UNKNOWN
    if tls.encrypted is False or _NO_CIPHER.search(tls.cipher or ""):
        return HopTls.NONE
    if is_anonymous(tls.cipher or ""):
        return HopTls.ANONYMOUS
    certificate = tls.certificate or ""
    is_verified = certificate in ("OK", "YES") or certificate.endswith("(verified OK)")
    return HopTls.AUTHENTICATED_CLIENT if is_verified else HopTls.ENCRYPTED


def _is_inside_host(client: Client, receiver: _Clause | None, by_host: str, protocol: _Protocol) -> bool:
    """Whether the message stayed on its host. A name that the client chose proves nothing from far away."""
    word = (protocol.text or "").lower()
    if client.is_local or word.startswith("local") or word == "mapi" or by_host == "localhost":
        return True
    if client.address is None:
        return client.name in (None, by_host, "localhost") or client.name.endswith("@localhost")
    comments = receiver.comments if receiver is not None else []
    own = next((one.client.address for one in comments if one.client and one.client.address), None)
    if client.address.startswith(_LOOPBACK) or (own or "").startswith(_LOOPBACK) or client.address == own:
        return True
    if not by_host:
        return False
    return client.reverse == by_host or (client.name == by_host and client.address.startswith(_NEAR))
