"""The page of a domain: every step with what was seen, the verdict with its reason, as text and as HTML."""

from __future__ import annotations

import asyncio
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis.lab import Lab
from rtls_analysis.outcomes import Obstacle
from rtls_analysis.pages import WHAT_IT_MEANS, WHAT_TO_DO, DomainPage, Mark
from rtls_analysis.schema import TABLES, rows_of
from rtls_analysis.standards.names import NameProblem
from rtls_analysis.store import Snapshot
from tests.lab.truth import rows_by_key

_VOID = {"meta", "br", "hr", "img", "input", "link"}


class _Reader(HTMLParser):
    """Reads HTML strictly: what is opened is closed; keeps the text and the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("src", "href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def read_html(source: str) -> str:
    """The text of a page, having seen that its HTML is well-formed, and brings no script and nothing from elsewhere."""
    reader = _Reader()
    reader.feed(source)
    reader.close()
    assert reader.open == []
    assert not {"script", "img", "iframe", "object", "link", "form"} & set(reader.tags)
    return " ".join(" ".join(reader.text).split())


def steps(page: DomainPage, section: int = 1) -> dict[str, tuple[str, str]]:
    """What was seen at each step of a section, and how it stands."""
    return {step.label: (step.seen, str(step.mark)) for step in page.sections[section].steps}


# -- what is on it -------------------------------------------------------------------------------------------


def test_every_step_of_a_host_that_is_ready(scanned: rtls.Snapshot) -> None:
    """Both EHLO replies, certificate, TLSA records, policy and verdict, in the order in which they were met."""
    page = DomainPage(scanned, "dane-and-sts.test")
    host = "mx1.dane-and-sts.test"
    session = next(row for (name, _), row in rows_by_key(scanned, "sessions").items() if name == host)
    tlsa = rows_by_key(scanned, "hosts")[host,]["tlsa"]
    labels = [step.label for step in page.sections[1].steps]
    assert labels == [
        "MX name secured",
        "addresses",
        "TLSA records",
        "greeting",
        "EHLO before TLS",
        "TLS handshake",
        "certificate",
        "DANE",
        "EHLO inside TLS",
    ]
    assert page.sections[1].title == f"{host} at {session['address']}"
    assert (page.sections[1].verdict, page.sections[1].mark) == ("ready for REQUIRETLS mail", Mark.GOOD)
    for text in (str(page), read_html(page._repr_html_())):
        assert "REQUIRETLS mail can be delivered, at every address." in text
        for line in [*session["ehlo_plain"], *session["ehlo_tls"], *tlsa, session["banner"]]:
            assert line in text
        for line in ("version: STSv1", "mode: enforce", f"mx: {host}", "v=STSv1; id=20261101;"):
            assert line in text
        assert "TLSv1.3 " in text
        assert "names mx1.dane-and-sts.test" in text  # of the certificate
        assert "the policy names it" in text


PAGES = [
    ("requiretls.test", "not secured", "MX name secured", "bad", Obstacle.MX_UNAUTHENTICATED),
    ("signed-plain.test", "no STARTTLS", "EHLO before TLS", "bad", Obstacle.NO_STARTTLS),
    ("dane-mismatch.test", "mismatch", "DANE", "bad", Obstacle.DANE_MISMATCH),
    ("requiretls-expired-signed.test", "expired", "certificate", "bad", Obstacle.CERTIFICATE_UNVERIFIED),
    ("signed.test", "no REQUIRETLS", "EHLO inside TLS", "bad", Obstacle.REQUIRETLS_NOT_OFFERED),
    ("tls11-signed.test", "TLSv1.1", "TLS handshake", "bad", Obstacle.TLS_TOO_OLD),
    ("silent-signed.test", "timeout at greeting", "the session ended early", "open", Obstacle.UNREACHABLE),
    ("starttls-busy-signed.test", "greylisted at starttls: 454", "the session ended early", "open", Obstacle.UNREACHABLE),
    ("handshake-close-signed.test", "tls failed at handshake", "the session ended early", "bad", Obstacle.TLS_FAILED),
    ("signed-sts-mismatch.test", "the policy does not name it", "MX name secured", "good", Obstacle.STS_FORBIDS_HOST),
    ("tlsa-bogus.test", "the lookup failed", "TLSA records", "open", Obstacle.DNS_ERROR),
    ("injected.test", "29 bytes came after", "injected plaintext", "bad", Obstacle.MX_UNAUTHENTICATED),
    ("requiretls-plain-only.test", "announces REQUIRETLS before TLS, which proves nothing", "EHLO before TLS", "good", Obstacle.MX_UNAUTHENTICATED),
    ("inside-silent-signed.test", "no whole answer", "EHLO inside TLS", "open", Obstacle.UNKNOWN),
    ("dane-self-signed.test", "self signed", "certificate", "fact", Obstacle.NONE),
    ("tlsa-insecure.test", "present, but not signed: ignored", "TLSA records", "fact", None),
    ("dane-alias-secure.test", "an alias of host.", "addresses", "fact", Obstacle.NONE),
]  # fmt: skip


@pytest.mark.parametrize(
    ("domain", "seen", "label", "mark", "obstacle"), PAGES, ids=[page[0] for page in PAGES]
)
def test_what_stops_it_and_why(
    scanned: rtls.Snapshot, domain: str, seen: str, label: str, mark: str, obstacle: Obstacle | None
) -> None:
    """The step where it fails says what was seen, the verdict what that means, the advice what would do."""
    page = DomainPage(scanned, domain)
    words, how = steps(page)[label]
    assert seen in words
    assert how == mark
    section = page.sections[1]
    if obstacle:
        assert section.verdict == WHAT_IT_MEANS[obstacle]
        assert section.advice == WHAT_TO_DO[obstacle]
        assert WHAT_IT_MEANS[obstacle] in page.headline
    elif obstacle is Obstacle.NONE:
        assert section.verdict == "ready for REQUIRETLS mail"
    for text in (str(page), read_html(page._repr_html_())):
        assert " ".join(section.verdict.split()) in " ".join(text.split())
        assert words[:60] in text


POLICIES = [
    ("sts-testing.test", "mode testing, 86,400 seconds", "fact"),
    ("sts-html.test", "content type", "bad"),
    ("sts-not-found.test", "http status", "bad"),
    ("sts-redirect.test", "redirect", "bad"),
    ("sts-policy-expired.test", "certificate invalid", "bad"),
    ("sts-policy-silent.test", "timeout", "open"),
    ("sts-policy-refused.test", "connect failed", "open"),
    ("sts-policy-servfail.test", "dns failure", "open"),
]


@pytest.mark.parametrize(("domain", "seen", "mark"), POLICIES)
def test_a_policy_that_is_none_says_why(scanned: rtls.Snapshot, domain: str, seen: str, mark: str) -> None:
    """What was served wrongly is bad, what could not be had is open; the body is shown where there is one."""
    page = DomainPage(scanned, domain)
    words, how = steps(page, 0)["MTA-STS policy"]
    assert words.startswith(seen)
    assert how == mark


NOBODY = [
    ("null-mx.test", "null MX: the domain takes no mail", "REQUIRETLS mail cannot be sent here"),
    ("nxdomain.test", "no such domain", "REQUIRETLS mail cannot be sent here"),
    ("no-mail.test", "neither MX nor address", "REQUIRETLS mail cannot be sent here"),
    ("servfail.test", "the lookup failed", "could not be told"),
    ("bogus.test", "the lookup failed", "could not be told"),
]


@pytest.mark.parametrize(("domain", "seen", "headline"), NOBODY)
def test_domains_without_servers(scanned: rtls.Snapshot, domain: str, seen: str, headline: str) -> None:
    """Their page is short and says why."""
    page = DomainPage(scanned, domain)
    assert len(page.sections) == 1
    assert seen in steps(page, 0)["MX lookup"][0]
    assert headline in page.headline


def test_hosts_without_an_address_and_addresses_left_alone(scanned: rtls.Snapshot) -> None:
    """Each has its section, and the reason."""
    (_, host) = DomainPage(scanned, "no-address.test").sections
    assert host.title == "mx1.no-address.test"
    assert "mx no address" in host.steps[1].seen
    page = DomainPage(scanned, "special-signed.test")
    assert "not contacted: special address" in steps(page)["session"][0]
    assert "not tested" in page.headline


def test_who_was_not_looked_up(lab: Lab) -> None:
    """A domain that opted out, and text that is no name, have a page that claims nothing."""
    given = {**lab.scan_options, "opt_out": ["valid.test"]}
    snapshot = rtls.scan(["valid.test", "no\x1b[2J name"], progress=False, **given)
    page = DomainPage(snapshot, "valid.test")
    assert (
        page.headline == "Whether REQUIRETLS mail can be delivered was not tested: no server was contacted."
    )
    assert steps(page, 0)["MX lookup"] == ("not looked up", "open")
    bad = DomainPage(snapshot, "no\x1b[2J name")
    assert steps(bad, 0)["MX lookup"] == ("not a domain name", "bad")
    for shown in (page, bad):
        assert all(line.isprintable() for line in str(shown).splitlines())
        assert "\x1b" not in shown._repr_html_()
        read_html(shown._repr_html_())


def test_each_address_has_its_own_section(scanned: rtls.Snapshot) -> None:
    """In the order of preference; REQUIRETLS at one of three is a yes at some."""
    page = DomainPage(scanned, "one-of-three.test")
    assert len(page.sections) == 4
    assert page.headline == "REQUIRETLS mail can be delivered, but only at some of the addresses."
    assert sum(section.mark is Mark.GOOD for section in page.sections) == 1
    hosts = [section.title.split()[0] for section in DomainPage(scanned, "two-hosts.test").sections[1:]]
    assert hosts == ["mx1.two-hosts.test", "mx2.two-hosts.test"]


def test_every_domain_has_a_page(lab: Lab, scanned: rtls.Snapshot) -> None:
    """No kind of domain is without one, and each is well-formed; its headline agrees with the tables."""
    words = {
        "all": "at every address",
        "some": "only at some",
        "none": "cannot be delivered: ",
        "unknown": "could not be told: ",
        "not_tested": "was not tested",
        "not_applicable": "cannot be sent here: ",
    }
    ready = scanned.domains.set_index("domain")["requiretls_ready"]
    for domain in lab.domains[:209]:
        page = DomainPage(scanned, domain)
        assert words[ready[domain]] in page.headline, domain
        read_html(page._repr_html_())
        lines = str(page).splitlines()
        assert set(lines[1]) == {"="}
        assert all(line.isprintable() for line in lines), domain


def test_a_page_as_a_file(scanned: rtls.Snapshot, tmp_path: Path) -> None:
    """Self-contained, to send to the one who can fix it."""
    page = DomainPage(scanned, "xn--mller-post-9db.test")
    page.write_html(tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert source.startswith("<!doctype html>")
    assert "<title>müller-post.test (xn--mller-post-9db.test), " in source
    assert "müller-post.test" in read_html(source.removeprefix("<!doctype html>"))
    assert repr(page) == f"<DomainPage xn--mller-post-9db.test: {page.headline}>"


def test_a_domain_that_is_not_there(scanned: rtls.Snapshot) -> None:
    """It is a KeyError, as for any mapping."""
    with pytest.raises(KeyError):
        DomainPage(scanned, "nowhere.test")


# -- hostile text --------------------------------------------------------------------------------------------

EVIL = "<script>alert('x')</script>\"&\x1b[2J\r\n\x00\u202e'onmouseover='x"


def hostile(snapshot: rtls.Snapshot, domain: str) -> rtls.Snapshot:
    """The snapshot with evil text wherever a remote may write."""
    frames = {}
    for name, table in TABLES.items():
        if name not in ("domains", "mx", "hosts", "sessions", "certificates", "attempts"):
            continue
        rows = rows_of(table, snapshot.table(name))
        for row in rows:
            if name == "sessions":
                row.update(banner=EVIL, ehlo_plain=[EVIL] * 2, ehlo_tls=[EVIL], reply_text=EVIL, detail=EVIL)
                row.update(injected_bytes=5, injected_text=EVIL, pkix_detail=EVIL)
                row.update(reply_code=550, outcome="blocked", stage="quit", cipher=EVIL, key_exchange=EVIL)
            if name == "domains":
                row.update(
                    sts_texts=[EVIL], tlsrpt_texts=[EVIL], tlsrpt_rua=[EVIL], detail=EVIL, sts_detail=EVIL
                )
                row.update(sts_policy_text=EVIL, sts_policy_id=EVIL)
            if name == "hosts":
                row.update(detail=EVIL)
            if name == "certificates":
                row.update(subject=EVIL, issuer=EVIL, dns_names=[EVIL], key=EVIL)
        from rtls_analysis.schema import to_frame

        frames[name] = to_frame(table, rows)
    return Snapshot(None, snapshot.manifest, snapshot.roots_pem, frames)


def test_hostile_text_is_text(tiny: rtls.Snapshot) -> None:
    """Whatever a remote wrote stands on the page as text: no tag, no control character, no line of its own."""
    evil = hostile(tiny, "sts-enforce.test")
    page = DomainPage(evil, "sts-enforce.test")
    source = page._repr_html_()
    text = read_html(source)
    assert "<script>" not in source
    assert html.escape("<script>alert('x')</script>") in source
    assert text.count("<script>alert('x')</script>") > 8
    for shown in (source, str(page)):
        assert "\x1b" not in shown
        assert "\x00" not in shown
        assert "\u202e" not in shown
    assert r"\x1b[2J\x0d\x0a\x00\x202e" in text
    assert all(line.isprintable() for line in str(page).splitlines())


def test_very_long_text_is_cut(tiny: rtls.Snapshot) -> None:
    """A line of megabytes does not fill the page."""
    rows = rows_of(TABLES["sessions"], tiny.sessions)
    for row in rows:
        row["banner"] = "x" * 1_000_000
    from rtls_analysis.schema import to_frame

    frames = {name: tiny.table(name) for name in ("domains", "mx", "hosts", "certificates", "attempts")}
    frames["sessions"] = to_frame(TABLES["sessions"], rows)
    page = DomainPage(Snapshot(None, tiny.manifest, tiny.roots_pem, frames), "valid.test")
    assert len(page._repr_html_()) < 20_000
    assert "xxx ..." in str(page)


# -- scan_domain ---------------------------------------------------------------------------------------------


def test_scan_domain(lab: Lab) -> None:
    """One domain in any form, scanned and shown; its tables are at hand."""
    page = rtls.scan_domain("REQUIRETLS-dnssec.Test.", **lab.scan_options)
    assert page.domain == "requiretls-dnssec.test"
    assert len(page.snapshot.sessions) == 1
    assert page.headline == "REQUIRETLS mail can be delivered, at every address."
    assert re.match(r"requiretls-dnssec\.test, \d{4}-\d\d-\d\d \d\d:\d\d UTC\n=+\n", str(page))


def test_scan_domain_in_a_running_loop(lab: Lab) -> None:
    """As in a notebook: no await, no nested loop."""

    async def cell() -> DomainPage:
        return rtls.scan_domain("valid.test", **lab.scan_options)

    assert asyncio.run(cell()).domain == "valid.test"


def test_scan_domain_without_a_name(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no domain is an error at once; without an EHLO name one line says how to give it."""
    with pytest.raises(NameProblem, match="no domain"):
        rtls.scan_domain("no domain", **lab.scan_options)
    from rtls_analysis.scanner import options

    monkeypatch.setattr(options, "_configured", {})
    for name in ("RTLS_EHLO_NAME", "RTLS_CONTACT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(rtls.ScanProblem, match=r"no EHLO name and no contact: .*rtls\.configure"):
        rtls.scan_domain("valid.test", resolver=lab.scan_options["resolver"])


def test_an_untrusted_resolver_leaves_dnssec_untested(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNSSEC and DANE are then not tested, which the page says; nothing becomes a no for it."""
    from rtls_analysis.scanner.resolver import ResolverAddress

    monkeypatch.setattr(ResolverAddress, "is_private", property(lambda self: False))
    page = rtls.scan_domain("dane-311.test", **lab.scan_options)
    assert "DNSSEC not tested" in steps(page, 0)["MX lookup"][0]
    assert steps(page)["TLSA records"] == ("not tested", "open")
    row = page.snapshot.domains.iloc[0]
    assert (row["mx_dnssec"], row["dane"], row["requiretls_ready"]) == ("not_tested", "not_tested", "unknown")
    assert row["starttls"] == "all"
    assert "could be forged on the way here" in page.snapshot.manifest["resolver"]["warning"]
