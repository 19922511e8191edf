"""One domain, close up: every step a sender would take, what was seen, and the verdict with its reason.

The same page as text for a terminal and as HTML for a notebook, or to send to the one who can fix it.
"""

from __future__ import annotations

import html
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rtls_analysis.analysis.obstacles import WHAT_IT_MEANS, WHAT_TO_DO
from rtls_analysis.outcomes import (
    NOT_CONTACTED,
    DaneState,
    DnsSecurity,
    DomainShare,
    FeatureState,
    MxState,
    Obstacle,
    PkixState,
    SecuredBy,
    SessionOutcome,
    SessionStage,
    StsMode,
    StsPolicyState,
    StsRecordState,
    TlsaState,
    TlsrptState,
)
from rtls_analysis.scanner.campaign import scan
from rtls_analysis.standards.names import to_ascii, to_unicode
from rtls_analysis.store import Snapshot
from rtls_analysis.verdicts import HopResult, explain, snapshot_rows


class Mark(StrEnum):
    """How a step stands for a REQUIRETLS message."""

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"  # could not be told
    FACT = "fact"  # neither good nor bad


@dataclass(frozen=True, slots=True)
class Step:
    """One step on the way: what it is, what was seen, and the raw evidence."""

    label: str
    seen: str
    mark: Mark = Mark.FACT
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: the domain's own records, or one MX host at one address."""

    title: str
    steps: tuple[Step, ...]
    verdict: str = ""
    mark: Mark = Mark.FACT
    advice: str = ""
    note: str = ""


_NO_MAIL: Mapping[MxState, str] = {
    MxState.BAD_NAME: "this is not a domain name",
    MxState.NXDOMAIN: "there is no such domain",
    MxState.NULL_MX: "by its null MX the domain takes no mail",
    MxState.NO_MAIL: "the domain takes no mail: it has neither an MX record nor an address",
}

_SHARES: Mapping[DomainShare, tuple[Mark, str]] = {
    DomainShare.ALL: (Mark.GOOD, "yes, at every address"),
    DomainShare.SOME: (Mark.GOOD, "at some addresses only"),
    DomainShare.NONE: (Mark.BAD, "no"),
    DomainShare.UNKNOWN: (Mark.OPEN, "could not be told"),
    DomainShare.NOT_TESTED: (Mark.OPEN, "not tested"),
    DomainShare.NOT_APPLICABLE: (Mark.FACT, "does not apply"),
}


def scan_domain(domain: str, **options: Any) -> DomainPage:
    """Scan one domain and show it close up: every step, every reason.

    Parameters
    ----------
    domain
        The domain, as A-labels or as people write it.
    **options
        As for `rtls.scan`.

    Returns
    -------
    DomainPage
        A page: HTML in a notebook, text when printed; its `snapshot` holds the tables.

    Raises
    ------
    NameProblem
        The text is no domain name.
    """
    name = to_ascii(domain)
    options.setdefault("progress", False)
    return DomainPage(scan([name], **options), name)


class DomainPage:
    """The page of one domain of a snapshot.

    Parameters
    ----------
    snapshot
        What `rtls.scan` gave, or `rtls.open_snapshot`.
    domain
        One of its domains; `KeyError` where it has no such domain.
    """

    def __init__(self, snapshot: Snapshot, domain: str) -> None:
        self.snapshot = snapshot
        self.domain = domain
        self._result = explain(snapshot, domain)
        self._row = snapshot_rows(snapshot, "domains", {"domain": domain})[0]
        self._mx = snapshot_rows(snapshot, "mx", {"domain": domain})
        names = [row["mx_host"] for row in self._mx]
        self._hosts = {row["mx_host"]: row for row in snapshot_rows(snapshot, "hosts", {"mx_host": names})}
        self._sessions = {
            (row["mx_host"], row["address"]): row
            for row in snapshot_rows(snapshot, "sessions", {"mx_host": names})
        }
        self._certificates = {
            row["sha256"]: row
            for row in snapshot_rows(snapshot, "certificates", {"sha256": sorted(self._chain_names())})
        }
        self.sections = self._make_sections()

    def _chain_names(self) -> set[str]:
        return {sha for row in self._sessions.values() for sha in row["chain_sha256"] or ()}

    # -- what is on the page ---------------------------------------------------------------------------------

    @property
    def headline(self) -> str:
        """The verdict on the domain in one sentence."""
        ready = DomainShare(self._row["requiretls_ready"])
        obstacle = Obstacle(self._row["obstacle"])
        match ready:
            case DomainShare.ALL:
                return "REQUIRETLS mail can be delivered, at every address."
            case DomainShare.SOME:
                return "REQUIRETLS mail can be delivered, but only at some of the addresses."
            case DomainShare.NONE:
                return f"REQUIRETLS mail cannot be delivered: {WHAT_IT_MEANS[obstacle]}."
            case DomainShare.NOT_APPLICABLE:
                why = _NO_MAIL.get(self._row["mx_state"], WHAT_IT_MEANS.get(obstacle, "no address to ask"))
                return f"REQUIRETLS mail cannot be sent here: {why}."
            case DomainShare.NOT_TESTED:
                return "Whether REQUIRETLS mail can be delivered was not tested: no server was contacted."
            case _:
                return (
                    f"Whether REQUIRETLS mail can be delivered could not be told: {WHAT_IT_MEANS[obstacle]}."
                )

    def _make_sections(self) -> tuple[Section, ...]:
        sections = [self._domain_section()]
        hops = {(hop.mx_host, hop.address): hop for hop in self._result.hops}
        for row in self._mx:
            host = self._hosts[row["mx_host"]]
            addresses = host["addresses"] or [""]
            for address in addresses:
                hop = hops.get((row["mx_host"], address)) or hops.get((row["mx_host"], ""))
                sections.append(self._hop_section(row, host, address, hop))
        return tuple(sections)

    def _domain_section(self) -> Section:
        row = self._row
        steps = [self._mx_step()]
        steps += self._sts_steps()
        tlsrpt = row["tlsrpt"]
        seen = (
            "asks for TLS reports: " + ", ".join(row["tlsrpt_rua"]) if row["tlsrpt_rua"] else _words(tlsrpt)
        )
        mark = Mark.OPEN if tlsrpt in (TlsrptState.DNS_FAILURE, TlsrptState.NOT_TESTED) else Mark.FACT
        steps.append(Step("TLS reporting", seen, mark, tuple(row["tlsrpt_texts"] or ())))
        shares = (
            ("STARTTLS works", "starttls"),
            ("certificate valid", "pkix"),
            ("authenticated by DANE", "dane"),
            ("REQUIRETLS offered", "requiretls_offered"),
            ("ready for REQUIRETLS", "requiretls_ready"),
        )
        for label, column in shares:
            mark, words = _SHARES[DomainShare(row[column])]
            if column == "dane" and mark is Mark.BAD:
                mark = Mark.FACT  # DANE is one of two ways
            steps.append(Step(label, words, mark))
        if row["requiretls_ready_testing"] != row["requiretls_ready"]:
            _mark, words = _SHARES[DomainShare(row["requiretls_ready_testing"])]
            steps.append(Step("ready, if MTA-STS mode testing counts", words))
        return Section("The domain", tuple(steps), note=row["detail"] or "")

    def _mx_step(self) -> Step:
        row = self._row
        if row["mx_state"] is None:
            return Step("MX lookup", "not looked up", Mark.OPEN)
        state, security = MxState(row["mx_state"]), DnsSecurity(row["mx_dnssec"])
        lines = tuple(f"{mx['preference']} {mx['mx_host']}" for mx in self._mx)
        seen = {
            MxState.MX: f"{len(lines)} MX host{'s' if len(lines) != 1 else ''}",
            MxState.IMPLICIT_MX: "no MX record; the domain's own address counts",
            MxState.NULL_MX: "null MX: the domain takes no mail",
            MxState.NULL_MX_WITH_OTHERS: "a null MX beside others, which is an error; the others count",
            MxState.NO_MAIL: "neither MX nor address: the domain takes no mail",
            MxState.NXDOMAIN: "no such domain",
            MxState.DNS_FAILURE: "the lookup failed",
            MxState.BAD_NAME: "not a domain name",
        }.get(state, _words(state))
        if state in (MxState.DNS_FAILURE, MxState.BAD_NAME):
            return Step("MX lookup", seen, Mark.OPEN if state is MxState.DNS_FAILURE else Mark.BAD, lines)
        signed = {
            DnsSecurity.SECURE: "signed (DNSSEC)",
            DnsSecurity.INSECURE: "not signed",
            DnsSecurity.ERROR: "DNSSEC failed",
            DnsSecurity.NOT_TESTED: "DNSSEC not tested",
        }[security]
        mark = Mark.GOOD if security is DnsSecurity.SECURE and self._mx else Mark.FACT
        return Step("MX lookup", f"{seen}; {signed}", mark, lines)

    def _sts_steps(self) -> list[Step]:
        row = self._row
        record = StsRecordState(row["sts_record"])
        texts = tuple(row["sts_texts"] or ())
        marks = {StsRecordState.VALID: Mark.GOOD, StsRecordState.ABSENT: Mark.FACT}
        marks |= {StsRecordState.DNS_FAILURE: Mark.OPEN, StsRecordState.NOT_TESTED: Mark.OPEN}
        seen = f"id {row['sts_policy_id']}" if row["sts_policy_id"] else _words(record)
        steps = [Step("MTA-STS record", seen, marks.get(record, Mark.BAD), texts)]
        if record is not StsRecordState.VALID:
            return steps
        policy = StsPolicyState(row["sts_policy"])
        body = tuple((row["sts_policy_text"] or "").splitlines()[:60])
        if policy is StsPolicyState.VALID:
            mode = StsMode(row["sts_mode"])
            seen = f"mode {mode}, {row['sts_max_age_seconds']:,} seconds"
            mark = Mark.GOOD if mode is StsMode.ENFORCE else Mark.FACT
        else:
            seen = _words(policy)
            could_not_tell = (
                StsPolicyState.CONNECT_FAILED,
                StsPolicyState.TIMEOUT,
                StsPolicyState.DNS_FAILURE,
                StsPolicyState.NOT_TESTED,
            )
            mark = Mark.OPEN if policy in could_not_tell else Mark.BAD
        if row["sts_detail"]:
            seen += f": {row['sts_detail']}"
        if row["sts_http_status"] is not None and policy is not StsPolicyState.VALID:
            seen += f" (HTTP {row['sts_http_status']}, {row['sts_content_type'] or 'no media type'})"
        steps.append(Step("MTA-STS policy", seen, mark, body))
        return steps

    def _hop_section(
        self, mx: Mapping[str, Any], host: Mapping[str, Any], address: str, hop: HopResult | None
    ) -> Section:
        steps = [self._name_step(mx), self._address_step(mx, host), self._tlsa_step(host)]
        session = self._sessions.get((mx["mx_host"], address))
        if session is not None:
            steps += self._session_steps(session, hop)
        title = f"{mx['mx_host']} at {address}" if address else f"{mx['mx_host']}"
        if hop is None:
            return Section(title, tuple(steps), WHAT_IT_MEANS[Obstacle.NO_MX], Mark.BAD)
        obstacle = hop.verdict.obstacle
        if obstacle is Obstacle.NONE:
            return Section(title, tuple(steps), "ready for REQUIRETLS mail", Mark.GOOD)
        is_open = obstacle in (Obstacle.UNKNOWN, Obstacle.UNREACHABLE, Obstacle.DNS_ERROR)
        also = [WHAT_IT_MEANS[item] for item in hop.verdict.obstacles if item is not obstacle]
        return Section(
            title,
            tuple(steps),
            WHAT_IT_MEANS[obstacle],
            Mark.OPEN if is_open else Mark.BAD,
            WHAT_TO_DO[obstacle],
            "Found besides: " + "; ".join(also) if also else "",
        )

    def _name_step(self, mx: Mapping[str, Any]) -> Step:
        secured = SecuredBy(mx["secured_by"])
        seen, mark = {
            SecuredBy.DNSSEC: ("by DNSSEC", Mark.GOOD),
            SecuredBy.MTA_STS: ("by the MTA-STS policy", Mark.GOOD),
            SecuredBy.IMPLICIT_MX: ("not needed: there is no MX record", Mark.GOOD),
            SecuredBy.NONE: ("not secured", Mark.BAD),
            SecuredBy.UNKNOWN: ("could not be told", Mark.OPEN),
        }[secured]
        if mx["sts_match"] is not None:
            seen += "; the policy names it" if mx["sts_match"] else "; the policy does not name it"
        return Step("MX name secured", seen, mark)

    def _address_step(self, mx: Mapping[str, Any], host: Mapping[str, Any]) -> Step:
        state = MxState(mx["mx_state"])
        addresses = tuple(host["addresses"] or ())
        seen = f"{len(addresses)} address{'es' if len(addresses) != 1 else ''}, {_words(host['addresses_dnssec'])}"
        mark = Mark.FACT
        if state not in (MxState.MX, MxState.MX_IS_CNAME):
            seen, mark = _words(state), Mark.OPEN if state is MxState.DNS_FAILURE else Mark.BAD
        if host["canonical_name"] != host["mx_host"]:
            seen += f"; an alias of {host['canonical_name']}"
        if host["detail"]:
            seen += f"; {host['detail']}"
        return Step("addresses", seen, mark, addresses)

    def _tlsa_step(self, host: Mapping[str, Any]) -> Step:
        state = TlsaState(host["tlsa_state"])
        seen = {
            TlsaState.USABLE: "usable",
            TlsaState.UNUSABLE: "secure, but no record that a sender may use",
            TlsaState.NONE: "none",
            TlsaState.INSECURE: "present, but not signed: ignored",
            TlsaState.ERROR: "the lookup failed: a sender must not deliver here",
            TlsaState.NOT_TESTED: "not tested",
        }[state]
        mark = {TlsaState.ERROR: Mark.OPEN, TlsaState.NOT_TESTED: Mark.OPEN}.get(state, Mark.FACT)
        if host["tlsa_base"] and host["tlsa_base"] != host["mx_host"]:
            seen += f" (at {host['tlsa_base']})"
        return Step("TLSA records", seen, mark, tuple(host["tlsa"] or ()))

    def _session_steps(self, session: Mapping[str, Any], hop: HopResult | None) -> list[Step]:
        outcome, stage = SessionOutcome(session["outcome"]), SessionStage(session["stage"])
        if outcome in NOT_CONTACTED:
            return [Step("session", f"not contacted: {session['detail'] or _words(outcome)}", Mark.OPEN)]
        ended = outcome is not SessionOutcome.COMPLETED
        why = f"{_words(outcome)} at {_words(stage)}"
        if session["reply_code"] is not None and ended:
            why += f": {session['reply_code']} {session['reply_text'] or ''}".rstrip()
        if session["detail"]:
            why += f" ({session['detail']})"
        steps: list[Step] = []
        if session["banner"] is not None:
            steps.append(Step("greeting", session["banner"] or "(empty)"))
        if session["ehlo_plain"]:
            offer = "offers STARTTLS" if session["starttls"] != FeatureState.NO else "no STARTTLS"
            if stage is SessionStage.EHLO:
                offer = "refused or broken off"
            if session["requiretls_plain"] == FeatureState.YES:
                offer += "; announces REQUIRETLS before TLS, which proves nothing"
            steps.append(
                Step(
                    "EHLO before TLS", offer, _feature_mark(session["starttls"]), tuple(session["ehlo_plain"])
                )
            )
        if session["injected_bytes"]:
            steps.append(
                Step(
                    "injected plaintext",
                    f"{session['injected_bytes']} bytes came after the answer to STARTTLS, before TLS; ignored",
                    Mark.BAD,
                    (session["injected_text"] or "",),
                )
            )
        if session["starttls"] == FeatureState.YES:
            steps += self._tls_steps(session, hop)
        if ended:
            mark = Mark.BAD if session["starttls"] == FeatureState.FAILED else Mark.OPEN
            steps.append(Step("the session ended early", why, mark))
        return steps

    def _tls_steps(self, session: Mapping[str, Any], hop: HopResult | None) -> list[Step]:
        handshake = f"{session['tls_version']} {session['cipher']} ({session['cipher_bits']} bits)"
        if session["key_exchange"]:
            handshake += f", key exchange {session['key_exchange']}"
        too_old = hop is not None and Obstacle.TLS_TOO_OLD in hop.verdict.obstacles
        steps = [Step("TLS handshake", handshake, Mark.BAD if too_old else Mark.GOOD)]
        pkix = PkixState(session["pkix"])
        seen = "valid for this host" if pkix is PkixState.VALID else _words(pkix)
        if session["pkix_detail"] and pkix is not PkixState.VALID:
            seen += f": {session['pkix_detail']}"
        chain = tuple(self._certificate_line(sha) for sha in session["chain_sha256"] or ())
        dane = DaneState(session["dane"])
        by_dane = hop.dane_check.state is DaneState.MATCH if hop is not None and hop.dane_check else False
        mark = Mark.GOOD if pkix is PkixState.VALID else Mark.FACT if by_dane else Mark.BAD
        steps.append(Step("certificate", seen, mark, chain))
        if dane is not DaneState.NONE:
            check = hop.dane_check if hop is not None else None
            state = check.state if check is not None else dane
            words = f"{_words(state)}{': ' + check.detail if check is not None and check.detail else ''}"
            marks = {DaneState.MATCH: Mark.GOOD, DaneState.MISMATCH: Mark.BAD, DaneState.UNUSABLE: Mark.FACT}
            steps.append(Step("DANE", words, marks.get(state, Mark.OPEN)))
        requiretls = FeatureState(session["requiretls_tls"])
        seen = {FeatureState.YES: "announces REQUIRETLS", FeatureState.NO: "no REQUIRETLS"}.get(
            requiretls, "no whole answer"
        )
        steps.append(
            Step("EHLO inside TLS", seen, _feature_mark(requiretls), tuple(session["ehlo_tls"] or ()))
        )
        return steps

    def _certificate_line(self, sha256: str) -> str:
        held = self._certificates.get(sha256)
        if held is None:
            return sha256
        dates = " to ".join(
            f"{held[name]:%Y-%m-%d}" if held[name] else "?" for name in ("not_before", "not_after")
        )
        names = f", names {', '.join(held['dns_names'])}" if held["dns_names"] else ""
        return (
            f"{held['subject'] or '(no subject)'}, by {held['issuer'] or '?'}, {dates}, {held['key']}{names}"
        )

    # -- as text ---------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        title = self._title()
        lines = [title, "=" * len(title), *textwrap.wrap(self.headline, 100), ""]
        for section in self.sections:
            heading = _one_line(section.title)
            lines += [heading, "-" * len(heading)]
            width = max(len(step.label) for step in section.steps)
            for step in section.steps:
                lines.append(f"  {_SIGNS[step.mark]} {step.label:<{width}}  {_one_line(step.seen)}")
                lines += [f"    {'':<{width}}    {_one_line(item)}" for item in step.evidence]
            if section.verdict:
                lines.append(f"  => {_one_line(section.verdict)}")
            for text in filter(None, (section.advice, section.note)):
                indent = " " * 5
                lines += textwrap.wrap(_one_line(text), 100, initial_indent=indent, subsequent_indent=indent)
            lines.append("")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<DomainPage {self.domain}: {self.headline}>"

    def _title(self) -> str:
        shown = to_unicode(self.domain)
        name = _one_line(self.domain if shown == self.domain else f"{shown} ({self.domain})")
        moment = self._row["scanned_at"]
        return f"{name}, {moment:%Y-%m-%d %H:%M} UTC" if moment is not None else name

    # -- as HTML ---------------------------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        parts = [_STYLE, '<div class="rtls-page">', f"<h3>{html.escape(self._title())}</h3>"]
        share = DomainShare(self._row["requiretls_ready"])
        parts.append(f'<p class="rtls-verdict rtls-{_SHARES[share][0]}">{html.escape(self.headline)}</p>')
        parts += [_section_html(section) for section in self.sections]
        parts.append("</div>")
        return "\n".join(parts)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the page as a self-contained HTML file, to send to the one who can fix it."""
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(
                f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
                f'<meta name="viewport" content="width=device-width, initial-scale=1">'
                f"<title>{html.escape(self._title())}</title></head>\n<body>{self._repr_html_()}</body></html>\n"
            )


_SIGNS = {Mark.GOOD: "+", Mark.BAD: "x", Mark.OPEN: "?", Mark.FACT: " "}
_HTML_SIGNS = {Mark.GOOD: "&#10003;", Mark.BAD: "&#10007;", Mark.OPEN: "?", Mark.FACT: "&middot;"}
_SIGN_WORDS = {Mark.GOOD: "good", Mark.BAD: "stops it", Mark.OPEN: "could not be told", Mark.FACT: "noted"}
_STYLE = """<style>
.rtls-page { font: 14px/1.45 system-ui, sans-serif; max-width: 60em; overflow-wrap: anywhere; }
.rtls-page h3, .rtls-page h4 { margin: 1em 0 .3em; }
.rtls-page.rtls-page table { table-layout: auto; border-collapse: collapse; width: 100%; }
.rtls-page.rtls-page td, .rtls-page.rtls-page th { text-align: left; vertical-align: top; padding: .2em .6em .2em 0;
  border-top: 1px solid #8884; background: none; font-weight: normal; white-space: normal; }
.rtls-page td:first-child { width: 1.4em; font-weight: bold; }
.rtls-page th { width: 12em; }
.rtls-page pre { margin: .2em 0; font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
.rtls-page .rtls-verdict { border-left: 4px solid; padding: .1em .6em; font-weight: bold; }
.rtls-page .rtls-good { color: #00664b; } .rtls-page .rtls-bad { color: #a33a00; }
.rtls-page .rtls-open { color: #6b5200; } .rtls-page .rtls-fact { color: inherit; }
@media (prefers-color-scheme: dark) { .rtls-page .rtls-good { color: #3fc79a; }
  .rtls-page .rtls-bad { color: #f08a4b; } .rtls-page .rtls-open { color: #e0b84c; } }
@media print { .rtls-page details > * { display: block; } }
</style>"""


def _section_html(section: Section) -> str:
    rows = []
    for step in section.steps:
        evidence = ""
        if step.evidence:
            text = "\n".join(html.escape(_one_line(item)) for item in step.evidence)
            evidence = f"<details><summary>what was seen</summary><pre>{text}</pre></details>"
        rows.append(
            f'<tr><td class="rtls-{step.mark}" title="{_SIGN_WORDS[step.mark]}">'
            f'<span aria-label="{_SIGN_WORDS[step.mark]}">{_HTML_SIGNS[step.mark]}</span></td>'
            f"<th scope='row'>{html.escape(step.label)}</th>"
            f"<td>{html.escape(_one_line(step.seen))}{evidence}</td></tr>"
        )
    parts = [f"<h4>{html.escape(_one_line(section.title))}</h4>", f"<table>{''.join(rows)}</table>"]
    if section.verdict:
        parts.append(f'<p class="rtls-verdict rtls-{section.mark}">{html.escape(section.verdict)}</p>')
    parts += [f"<p>{html.escape(_one_line(text))}</p>" for text in (section.advice, section.note) if text]
    return "".join(parts)


def _feature_mark(state: str) -> Mark:
    if state == FeatureState.YES:
        return Mark.GOOD
    return Mark.BAD if state in (FeatureState.NO, FeatureState.FAILED) else Mark.OPEN


def _words(word: str | None) -> str:
    return str(word).replace("_", " ") if word is not None else "not tested"


def _one_line(text: str) -> str:
    """Keep what a remote wrote on one line and free of control characters."""
    clean = "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text)
    return clean if len(clean) <= 400 else f"{clean[:400]} ..."
