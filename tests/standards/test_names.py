from __future__ import annotations

import dns.name
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.names import (
    MAX_NAME,
    NameProblem,
    fold_host,
    is_address,
    matches_dns_id,
    registrable_domain,
    to_ascii,
    to_unicode,
)

LABEL63 = "a" * 63
NAME253 = ".".join([LABEL63, LABEL63, LABEL63, "a" * 61])

# why, what somebody wrote, the name
NAMES = [
    ("as it is", "example.org", "example.org"),
    ("capitals", "Example.ORG", "example.org"),
    ("final dot", "example.org.", "example.org"),
    ("white space around", " \texample.org\r\n", "example.org"),
    ("one label", "localhost", "localhost"),
    ("one label, a top-level domain", "org.", "org"),
    ("digits", "4.example.org", "4.example.org"),
    ("digits and letters at the end", "example.4u", "example.4u"),
    ("hyphens inside", "a--b-c.example", "a--b-c.example"),
    ("underscores", "_mta-sts.my_host.example", "_mta-sts.my_host.example"),
    ("label of 63", f"{LABEL63}.example", f"{LABEL63}.example"),
    ("name of 253", NAME253, NAME253),
    ("name of 253 and a final dot", f"{NAME253}.", NAME253),
    ("U-label", "bücher.example", "xn--bcher-kva.example"),
    ("U-label in capitals", "BÜCHER.Example", "xn--bcher-kva.example"),
    ("decomposed", "bu\u0308cher.example", "xn--bcher-kva.example"),
    ("sharp s stays one (IDNA 2008)", "straße.example", "xn--strae-oqa.example"),
    ("final sigma stays one", "βόλος.example", "xn--nxasmm1c.example"),
    ("joiner where a script needs it", "\u0dc1\u0dca\u200d\u0dbb\u0dd3.example", "xn--10cl1a0b660p.example"),
    ("another script", "例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ("from right to left", "\u05d0\u05d1.example", "xn--4dbc.example"),
    ("ideographic dots", "例え\u3002テスト\u3002", "xn--r8jz45g.xn--zckzah"),
    ("full-width letters", "ｅｘａｍｐｌｅ．ｏｒｇ", "example.org"),
    ("A-label", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ("A-label in capitals", "XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    ("A-label that IDNA 2008 would not make", "xn--ls8h.example", "xn--ls8h.example"),
    ("A-label beside a U-label", "xn--bcher-kva.bücher.example", "xn--bcher-kva.xn--bcher-kva.example"),
]

# why, what somebody wrote, words of the problem
NO_NAMES = [
    ("nothing", "", "the name is empty"),
    ("white space", " \t", "the name is empty"),
    ("the root", ".", "empty label"),
    ("dot first", ".example.org", "empty label"),
    ("two dots", "example..org", "empty label"),
    ("two final dots", "example.org..", "empty label"),
    ("label of 64", f"{LABEL63}a.example", "a label of 64 characters; 63 are allowed"),
    ("name of 254", f"{NAME253}a", "the name has 254 characters; 253 are allowed"),
    ("a megabyte", "a." * 500_000, "the name has 1000000 characters"),
    ("a megabyte of another script", "é" * 1_000_000, "the name has 1000000 characters"),
    ("U-label whose A-label is too long", "é" * 60 + ".example", "is no domain name"),
    ("space inside", "exa mple.org", "'exa mple' is no label"),
    ("NUL inside", "exa\0mple.org", "is no label"),
    ("hyphen first", "-a.example", "'-a' is no label"),
    ("hyphen last", "a-.example", "'a-' is no label"),
    ("wildcard", "*.example.org", "'*' is no label"),
    ("mail address", "me@example.org", "is a mail address; give what stands after its @"),
    ("page", "https://example.org/mail", "is the address of a page; give its domain name"),
    ("path", "example.org/mail", "is the address of a page"),
    ("port", "example.org:25", "is no label"),
    ("IPv4", "192.0.2.1", "is an address, not a domain name"),
    ("IPv4 literal", "[192.0.2.1]", "is an address"),
    ("IPv6", "2001:db8::1", "is an address"),
    ("IPv6 literal", "[IPv6:2001:db8::1]", "is an address"),
    ("like an IPv4 address", "1.2.3", "ends in a number, as no domain name does"),
    ("one number", "4711", "ends in a number"),
    ("numbers of 256 and more", "192.0.2.256", "ends in a number"),
    ("full-width IPv4", "１９２.０.２.１", "ends in a number"),
    ("hyphens in third and fourth place", "ab--ç.example", "is no domain name"),
    ("sign that no name may have", "☃☃.example", "is no domain name"),
    ("joiner where no script needs it", "a\u200db.é", "is no domain name"),
    ("both directions in a label", "\u05d0a.example", "is no domain name"),
    ("combining sign first", "\u0301a.example", "is no domain name"),
    ("lone surrogate", "a\ud800.example", "is no domain name"),
]


@pytest.mark.parametrize(("text", "name"), [pytest.param(*row, id=why) for why, *row in NAMES])
def test_to_ascii(text: str, name: str) -> None:
    """A name is given as the DNS wants it, however people wrote it, and once given stays as it is."""
    assert to_ascii(text) == name
    assert to_ascii(name) == name
    assert dns.name.from_text(name).to_text(omit_final_dot=True) == name


@pytest.mark.parametrize(("text", "words"), [pytest.param(*row, id=why) for why, *row in NO_NAMES])
def test_to_ascii_refuses(text: str, words: str) -> None:
    """What is no domain name is refused in a phrase that says why."""
    with pytest.raises(NameProblem) as raised:
        to_ascii(text)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 400


U_LABELS = [
    ("A-label", "xn--bcher-kva.example", "bücher.example"),
    ("two", "xn--r8jz45g.xn--zckzah", "例え.テスト"),
    ("none", "example.org", "example.org"),
    ("not valid", "xn--a.example", "xn--a.example"),
    ("empty", "xn--.example", "xn--.example"),
    ("a sign that no name may have", "xn--n3h.example", "xn--n3h.example"),
    ("too long", f"xn--{'a' * 60}.example", f"xn--{'a' * 60}.example"),
    ("inside a label", "axn--bcher-kva.example", "axn--bcher-kva.example"),
]


@pytest.mark.parametrize(("name", "text"), [pytest.param(*row, id=why) for why, *row in U_LABELS])
def test_to_unicode(name: str, text: str) -> None:
    """A-labels become readable where they are valid; what is not stays as it is."""
    assert to_unicode(name) == text


HOSTS = [
    ("MX.Example.ORG.", "mx.example.org"),
    ("mx.example.org", "mx.example.org"),
    ("mx.example.org..", "mx.example.org."),
    (".", "."),
    ("", ""),
]


@pytest.mark.parametrize(("name", "folded"), HOSTS)
def test_fold_host(name: str, folded: str) -> None:
    """Names out of the DNS lose case and the final dot, but for the root."""
    assert fold_host(name) == folded


ADDRESSES = [
    ("192.0.2.1", True),
    ("2001:db8::1", True),
    ("::", True),
    ("::ffff:192.0.2.1", True),
    ("[192.0.2.1]", True),
    ("[IPv6:2001:db8::1]", True),
    ("[ipv6:2001:DB8::1]", True),
    ("[2001:db8::1]", True),
    ("192.0.2.256", False),
    ("192.0.2", False),
    ("192.0.2.01", False),
    ("[192.0.2.1", False),
    ("[example.org]", False),
    ("example.org", False),
    ("1.example", False),
    ("", False),
    ("[]", False),
    (":", False),
    ("１９２.０.２.１", False),
    ("1" * 100_000, False),
]


@pytest.mark.parametrize(("text", "address"), ADDRESSES)
def test_is_address(text: str, address: bool) -> None:
    """An address is told from a name, bare or as a literal of mail (RFC 5321 §4.1.3)."""
    assert is_address(text) == address


# what PSL's own test set says of ICANN's suffixes; a suffix stands for itself
REGISTRABLE = [
    ("com", "com"),
    ("example.com", "example.com"),
    ("b.example.com", "example.com"),
    ("a.b.example.com", "example.com"),
    ("biz", "biz"),
    ("a.b.domain.biz", "domain.biz"),
    ("example.co.uk", "example.co.uk"),
    ("co.uk", "co.uk"),
    ("test.jp", "test.jp"),
    ("ac.jp", "ac.jp"),
    ("www.test.ac.jp", "test.ac.jp"),
    ("kyoto.jp", "kyoto.jp"),
    ("b.ide.kyoto.jp", "b.ide.kyoto.jp"),
    ("ide.kyoto.jp", "ide.kyoto.jp"),
    ("c.kobe.jp", "c.kobe.jp"),
    ("a.b.c.kobe.jp", "b.c.kobe.jp"),
    ("www.city.kobe.jp", "city.kobe.jp"),
    ("test.ck", "test.ck"),
    ("a.b.test.ck", "b.test.ck"),
    ("www.www.ck", "www.ck"),
    ("a.test.k12.ak.us", "test.k12.ak.us"),
    ("www.xn--85x722f.com.cn", "xn--85x722f.com.cn"),
    ("shishi.xn--55qx5d.cn", "shishi.xn--55qx5d.cn"),
    ("mx.example.github.io", "github.io"),  # a suffix of a company's customers, not of the DNS
    ("mx1.unlisted.example", "unlisted.example"),
    ("localhost", "localhost"),
    ("192.0.2.1", "192.0.2.1"),
    ("2001:db8::1", "2001:db8::1"),
]


@pytest.mark.parametrize(("host", "domain"), REGISTRABLE)
def test_registrable_domain(host: str, domain: str) -> None:
    """Hosts of one owner have one domain, by ICANN's part of the public suffix list."""
    assert registrable_domain(host) == domain


# -- any text ------------------------------------------------------------------------------------------------

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
hosts = st.lists(labels, min_size=2, max_size=5).map(".".join).filter(lambda name: not is_address(name))


@given(st.text(max_size=60))
@example("xn--" + "a" * 59 + ".é")
@settings(deadline=None)
def test_any_text(text: str) -> None:
    """Any text is a name, in a form that stays and that dnspython takes, or raises NameProblem."""
    try:
        name = to_ascii(text)
    except NameProblem:
        return
    assert to_ascii(name) == name
    assert name == name.lower()
    assert len(name) <= MAX_NAME
    assert len(dns.name.from_text(name).labels) == name.count(".") + 2
    assert to_ascii(to_unicode(name)) == name


@given(st.text(max_size=100))
@example("xn--\ud800")
@example("[" * 50_000)
@example("a." * 50_000)
@settings(deadline=None)
def test_any_text_is_taken(text: str) -> None:
    """The functions that raise nothing raise nothing, whatever the text."""
    assert isinstance(to_unicode(text), str)
    assert isinstance(fold_host(text), str)
    assert is_address(text) in (True, False)
    assert isinstance(registrable_domain(text), str)
    assert matches_dns_id(text, text) in (True, False)


@given(hosts)
def test_wildcards(host: str) -> None:
    """A wildcard stands for the first label, whatever that is, and for nothing else."""
    first, _, rest = host.partition(".")
    assert matches_dns_id(host, host.upper())
    assert matches_dns_id(f"{host}.", f"*.{rest}")
    assert not matches_dns_id(host, f"*.{host}")
    assert not matches_dns_id(f"a.{host}", f"*.{rest}")
    assert not matches_dns_id(host, f"{first[:1]}*.{rest}")
    assert not matches_dns_id(rest, f"*.{rest}")


@given(hosts, st.text(max_size=30))
def test_a_pattern_matches_its_own_hosts_alone(host: str, pattern: str) -> None:
    """No pattern matches but the name itself and a wildcard in place of its first label."""
    if matches_dns_id(host, pattern):
        assert pattern.lower().removesuffix(".") in (host, f"*.{host.partition('.')[2]}")
