"""Every table: its columns, dtypes, units, meanings and key, written once.

pandas dtypes, Arrow and Parquet types, the documentation and the checks of the tests derive from here.
Missing means *does not apply*, never *no*: what was not tested or could not be told has a word of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import (
    Action,
    DaneState,
    DnsSecurity,
    DomainShare,
    FeatureState,
    MxState,
    Obstacle,
    PkixState,
    Purpose,
    RequireTls,
    SecuredBy,
    SessionOutcome,
    SessionStage,
    StsMode,
    StsPolicyState,
    StsRecordState,
    TlsaState,
    TlsLevel,
    TlsOutcome,
    TlsrptState,
    Told,
)
from rtls_analysis.standards.received import HopTls
from rtls_analysis.standards.tls_report import SumsDiffer

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Kind(StrEnum):
    """What sort of value a column holds; decides its dtype everywhere."""

    TEXT = "text"
    WORD = "word"  # a closed vocabulary: categorical
    FLAG = "flag"  # nullable boolean
    COUNT = "count"  # nullable integer: counts, ports, codes, bits
    SECONDS = "seconds"  # float
    TIME = "time"  # UTC, timezone-aware, microseconds
    LIST = "list"  # Arrow list of strings
    BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's kind and meaning; `words` is its vocabulary, `verdict` marks what `rtls.judge` computes."""

    name: str
    kind: Kind
    meaning: str
    words: type[StrEnum] | None = None
    verdict: bool = False

    @property
    def dtype(self) -> Any:
        """The pandas dtype."""
        import pandas as pd

        match self.kind:
            case Kind.TEXT:
                return pd.StringDtype(na_value=float("nan"))
            case Kind.WORD:
                return pd.CategoricalDtype([str(word) for word in self.words or ()])
            case Kind.FLAG:
                return pd.BooleanDtype()
            case Kind.COUNT:
                return pd.Int64Dtype()
            case Kind.SECONDS:
                import numpy as np

                return np.dtype("float64")
            case Kind.TIME:
                return pd.DatetimeTZDtype("us", "UTC")
            case _:
                return pd.ArrowDtype(self.arrow)

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type, which is also the Parquet type; words are stored as their text."""
        import pyarrow as pa

        match self.kind:
            case Kind.TEXT | Kind.WORD:
                return pa.string()
            case Kind.FLAG:
                return pa.bool_()
            case Kind.COUNT:
                return pa.int64()
            case Kind.SECONDS:
                return pa.float64()
            case Kind.TIME:
                return pa.timestamp("us", "UTC")
            case Kind.LIST:
                return pa.list_(pa.string())
            case _:
                return pa.binary()


@dataclass(frozen=True, slots=True)
class Table:
    """A table: what one row is, its columns in order, and the columns that make a row unique (or `()`)."""

    name: str
    one_row_per: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    by_name: dict[str, Column] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.by_name.update({column.name: column for column in self.columns})

    def __getitem__(self, name: str) -> Column:
        return self.by_name[name]

    def names(self, *, verdicts_only: bool = False) -> list[str]:
        """Column names in order, on request only those that `rtls.judge` computes."""
        return [column.name for column in self.columns if column.verdict or not verdicts_only]

    @property
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of a part of this table."""
        import pyarrow as pa

        return pa.schema([(column.name, column.arrow) for column in self.columns])


def _text(name: str, meaning: str, *, verdict: bool = False) -> Column:
    return Column(name, Kind.TEXT, meaning, verdict=verdict)


def _word(name: str, words: type[StrEnum], meaning: str, *, verdict: bool = False) -> Column:
    return Column(name, Kind.WORD, meaning, words, verdict)


def _flag(name: str, meaning: str, *, verdict: bool = False) -> Column:
    return Column(name, Kind.FLAG, meaning, verdict=verdict)


def _count(name: str, meaning: str) -> Column:
    return Column(name, Kind.COUNT, meaning)


def _seconds(name: str, meaning: str) -> Column:
    return Column(name, Kind.SECONDS, meaning)


def _time(name: str, meaning: str) -> Column:
    return Column(name, Kind.TIME, meaning)


def _list(name: str, meaning: str, *, verdict: bool = False) -> Column:
    return Column(name, Kind.LIST, meaning, verdict=verdict)


class TlsVersion(StrEnum):
    """TLS protocol versions; missing where the source is ambiguous."""

    SSLV3 = "SSLv3"
    TLSV1_0 = "TLSv1.0"
    TLSV1_1 = "TLSv1.1"
    TLSV1_2 = "TLSv1.2"
    TLSV1_3 = "TLSv1.3"


class MailReader(StrEnum):
    """The readers of MTA logs, by the name of the MTA."""

    POSTFIX = "postfix"
    EXIM = "exim"
    SENDMAIL = "sendmail"
    OPENSMTPD = "opensmtpd"
    HARAKA = "haraka"
    EXCHANGE = "exchange"
    MOX = "mox"
    MADDY = "maddy"
    STALWART = "stalwart"
    QMAIL = "qmail"


class Returned(StrEnum):
    """How much of the original message a DSN brought back."""

    FULL = "full"
    HEADERS = "headers"
    NONE = "none"


class Demand(StrEnum):
    """What a sender asks of the way to a destination, the strongest first."""

    REQUIRETLS = "requiretls"  # all of RFC 8689 §4.2.1
    VERIFIED = "verified"  # authenticated by DANE or by an MTA-STS policy
    PKIX = "pkix"  # a certificate of a trusted CA for the MX host's name, however that name was found
    TLS = "tls"  # any TLS


class Prospect(StrEnum):
    """What would become of mail to a destination if the sender asked for it."""

    DELIVERED = "delivered"  # every address qualifies
    AT_RISK = "at_risk"  # some do: delivered as long as one of them answers
    FAILS = "fails"
    UNKNOWN = "unknown"  # not scanned, or the scan could not tell


class VerifiedBy(StrEnum):
    """What vouches for the hosts of a destination that qualify."""

    DANE = "dane"
    MTA_STS = "mta_sts"  # a policy that names them, and a certificate of a trusted CA
    DNSSEC = "dnssec"  # a signed MX record, and a certificate of a trusted CA
    IMPLICIT_MX = "implicit_mx"  # no MX record to forge, and a certificate of a trusted CA


_SEEN_FROM = "name of the place it was seen from"
_REQUIRETLS_SHARE = "no obstacle on the way of a REQUIRETLS message, under the scan's rules"

DOMAINS = Table(
    "domains",
    "policy domain",
    (
        _text("domain", "policy domain, A-labels, lower case, no final dot"),
        _count("rank", "rank in the list that was scanned, where it had one"),
        _word("mx_state", MxState, "what the MX lookup amounts to"),
        _word("mx_dnssec", DnsSecurity, "DNSSEC state of the MX answer, a denial included"),
        _text("mx_canonical", "end of the domain's CNAMEs at the MX lookup; the domain itself without"),
        _count("mx_hosts", "distinct MX hosts, the implicit one included"),
        _count("addresses", "distinct addresses over all its MX hosts"),
        _word("sts_record", StsRecordState, "verdict on the TXT answer at _mta-sts"),
        _list("sts_texts", "TXT strings found at _mta-sts"),
        _word("sts_policy", StsPolicyState, "what fetching and reading the policy came to", verdict=True),
        _text("sts_policy_text", "policy body as served, escaped where it is not UTF-8"),
        _count("sts_policy_bytes", "length of the policy body, as far as it was read"),
        _count("sts_http_status", "HTTP status of the policy host"),
        _text("sts_detail", "why there is no valid policy, or what is odd about it", verdict=True),
        _text("sts_content_type", "media type under which the policy was served"),
        _text("sts_address", "address from which the policy was asked"),
        _list("sts_chain_sha256", "SHA-256 of the certificates the policy host presented, leaf first"),
        _word("sts_mode", StsMode, "mode of a valid policy", verdict=True),
        Column("sts_max_age_seconds", Kind.COUNT, "lifetime of a valid policy", verdict=True),
        _text("sts_policy_id", "id of a valid record"),
        _list("sts_mx", "mx patterns of a valid policy", verdict=True),
        _word("tlsrpt", TlsrptState, "verdict on the TXT answer at _smtp._tls"),
        _list("tlsrpt_texts", "TXT strings found at _smtp._tls"),
        _list("tlsrpt_rua", "where a valid record wants its reports"),
        _text("provider", "provider of the most preferred MX host"),
        _word("starttls", DomainShare, "addresses whose TLS handshake completed", verdict=True),
        _word("pkix", DomainShare, "addresses with a certificate valid for the MX host's name", verdict=True),
        _word(
            "dane",
            DomainShare,
            "addresses where MX answer and TLSA are secure and the chain matches",
            verdict=True,
        ),
        _word("requiretls_offered", DomainShare, "addresses that offer REQUIRETLS after TLS", verdict=True),
        _word("requiretls_ready", DomainShare, f"addresses with {_REQUIRETLS_SHARE}", verdict=True),
        _word(
            "requiretls_ready_testing",
            DomainShare,
            "the same, MTA-STS mode testing counted as securing the MX name too",
            verdict=True,
        ),
        _word(
            "obstacle", Obstacle, "what stops a REQUIRETLS message first; empty where it goes", verdict=True
        ),
        _list("obstacles", "all obstacles found at any of its addresses", verdict=True),
        _text("detail", "reasons in words"),
        _time("scanned_at", "when the domain's own lookups were done"),
        _text("vantage", f"{_SEEN_FROM}; missing where that was more than one"),
    ),
    ("vantage", "domain"),
)

QUESTIONS = tuple(column.name for column in DOMAINS.columns if column.words is DomainShare)
"""The columns of `domains` that sum up the answers of its addresses to a yes-or-no question."""

MX = Table(
    "mx",
    "(policy domain, MX host): what depends on both",
    (
        _text("domain", "policy domain"),
        _count("preference", "MX preference, lower is tried first; 0 for the implicit MX"),
        _text("mx_host", "MX host as published"),
        _word("mx_state", MxState, "what the lookup of this host amounts to; the first that holds"),
        _flag("sts_match", "the policy's mx patterns match; missing without a valid policy", verdict=True),
        _word("secured_by", SecuredBy, "how the MX name is secured against forgery", verdict=True),
        _word("dane", DomainShare, "addresses authenticated by DANE for this domain", verdict=True),
        _word("requiretls_ready", DomainShare, f"addresses with {_REQUIRETLS_SHARE}", verdict=True),
        _word("requiretls_ready_testing", DomainShare, "the same with MTA-STS mode testing", verdict=True),
        _word("obstacle", Obstacle, "what stops a REQUIRETLS message first", verdict=True),
        _list("obstacles", "all obstacles found at any of its addresses", verdict=True),
        _text("provider", "registrable domain of the host, through the alias map"),
        _text("vantage", f"{_SEEN_FROM}; missing where that was more than one"),
    ),
    ("vantage", "domain", "mx_host"),
)

HOSTS = Table(
    "hosts",
    "MX host",
    (
        _text("mx_host", "MX host as published"),
        _text("canonical_name", "end of its CNAMEs; the host itself without"),
        _word("canonical_dnssec", DnsSecurity, "DNSSEC state of its first CNAME; missing without one"),
        _list("addresses", "its IPv4 and IPv6 addresses"),
        _word("addresses_dnssec", DnsSecurity, "DNSSEC state of the address answers, the weaker one"),
        _word("mx_state", MxState, "what the lookup of this host amounts to; the first that holds"),
        _word("tlsa_state", TlsaState, "verdict on its TLSA records", verdict=True),
        _text("tlsa_base", "name whose TLSA records count (RFC 7672 §2.2.3)"),
        _list("tlsa", "TLSA records, as `3 1 1 hex`"),
        _word("tlsa_dnssec", DnsSecurity, "DNSSEC state of the TLSA answer"),
        _text("provider", "registrable domain of the host, through the alias map"),
        _text("detail", "reasons in words"),
        _time("resolved_at", "when its lookups were done"),
        _text("vantage", "name of the place it was looked up from"),
    ),
    ("mx_host",),
)

SESSIONS = Table(
    "sessions",
    "(MX host, address), probed once per run from a vantage: what does not depend on the domain",
    (
        _text("mx_host", "MX host as published"),
        _text("address", "IPv4 or IPv6 address"),
        _count("port", "TCP port"),
        _text("sni", "server name sent in the TLS handshake"),
        _time("started_at", "begin of the last visit; certificates are judged at this time"),
        _seconds("duration_seconds", "length of the last visit"),
        _count("attempts", "visits made; 0 where the address was not contacted"),
        _word("outcome", SessionOutcome, "how the session ended"),
        _word("stage", SessionStage, "the last stage begun"),
        _count("reply_code", "code of the reply that ended the dialogue early; missing otherwise"),
        _text("enhanced_code", "enhanced status code of that reply"),
        _text("reply_text", "text of that reply"),
        _text("banner", "greeting, without its code"),
        _list("ehlo_plain", "lines of the whole reply to EHLO before TLS, a refusal too"),
        _list("ehlo_tls", "lines of the whole reply to EHLO inside TLS, a refusal too"),
        _word("starttls", FeatureState, "yes where the handshake completed"),
        _word("tls_version", TlsVersion, "protocol version"),
        _text("cipher", "cipher suite as OpenSSL names it"),
        _count("cipher_bits", "strength of the cipher in bits"),
        _text("key_exchange", "named group of the key exchange, or RSA"),
        _list("chain_sha256", "SHA-256 of the certificates as presented, leaf first"),
        _time("certificate_not_after", "end of the leaf certificate's validity"),
        _text("certificate_key", "key of the leaf certificate, as RSA-2048 or EC-P-256"),
        _word("pkix", PkixState, "verdict on the chain for the MX host's name", verdict=True),
        _text("pkix_detail", "every reason in words", verdict=True),
        _flag("name_match", "the leaf names the MX host; missing without a certificate", verdict=True),
        _flag("dns_id_match", "a DNS-ID does, not the common name alone, as MTA-STS asks", verdict=True),
        _word("dane", DaneState, "verdict on the chain against the host's secure TLSA records", verdict=True),
        _text("dane_detail", "the record that matched, or the reason why none did", verdict=True),
        _word("requiretls_plain", FeatureState, "REQUIRETLS before TLS: proves nothing, kept as a fact"),
        _word("requiretls_tls", FeatureState, "REQUIRETLS in the EHLO reply inside TLS"),
        _count("injected_bytes", "plaintext bytes found between the answer to STARTTLS and TLS"),
        _text("injected_text", "the first KiB of them, escaped"),
        _text("detail", "reasons in words"),
        _text("vantage", _SEEN_FROM),
    ),
    ("vantage", "mx_host", "address"),
)

CERTIFICATES = Table(
    "certificates",
    "distinct certificate seen",
    (
        _text("sha256", "SHA-256 of the DER, lower-case hex"),
        Column("der", Kind.BYTES, "the certificate"),
        _text("subject", "subject, RFC 4514"),
        _text("issuer", "issuer, RFC 4514"),
        _list("dns_names", "DNS names of the subject alternative name"),
        _time("not_before", "begin of validity"),
        _time("not_after", "end of validity"),
        _text("key", "key, as RSA-2048 or EC-P-256"),
    ),
    ("sha256",),
)

ATTEMPTS = Table(
    "attempts",
    "connection made",
    (
        _word("purpose", Purpose, "what the connection was for"),
        _text("mx_host", "MX host; missing for a policy"),
        _text("domain", "policy domain; missing for a probe"),
        _text("address", "address connected to"),
        _count("port", "TCP port"),
        _text("provider", "provider whose limits counted"),
        _time("started_at", "begin"),
        _time("ended_at", "end"),
        Column("outcome", Kind.TEXT, "outcome word: SessionOutcome of a probe, StsPolicyState of a policy"),
        _text("vantage", "name of the place it was made from"),
    ),
)

DELIVERIES = Table(
    "deliveries",
    "delivery attempt to one recipient; an end without a try is a row with `attempted` false",
    (
        _time("logged_at", "time of the line"),
        _word("mta", MailReader, "the reader's name"),
        _text("reporting_host", "host that wrote the line"),
        _text("queue_id", "the first id the server gave the message"),
        _text("message_id", "Message-ID without angle brackets"),
        _text("sender", "envelope sender; empty for the null sender"),
        _text("recipient", "envelope recipient"),
        _text("sender_domain", "its domain"),
        _text("recipient_domain", "its domain"),
        _text("relay_host", "next hop by name"),
        _text("relay_address", "next hop by address"),
        _count("relay_port", "its port"),
        _text("transport", "transport, agent or mailer"),
        _flag("attempted", "false for an end without a try: expired, held, suspended"),
        _word("action", Action, "what happened; delivered: accepted by the next hop or the mailbox"),
        _text("status_word", "the MTA's own word; expired, held"),
        _text("enhanced_code", "enhanced status code"),
        _count("reply_code", "SMTP reply code"),
        _text("reply_text", "text of the reply or of the reason"),
        _seconds("delay_seconds", "since the message arrived"),
        _text("tls_policy", "TLS level asked for, the MTA's own word"),
        _word("tls_level", TlsLevel, "what TLS was achieved; missing without a session"),
        _word("tls_version", TlsVersion, "protocol version"),
        _text("cipher", "cipher suite as the log writes it"),
        _count("cipher_bits", "strength of the cipher in bits"),
        _word("requiretls", RequireTls, "what became of a REQUIRETLS wish"),
        _flag("requiretls_violated", "the attempt was refused for it"),
        _word("requiretls_strict", Told, "whether the hop met all of RFC 8689"),
        _word("tls_required_no", Told, "the message asked for TLS-Required: No"),
        _word("tls_outcome", TlsOutcome, "why TLS decided, or did not decide, this delivery"),
        _text("source_file", "file of the line"),
        _count("line_number", "number of the line, from 1"),
    ),
)

CONNECTIONS = Table(
    "connections",
    "outbound connection or TLS attempt that the log tells of",
    (
        _time("logged_at", "time of the line"),
        _word("mta", MailReader, "the reader's name"),
        _text("reporting_host", "host that wrote the line"),
        _text("process_id", "process or session id"),
        _text("queue_id", "message it served, where known"),
        _text("relay_host", "peer by name"),
        _text("relay_address", "peer by address"),
        _count("relay_port", "its port"),
        _word("tls_level", TlsLevel, "what TLS was achieved"),
        _word("tls_version", TlsVersion, "protocol version"),
        _text("cipher", "cipher suite as the log writes it"),
        _count("cipher_bits", "strength of the cipher in bits"),
        _flag("reused", "an earlier connection used again"),
        _word("tls_outcome", TlsOutcome, "how the TLS attempt ended"),
        _text("text", "the log's own words"),
        _text("source_file", "file of the line"),
        _count("line_number", "number of the line, from 1"),
    ),
)

BOUNCES = Table(
    "bounces",
    "recipient of a DSN",
    (
        _time("reported_at", "when the notice was written"),
        _text("reporting_mta", "who wrote it"),
        _text("reporting_software", "its program, where told"),
        _text("remote_mta", "whose reply it quotes; missing: the reason is the reporting MTA's own"),
        _text("original_recipient", "recipient as the sender wrote it"),
        _text("final_recipient", "recipient as reported"),
        _text("recipient_domain", "domain of the final recipient"),
        _word("action", Action, "what happened"),
        _text("enhanced_code", "the Status field as it stands"),
        _count("reply_code", "SMTP reply code in the diagnostic"),
        _text("diagnostic", "diagnostic text; where no field has one, what the words for people say"),
        _text(
            "diagnostic_type",
            "its type: smtp for a reply of the remote MTA, x-postfix and the like for own words",
        ),
        _text(
            "diagnostic_code",
            "enhanced status code inside the diagnostic, where it may differ from the Status field",
        ),
        _text("original_message_id", "Message-ID of the original"),
        _text("original_envelope_id", "ENVID of the original"),
        _word("requiretls_requested", Told, "the original asked for REQUIRETLS"),
        _word("tls_required_no", Told, "the original asked for TLS-Required: No"),
        _word("returned", Returned, "how much of the original came back"),
        _flag("redacted", "headers only"),
        _word("tls_outcome", TlsOutcome, "why TLS decided, or did not decide"),
        _text("form", "rfc3464, rfc6533, or the family of a non-standard bounce"),
        _text("source_file", "file, and message within it"),
    ),
)

TLS_REPORTS = Table(
    "tls_reports",
    "policy x failure detail of a TLS report; one row for a policy without failures",
    (
        _count("policy_index", "number of the policy within its report, from 0"),
        _text("organization", "who reports"),
        _text("report_id", "id of the report"),
        _text("contact", "contact of the reporter"),
        _time("begins_at", "begin of the period"),
        _time("ends_at", "end of the period"),
        _text("policy_type", "tlsa, sts, no-policy-found, or the report's own word"),
        _text("policy_domain", "policy domain; for tlsa the MX host"),
        _list("policy_mx_hosts", "mx patterns of the policy"),
        _list("policy_strings", "the policy as the reporter saw it: lines of MTA-STS, or TLSA records"),
        _count("sessions_ok", "successful sessions; repeats on each row of a policy"),
        _count(
            "sessions_failed",
            "failed sessions; repeats on each row of a policy; without a total, the details' sum",
        ),
        _word(
            "sums",
            SumsDiffer,
            "how the failure details add up against the total; missing where one is not told",
        ),
        _text("result_type", "failure type as reported"),
        _word("tls_outcome", TlsOutcome, "failure type in our words; ok for a policy without failures"),
        _text("sending_mta", "address of the sending MTA"),
        _text("receiving_mx", "name of the receiving MX"),
        _text("receiving_helo", "name with which it greeted"),
        _text("receiving_address", "its address"),
        _count("failed_sessions", "sessions that failed this way"),
        _text("failure_reason", "reason code, free text"),
        _text("additional_information", "URI with more, never fetched"),
        _flag(
            "impossible", "a number or time of the row cannot be: a negative count, an end before the begin"
        ),
        _text("detail", "what cannot be, in words"),
        _text("source_file", "file, and report within it"),
    ),
)

HOPS = Table(
    "hops",
    "Received field, oldest = hop 1",
    (
        _text("message_id", "Message-ID without angle brackets"),
        _count("hop", "number of the hop, the oldest is 1"),
        _time("received_at", "when the host received it"),
        _text("from_name", "name after `from`: what the client called itself, or its DNS name (Exim, qmail)"),
        _text("helo_name", "what the client called itself, where that is told apart"),
        _text("reverse_name", "its DNS name, where that is told apart"),
        _text("from_address", "its address"),
        _text("by_host", "host that wrote the field"),
        _text("with_protocol", "protocol word as written"),
        _word("tls_version", TlsVersion, "protocol version; missing where the field fits several"),
        _text("cipher", "cipher suite as written"),
        _count("cipher_bits", "strength of the cipher in bits"),
        _text("client_certificate", "what is said of the client's certificate, as written"),
        _text("mta", "server that wrote the field"),
        _word(
            "tls_state", HopTls, "what the field says of TLS; none only where that server would have named it"
        ),
        _flag("authenticated", "the client logged in: a submission"),
        _flag("inside_host", "handed over within one host: no hop for RFC 8689"),
        _text("requiretls_mark", "private mark that the message came with REQUIRETLS, as written"),
        _word("could_be_requiretls", Told, "no, or unknown: a Received field can disprove, never prove"),
        _text("detail", "why it could not be REQUIRETLS"),
        _seconds("delay_seconds", "since the hop before; negative where clocks differ"),
        _text("queue_id", "id the message got there"),
        _text("recipient", "recipient, where one is named"),
        _word(
            "requiretls_requested",
            Told,
            "yes where the message carries Require-TLS-ESMTP: yes, which can be forged",
        ),
        _word("tls_required_no", Told, "the message carries TLS-Required: No"),
        _text("list_id", "mailing list that sent this copy anew"),
        _text("raw", "the field, unfolded; its first 8,192 characters"),
        _text("source_file", "file, and message within it"),
    ),
)

WHAT_IF = Table(
    "what_if",
    "(recipient domain, relay host): own mail, and what would become of it under a rule",
    (
        _text("recipient_domain", "domain of the recipients; it is what gets judged"),
        _text("relay_host", "relay that the mail really took last; missing where none was reached"),
        _flag("relay_is_mx", "the relay is an MX host of the domain in the scan; no: a smart host hides it"),
        _text("provider", "provider of the most preferred MX host; not scanned: of the relay"),
        _count("messages", "messages to the domain by this relay; one to two domains counts for each"),
        _count("messages_delivered", "of these, accepted today for a recipient there"),
        _count("recipients", "distinct recipients"),
        _count("domain_messages", "messages to the domain by any relay; repeats on each of its rows"),
        _count("domain_delivered", "of these, accepted today; repeats likewise"),
        _count("domain_recipients", "distinct recipients by any relay; repeats likewise"),
        _word("rule", Demand, "what the sender is taken to ask"),
        _flag("scanned", "the domain is in the snapshot"),
        _word("verdict", Prospect, "what would become of the mail"),
        _word("obstacle", Obstacle, "what stops it first; empty where it goes at one address or more"),
        _list("obstacles", "all that stands against the rule at any address; missing where not scanned"),
        _word("relay_share", DomainShare, "addresses of the relay that qualify, where it is an MX host"),
        _word("starttls", DomainShare, "addresses of the domain whose TLS handshake completed"),
        _word("verified_by", VerifiedBy, "what vouches for the hosts that qualify"),
        _list("sts_mx", "mx patterns of the domain's MTA-STS policy"),
        _time("scanned_at", "when the domain's lookups were done"),
    ),
    ("recipient_domain", "relay_host"),
)

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        DOMAINS,
        MX,
        HOSTS,
        SESSIONS,
        CERTIFICATES,
        ATTEMPTS,
        DELIVERIES,
        CONNECTIONS,
        BOUNCES,
        TLS_REPORTS,
        HOPS,
        WHAT_IF,
    )
}
SNAPSHOT_TABLES: tuple[Table, ...] = (DOMAINS, MX, HOSTS, SESSIONS, CERTIFICATES, ATTEMPTS)


def to_arrow(table: Table, records: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Records (mappings by column name) as an Arrow table of exactly this table's columns."""
    import pyarrow as pa

    rows = records if isinstance(records, list) else list(records)
    arrays = []
    for column in table.columns:
        name = column.name
        values = [row.get(name) for row in rows]
        if column.kind is Kind.TEXT:  # lone surrogates of undecodable bytes are no Unicode text
            values = [None if value is None else _encodable(value) for value in values]
        elif column.kind is Kind.LIST:
            values = [None if value is None else [_encodable(item) for item in value] for value in values]
        arrays.append(pa.array(values, type=column.arrow))
    return pa.Table.from_arrays(arrays, schema=table.arrow_schema)


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def to_frame(table: Table, records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Records (mappings by column name) as a DataFrame with exactly this table's columns and dtypes."""
    return from_arrow(table, to_arrow(table, records))


def from_arrow(table: Table, arrow: pa.Table) -> pd.DataFrame:
    """Turn an Arrow table of this table's columns, or some of them, into a frame with the declared dtypes."""
    import pandas as pd

    data: dict[str, Any] = {}
    for name in arrow.column_names:
        column = table.by_name.get(name)
        values = arrow.column(name)
        if column is None:
            data[name] = values.to_pandas()
        elif column.kind in (Kind.LIST, Kind.BYTES):
            data[name] = pd.Series(pd.arrays.ArrowExtensionArray(values), copy=False)
        elif column.kind is Kind.WORD:
            import pyarrow as pa
            import pyarrow.compute as pc

            words: Sequence[str] = [str(word) for word in column.words or ()]
            codes = pc.index_in(values, value_set=pa.array(words, pa.string())).fill_null(-1).to_numpy()
            data[name] = pd.Series(pd.Categorical.from_codes(codes, dtype=column.dtype), copy=False)
        elif column.kind in (Kind.COUNT, Kind.FLAG):
            data[name] = values.to_pandas(types_mapper={column.arrow: column.dtype}.get)
        else:
            data[name] = values.to_pandas().astype(column.dtype)
    return pd.DataFrame(data)


def conform(frame: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Give a frame this table's columns in order and their dtypes; further columns follow, as they are.

    Use it wherever a frame comes from outside: another Parquet reader, CSV, a user's own selection. A missing
    column is added as missing values.
    """
    import pandas as pd

    data: dict[str, Any] = {}
    for column in table.columns:
        if column.name in frame:
            values = frame[column.name]
            if column.kind is Kind.TIME and not isinstance(values.dtype, pd.DatetimeTZDtype):
                values = pd.to_datetime(values, utc=True, format="ISO8601")
            elif column.kind is Kind.WORD:
                values = values.astype(object)
            data[column.name] = values.astype(column.dtype)
        else:
            data[column.name] = pd.Series(dtype=column.dtype).reindex(frame.index)
    data.update({str(name): frame[name] for name in frame.columns if name not in table.by_name})
    result = pd.DataFrame(data, index=frame.index)
    result.attrs = dict(frame.attrs)
    return result


def describe(table: Table) -> str:
    """The table's columns, dtypes and meanings as text, for docs and terminals.

    >>> print(describe(CERTIFICATES).splitlines()[0])
    certificates: one row per distinct certificate seen
    """
    width = max(len(column.name) for column in table.columns)
    lines = [f"{table.name}: one row per {table.one_row_per}"]
    lines += [f"  {column.name:<{width}}  {column.kind:<7}  {column.meaning}" for column in table.columns]
    return "\n".join(lines)


def rows_of(table: Table, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows as mappings of Python values by column name, missing values as None."""
    import pandas as pd

    columns: dict[str, list[Any]] = {}
    for name in frame.columns:
        column = table.by_name.get(name)
        values = frame[name]
        if column is not None and column.kind in (Kind.LIST, Kind.BYTES):
            columns[name] = [None if value is pd.NA else value for value in values.array]
        elif column is not None and column.kind is Kind.TIME:
            columns[name] = [None if pd.isna(value) else value.to_pydatetime() for value in values]
        else:
            columns[name] = [None if value is pd.NA or value != value else value for value in values.tolist()]
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def write_csv(frame: pd.DataFrame, file: Any, *, header: bool = True) -> None:
    """Write a frame as CSV: lists as JSON, bytes as base64, missing values empty; without `header`, its rows alone."""
    import base64
    import json

    shown = frame.copy(deep=False)
    for name in shown.columns:
        first = next((value for value in shown[name].array if isinstance(value, (list, bytes))), None)
        if isinstance(first, list):
            shown[name] = [json.dumps(v) if isinstance(v, list) else None for v in shown[name].array]
        elif isinstance(first, bytes):
            shown[name] = [
                base64.b64encode(v).decode() if isinstance(v, bytes) else None for v in shown[name].array
            ]
    shown.to_csv(file, index=False, header=header)
