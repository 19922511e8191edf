from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.tlsrpt import TlsrptState, check_tlsrpt_record

MAIL, PAGE = "mailto:tls@example.org", "https://example.org/tls?a=1"

# why, texts, state, addresses for reports, words of the detail
TXT_ANSWERS: list[tuple[str, list[str], str, list[str], str]] = [
    ("example of RFC 8460 §3.1: mail", ["v=TLSRPTv1;rua=mailto:reports@example.com"], "valid",
     ["mailto:reports@example.com"], ""),
    ("example of RFC 8460 §3.1: HTTPS", ["v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"], "valid",
     ["https://reporting.example.com/v1/tlsrpt"], ""),
    ("delimiter at the end", [f"v=TLSRPTv1; rua={MAIL};"], "valid", [MAIL], ""),
    ("white space around the delimiters", [f"v=TLSRPTv1; \t rua={MAIL} \t ; \t"], "valid", [MAIL], ""),
    ("two addresses", [f"v=TLSRPTv1; rua={MAIL},{PAGE}"], "valid", [MAIL, PAGE], ""),
    ("white space around the comma", [f"v=TLSRPTv1; rua={MAIL} \t, {PAGE}"], "valid", [MAIL, PAGE], ""),
    ("other fields", [f"v=TLSRPTv1; a=b; rua={MAIL}; x_y-z.1=!:<>~"], "valid", [MAIL], ""),
    ("the first rua wins", [f"v=TLSRPTv1; rua={MAIL}; rua={PAGE}"], "valid", [MAIL], ""),
    ("the first rua wins, the second is none", [f"v=TLSRPTv1; rua={MAIL}; rua=x"], "valid", [MAIL], ""),
    ("scheme in capitals", ["v=TLSRPTv1; rua=MAILTO:tls@example.org"], "valid", ["MAILTO:tls@example.org"], ""),
    ("subject in the address", [f"v=TLSRPTv1; rua={MAIL}?subject=x"], "valid", [f"{MAIL}?subject=x"], ""),
    ("escaped comma, ; and !", ["v=TLSRPTv1; rua=mailto:a%2Cb%3Bc%21d@example.org"], "valid",
     ["mailto:a%2Cb%3Bc%21d@example.org"], ""),
    ("port, path and query", ["v=TLSRPTv1; rua=https://example.org:8443/a/b?c=d&e=f"], "valid",
     ["https://example.org:8443/a/b?c=d&e=f"], ""),
    ("an IPv6 address for a host", ["v=TLSRPTv1; rua=https://[2001:db8::1]/tls"], "valid",
     ["https://[2001:db8::1]/tls"], ""),
    ("another scheme beside", [f"v=TLSRPTv1; rua=ftp://example.org/,{MAIL}"], "valid", [MAIL], ""),
    ("plain HTTP beside", [f"v=TLSRPTv1; rua=http://example.org/,{MAIL}"], "valid", [MAIL], ""),
    ("unrelated text beside it", [f"v=TLSRPTv1; rua={MAIL}", "v=spf1 -all"], "valid", [MAIL], ""),
    ("another version beside it", [f"v=TLSRPTv1; rua={MAIL}", f"v=TLSRPTv2; rua={PAGE}"], "valid", [MAIL], ""),
    ("no text", [], "absent", [], ""),
    ("empty text", [""], "absent", [], ""),
    ("wildcard SPF answers instead", ["v=spf1 -all"], "absent", [], ""),
    ("lower case", [f"v=tlsrptv1; rua={MAIL}"], "absent", [], ""),
    ("another version", [f"v=TLSRPTv2; rua={MAIL}"], "absent", [], ""),
    ("white space before the first ;", [f"v=TLSRPTv1 ; rua={MAIL}"], "absent", [], ""),
    ("white space before the version", [f" v=TLSRPTv1; rua={MAIL}"], "absent", [], ""),
    ("version is not first", [f"rua={MAIL}; v=TLSRPTv1;"], "absent", [], ""),
    ("version alone", ["v=TLSRPTv1"], "absent", [], ""),
    ("two records", [f"v=TLSRPTv1; rua={MAIL}", f"v=TLSRPTv1; rua={PAGE}"], "multiple", [], "2 records"),
    ("two records, one malformed", [f"v=TLSRPTv1; rua={MAIL}", "v=TLSRPTv1;"], "multiple", [], "2 records"),
    ("no field", ["v=TLSRPTv1;"], "malformed", [], "no rua"),
    ("no rua", ["v=TLSRPTv1; a=b"], "malformed", [], "no rua"),
    ("no rua, by its case", [f"v=TLSRPTv1; RUA={MAIL}"], "malformed", [], "no rua"),
    ("empty rua", ["v=TLSRPTv1; rua="], "malformed", [], "not an address for reports: ''"),
    ("bare address", ["v=TLSRPTv1; rua=tls@example.org"], "malformed", [], "not an address for reports: 'tls@"),
    ("mailto without an address", ["v=TLSRPTv1; rua=mailto:"], "malformed", [], "not an address for reports"),
    ("mailto without a domain", ["v=TLSRPTv1; rua=mailto:tls@"], "malformed", [], "not an address for reports"),
    ("mailto without a mailbox", ["v=TLSRPTv1; rua=mailto:@example.org"], "malformed", [], "not an address"),
    ("https without a host", ["v=TLSRPTv1; rua=https:///tls"], "malformed", [], "not an address for reports"),
    ("https with one slash", ["v=TLSRPTv1; rua=https:/example.org"], "malformed", [], "not an address for reports"),
    ("only plain HTTP", ["v=TLSRPTv1; rua=http://example.org/"], "malformed", [], "neither mailto: nor https: in rua"),
    ("comma at the end", [f"v=TLSRPTv1; rua={MAIL},"], "malformed", [], "not an address for reports: ''"),
    ("two commas", [f"v=TLSRPTv1; rua={MAIL},,{PAGE}"], "malformed", [], "not an address for reports: ''"),
    ("white space inside an address", ["v=TLSRPTv1; rua=mailto:tls @example.org"], "malformed", [], "'mailto:tls @"),
    ("addresses with white space for a comma", [f"v=TLSRPTv1; rua={MAIL} {PAGE}"], "malformed", [], "not an address"),
    ("size as in DMARC", [f"v=TLSRPTv1; rua={MAIL}!10m"], "malformed", [], "not an address for reports"),
    ("address in angle brackets", ["v=TLSRPTv1; rua=mailto:<tls@example.org>"], "malformed", [], "not an address"),
    ("address in quotes", [f'v=TLSRPTv1; rua="{MAIL}"'], "malformed", [], "not an address for reports"),
    ("backslash", ["v=TLSRPTv1; rua=mailto:a\\b@example.org"], "malformed", [], "not an address for reports"),
    ("caret", ["v=TLSRPTv1; rua=https://example.org/^"], "malformed", [], "not an address for reports"),
    ("beyond ASCII", ["v=TLSRPTv1; rua=mailto:é@example.org"], "malformed", [], "not an address for reports"),
    ("one bad address among good ones", [f"v=TLSRPTv1; rua={MAIL},x"], "malformed", [], "reports: 'x'"),
    ("white space around the =", [f"v=TLSRPTv1; rua = {MAIL}"], "malformed", [], "not a field"),
    ("empty field", [f"v=TLSRPTv1; rua={MAIL};;"], "malformed", [], "not a field: ''"),
    ("field without a value", [f"v=TLSRPTv1; rua={MAIL}; a"], "malformed", [], "not a field: 'a'"),
    ("field with an empty value", [f"v=TLSRPTv1; rua={MAIL}; a="], "malformed", [], "not a field: 'a='"),
    ("field without a name", [f"v=TLSRPTv1; rua={MAIL}; =b"], "malformed", [], "not a field: '=b'"),
    ("field name of 33 characters", [f"v=TLSRPTv1; rua={MAIL}; {'a' * 33}=b"], "malformed", [], "not a field"),
    ("line break", [f"v=TLSRPTv1; rua={MAIL}\n"], "malformed", [], "not an address for reports"),
    ("NUL", [f"v=TLSRPTv1; rua={MAIL}\0"], "malformed", [], "not an address for reports"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "state", "rua", "words"), [pytest.param(*row, id=why) for why, *row in TXT_ANSWERS]
)
def test_check_tlsrpt_record(texts: list[str], state: str, rua: list[str], words: str) -> None:
    """A domain wants reports where one record is published, well-formed, with an address that a sender can use."""
    check = check_tlsrpt_record(texts)
    assert check.state == state
    assert check.rua == tuple(rua)
    assert words in check.detail
    assert bool(words) == bool(check.detail)


_URI = re.compile(
    r"(?:mailto|https):[A-Za-z0-9._~:/?#\[\]@$&'()*+=%-]+", re.IGNORECASE
)  # RFC 3986, without , ; !

pieces = st.sampled_from(
    [
        "rua=",
        "rua",
        MAIL,
        PAGE,
        "mailto:",
        "ftp://x",
        ",",
        ", ",
        ";",
        "; ",
        " ",
        "=",
        "a=b",
        "!",
        "é",
        "\\",
        "x",
    ]
)
near_records = st.lists(pieces, max_size=8).map(lambda parts: "v=TLSRPTv1;" + "".join(parts))
addresses = st.lists(
    st.sampled_from([MAIL, PAGE, "ftp://example.org/", "MAILTO:a@b"]), min_size=1, max_size=3
)
others = st.sampled_from(["RUA=2", "a_b-c.d=!~", "v=TLSRPTv1"])


@given(st.lists(others), addresses, st.lists(st.one_of(others, addresses), max_size=4))
def test_the_first_rua_of_a_good_record(
    before: list[str], first: list[str], behind: list[str | list[str]]
) -> None:
    """Whatever well-formed fields stand around it, the first rua tells where reports go."""
    later = [field if isinstance(field, str) else f"rua={','.join(field)}" for field in behind]
    text = "v=TLSRPTv1; " + " ;\t".join([*before, f"rua={' , '.join(first)}", *later])
    check = check_tlsrpt_record([text])
    assert check.rua == tuple(address for address in first if not address.startswith("ftp:"))
    assert check.state == ("valid" if check.rua else "malformed")


@given(near_records)
@settings(max_examples=300)
def test_a_sender_can_use_what_is_valid(text: str) -> None:
    """However a record comes apart, an address that it gives is a URI of one of the two schemes."""
    check = check_tlsrpt_record([text])
    assert all(_URI.fullmatch(address) and address in text for address in check.rua)
    assert bool(check.rua) == (check.state is TlsrptState.VALID)


@given(st.lists(st.text(max_size=80), max_size=4))
@example(["v=TLSRPTv1;" + ";" * 500_000])
@example(["v=TLSRPTv1;rua=" + "," * 500_000])
@example(["v=TLSRPTv1;rua=" + "mailto:a@b," * 100_000])
@example(["v=TLSRPTv1;rua=mailto:" + "a" * 1_000_000])
@example(["v=TLSRPTv1;rua=mailto:" + "@" * 1_000_000])
@example(["v=TLSRPTv1;rua=x" + " \t" * 500_000 + "x"])
@settings(deadline=None)
def test_any_texts(texts: list[str]) -> None:
    """Any texts get a verdict, in few words."""
    check = check_tlsrpt_record(texts)
    assert bool(check.rua) == (check.state is TlsrptState.VALID)
    assert len(check.detail) < 200
