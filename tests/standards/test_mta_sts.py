from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtls_analysis.standards.mta_sts import (
    MAX_AGE,
    MAX_POLICY_BYTES,
    StsMode,
    StsPolicy,
    StsPolicyState,
    StsRecordState,
    check_policy_response,
    check_sts_record,
    matches_mx,
    parse_policy,
    record_fields,
)

# -- the record (RFC 8461 §3.1) ------------------------------------------------------------------------------

# why, texts, state, policy id
TXT_ANSWERS: list[tuple[str, list[str], str, str | None]] = [
    ("example of RFC 8461 §3.1", ["v=STSv1; id=20160831085700Z;"], "valid", "20160831085700Z"),
    ("no delimiter at the end", ["v=STSv1; id=1"], "valid", "1"),
    ("no white space", ["v=STSv1;id=1;"], "valid", "1"),
    ("white space around the delimiters", ["v=STSv1; \t id=1 \t ; \t"], "valid", "1"),
    ("id of 32 characters", ["v=STSv1; id=" + "aZ09" * 8], "valid", "aZ09" * 8),
    ("other fields", ["v=STSv1; a=b; id=1; x_y-z.1=!:<>~"], "valid", "1"),
    ("the first id wins", ["v=STSv1; id=1; id=2"], "valid", "1"),
    ("the first id wins, the second is none", ["v=STSv1; id=1; id=a-b"], "valid", "1"),
    ("a field of another case is another field", ["v=STSv1; ID=2; id=1"], "valid", "1"),
    ("a version again is another field", ["v=STSv1; id=1; v=STSv2"], "valid", "1"),
    ("unrelated text beside it", ["v=STSv1; id=1", "v=spf1 -all"], "valid", "1"),
    ("another version beside it", ["v=STSv1; id=1", "v=STSv2; id=2"], "valid", "1"),
    ("another case beside it", ["v=STSv1; id=1", "v=stsv1; id=2"], "valid", "1"),
    ("no text", [], "absent", None),
    ("empty text", [""], "absent", None),
    ("wildcard SPF answers instead", ["v=spf1 -all"], "absent", None),
    ("lower case", ["v=stsv1; id=1"], "absent", None),
    ("another version", ["v=STSv2; id=1"], "absent", None),
    ("white space before the first ;", ["v=STSv1 ; id=1"], "absent", None),
    ("white space before the version", [" v=STSv1; id=1"], "absent", None),
    ("version alone", ["v=STSv1"], "absent", None),
    ("version is not first", ["id=1; v=STSv1;"], "absent", None),
    ("in quotes", ['"v=STSv1; id=1"'], "absent", None),
    ("byte order mark first", ["\ufeffv=STSv1; id=1"], "absent", None),
    ("two records", ["v=STSv1; id=1", "v=STSv1; id=2"], "multiple", None),
    ("the same record twice", ["v=STSv1; id=1", "v=STSv1; id=1"], "multiple", None),
    ("two records, one malformed", ["v=STSv1; id=1", "v=STSv1;"], "multiple", None),
    ("no field", ["v=STSv1;"], "malformed", None),
    ("no id", ["v=STSv1; a=b"], "malformed", None),
    ("no id, by its case", ["v=STSv1; ID=1"], "malformed", None),
    ("empty id", ["v=STSv1; id="], "malformed", None),
    ("id of 33 characters", ["v=STSv1; id=" + "1" * 33], "malformed", None),
    ("id with a hyphen", ["v=STSv1; id=a-b"], "malformed", None),
    ("id with white space inside", ["v=STSv1; id=1 2"], "malformed", None),
    ("the first id is none", ["v=STSv1; id=a-b; id=1"], "malformed", None),
    ("id in quotes", ['v=STSv1; id="1"'], "malformed", None),
    ("id of other digits", ["v=STSv1; id=١"], "malformed", None),
    ("white space around the =", ["v=STSv1; id = 1"], "malformed", None),
    ("empty field", ["v=STSv1; id=1;;"], "malformed", None),
    ("empty field first", ["v=STSv1;; id=1"], "malformed", None),
    ("white space at the end, no delimiter", ["v=STSv1; id=1 "], "malformed", None),
    ("field without a value", ["v=STSv1; id=1; a"], "malformed", None),
    ("field with an empty value", ["v=STSv1; id=1; a="], "malformed", None),
    ("field without a name", ["v=STSv1; id=1; =b"], "malformed", None),
    ("field name of 33 characters", ["v=STSv1; id=1; " + "a" * 33 + "=b"], "malformed", None),
    ("field name with a hyphen first", ["v=STSv1; id=1; -a=b"], "malformed", None),
    ("value with =", ["v=STSv1; id=1; a=b=c"], "malformed", None),
    ("value with white space", ["v=STSv1; id=1; a=b c"], "malformed", None),
    ("value beyond ASCII", ["v=STSv1; id=1; a=é"], "malformed", None),
    ("line break", ["v=STSv1; id=1\n"], "malformed", None),
    ("NUL", ["v=STSv1; id=1\0"], "malformed", None),
]


@pytest.mark.parametrize(
    ("texts", "state", "policy_id"), [pytest.param(*row, id=why) for why, *row in TXT_ANSWERS]
)
def test_check_sts_record(texts: list[str], state: str, policy_id: str | None) -> None:
    """A sender uses a record only when exactly one is published and it is well-formed."""
    check = check_sts_record(texts)
    assert check.state == state
    assert check.policy_id == policy_id
    assert bool(check.detail) == (state in ("multiple", "malformed"))


# the ABNF of §3.1, but for the white space before the first ";" that the prose rules out; an sts-id is an sts-extension
_DELIMITER = r"[ \t]*;[ \t]*"
_EXTENSION = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}=[\x21-\x3A\x3C\x3E-\x7E]+"
_ABNF = re.compile(rf"v=STSv1(?=;)(?:{_DELIMITER}{_EXTENSION})+(?:{_DELIMITER})?")
_FIRST_ID = re.compile(r"[; \t]id=([^; \t]*)")

pieces = st.sampled_from(
    ["v=STSv1", ";", "; ", " ", "\t", "id=", "id=1", "id=a-b", "a=b", "=", "x", "1", "é", "\n", "-", "id"]
)
near_records = st.lists(pieces, max_size=10).map(lambda parts: "v=STSv1;" + "".join(parts))
fields = st.sampled_from(
    ["id=1", "id=Z" + "0" * 31, "id=" + "1" * 33, "id=a-b", "ID=2", "a_b-c.d=!~", "v=STSv1", "a=é"]
)
records = st.lists(fields, max_size=6).map(lambda parts: "v=STSv1; " + " ;\t".join(parts))


@given(st.one_of(near_records, records))
@settings(max_examples=300)
def test_record_is_what_the_abnf_says(text: str) -> None:
    """A record is valid where the ABNF takes it and its first id is one."""
    first = _FIRST_ID.search(text)
    well_formed = _ABNF.fullmatch(text) is not None
    has_id = first is not None and re.fullmatch(r"[A-Za-z0-9]{1,32}", first[1]) is not None
    check = check_sts_record([text])
    assert (check.state is StsRecordState.VALID) == (well_formed and has_id)
    if check.policy_id is not None and first is not None:
        assert check.policy_id == first[1]


@given(st.lists(st.text(max_size=80), max_size=4))
@example(["v=STSv1;" + ";" * 500_000])
@example(["v=STSv1;" + " " * 1_000_000 + "x"])
@example(["v=STSv1;" + " \t;" * 300_000])
@example(["v=STSv1;" + "a=1;" * 300_000])
@example(["v=STSv1;id=" + "1" * 1_000_000])
@settings(deadline=None)
def test_any_texts(texts: list[str]) -> None:
    """Any texts get a verdict, in few words."""
    check = check_sts_record(texts)
    assert check.state in StsRecordState
    assert len(check.detail) < 200


def test_record_fields() -> None:
    """Fields are told apart by the delimiter alone, and what is outside it stays in them."""
    assert list(record_fields("v=X; a=1 ;\tb=2;")) == ["a=1", "b=2"]
    assert list(record_fields("v=X; a=1;; b=2 ")) == ["a=1", "", "b=2 "]
    assert list(record_fields("v=X")) == []


# -- the policy (RFC 8461 §3.2) ------------------------------------------------------------------------------

HEAD = b"version: STSv1\nmode: enforce\nmax_age: 604800\n"
WHOLE = HEAD + b"mx: mx.example.org\n"

# why, body, state, mode, max_age, patterns, words of the detail
POLICIES: list[tuple[str, bytes, str, str | None, int | None, list[str] | None, str]] = [
    ("example of RFC 8461 §3.2",
     b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\n"
     b"max_age: 604800\r\n",
     "valid", "enforce", 604800, ["mail.example.com", "*.example.net", "backupmx.example.com"], ""),
    ("LF", WHOLE, "valid", "enforce", 604800, ["mx.example.org"], ""),
    ("LF and CRLF", WHOLE.replace(b"\n", b"\r\n", 2), "valid", "enforce", 604800, ["mx.example.org"], ""),
    ("no end of the last line", WHOLE[:-1], "valid", "enforce", 604800, ["mx.example.org"], ""),
    ("any order", b"mx: mx.example.org\nmax_age: 604800\nmode: enforce\nversion: STSv1\n", "valid", "enforce", 604800,
     ["mx.example.org"], ""),
    ("no white space", WHOLE.replace(b": ", b":"), "valid", "enforce", 604800, ["mx.example.org"], ""),
    ("much white space", WHOLE.replace(b": ", b": \t ").replace(b"\n", b" \t\n"), "valid", "enforce", 604800,
     ["mx.example.org"], ""),
    ("testing", WHOLE.replace(b"enforce", b"testing"), "valid", "testing", 604800, ["mx.example.org"], ""),
    ("none, with mx", WHOLE.replace(b"enforce", b"none"), "valid", "none", 604800, ["mx.example.org"], ""),
    ("none, without mx", HEAD.replace(b"enforce", b"none"), "valid", "none", 604800, [], ""),
    ("none, short", b"version: STSv1\nmode: none\nmax_age: 60\n", "valid", "none", 60, [], ""),
    ("capitals in mx", HEAD + b"mx: *.Example.ORG\n", "valid", "enforce", 604800, ["*.example.org"], ""),
    ("mx twice", HEAD + b"mx: a.example\nmx: A.example\n", "valid", "enforce", 604800, ["a.example"], ""),
    ("A-label", HEAD + b"mx: xn--bcher-kva.example\n", "valid", "enforce", 604800, ["xn--bcher-kva.example"], ""),
    ("longest age", WHOLE.replace(b"604800", b"31557600"), "valid", "enforce", MAX_AGE, ["mx.example.org"], ""),
    ("age with leading zeros", WHOLE.replace(b"604800", b"0000604800"), "valid", "enforce", 604800, ["mx.example.org"], ""),
    # valid, and odd
    ("mode twice", WHOLE + b"mode: none\n", "valid", "enforce", 604800, ["mx.example.org"], "mode more than once"),
    ("age twice, the second is none", WHOLE + b"max_age: x\n", "valid", "enforce", 604800, ["mx.example.org"],
     "max_age more than once"),
    ("unknown key", WHOLE + b"rua: x y z \xc3\xa9\n", "valid", "enforce", 604800, ["mx.example.org"], "unknown keys"),
    ("empty line", WHOLE.replace(b"\n", b"\n\n", 1), "valid", "enforce", 604800, ["mx.example.org"], "empty lines"),
    ("empty lines at the end", WHOLE + b"\n \r\n", "valid", "enforce", 604800, ["mx.example.org"], "empty lines"),
    ("short age", WHOLE.replace(b"604800", b"86399"), "valid", "enforce", 86399, ["mx.example.org"],
     "max_age of only 86399 s"),
    ("age 0", WHOLE.replace(b"604800", b"0"), "valid", "enforce", 0, ["mx.example.org"], "max_age of only 0 s"),
    # what is missing
    ("empty", b"", "invalid", None, None, None, "empty"),
    ("one empty line", b"\n", "invalid", None, None, None, "no version"),
    ("no version", WHOLE.partition(b"\n")[2], "invalid", None, None, None, "no version"),
    ("no mode", WHOLE.replace(b"mode: enforce\n", b""), "invalid", None, None, None, "no mode"),
    ("no max_age", WHOLE.replace(b"max_age: 604800\n", b""), "invalid", None, None, None, "no max_age"),
    ("no mx", HEAD, "invalid", None, None, None, "no mx"),
    ("no mx, testing", HEAD.replace(b"enforce", b"testing"), "invalid", None, None, None, "no mx"),
    ("key in capitals", HEAD + b"MX: mx.example.org\n", "invalid", None, None, None, "no mx"),
    # what is wrong
    ("another version", WHOLE.replace(b"STSv1", b"STSv2"), "invalid", None, None, None, "version is 'STSv2', not STSv1"),
    ("version in lower case", WHOLE.replace(b"STSv1", b"stsv1"), "invalid", None, None, None, "version is 'stsv1'"),
    ("the first version counts", b"version: x\n" + WHOLE, "invalid", None, None, None, "version is 'x'"),
    ("mode: enforced", WHOLE.replace(b"enforce", b"enforced"), "invalid", None, None, None, "mode is 'enforced'; there are"),
    ("mode in capitals", WHOLE.replace(b"enforce", b"Enforce"), "invalid", None, None, None, "mode is 'Enforce'"),
    ("empty mode", WHOLE.replace(b"enforce", b""), "invalid", None, None, None, "mode is ''"),
    ("longer than a year", WHOLE.replace(b"604800", b"31557601"), "invalid", None, None, None, "out of range"),
    ("366 days", WHOLE.replace(b"604800", b"31622400"), "invalid", None, None, None, "max_age of 31622400 s is out of"),
    ("age of eleven digits", WHOLE.replace(b"604800", b"00000604800"), "invalid", None, None, None, "not a number"),
    ("negative age", WHOLE.replace(b"604800", b"-1"), "invalid", None, None, None, "max_age is '-1', not a number"),
    ("age with a unit", WHOLE.replace(b"604800", b"7d"), "invalid", None, None, None, "max_age is '7d'"),
    ("age in other digits", WHOLE.replace(b"604800", "١".encode()), "invalid", None, None, None, "not a number"),
    ("several mx on one line", HEAD + b"mx: a.example, b.example\n", "invalid", None, None, None, "mx is 'a.example, b"),
    ("wildcard alone", HEAD + b"mx: *\n", "invalid", None, None, None, "mx is '*', not a host name"),
    ("wildcard and a dot", HEAD + b"mx: *.\n", "invalid", None, None, None, "mx is '*.'"),
    ("wildcard in part of a label", HEAD + b"mx: mail*.example\n", "invalid", None, None, None, "mx is 'mail*.example'"),
    ("two wildcards", HEAD + b"mx: *.*.example\n", "invalid", None, None, None, "mx is '*.*.example'"),
    ("dot first", HEAD + b"mx: .example.org\n", "invalid", None, None, None, "mx is '.example.org'"),
    ("final dot", HEAD + b"mx: mx.example.org.\n", "invalid", None, None, None, "mx is 'mx.example.org.'"),
    ("U-label", HEAD + "mx: bücher.example\n".encode(), "invalid", None, None, None, "mx is 'bücher.example'"),
    ("address", HEAD + b"mx: 192.0.2.1\n", "invalid", None, None, None, "mx is '192.0.2.1'"),
    ("address literal", HEAD + b"mx: [192.0.2.1]\n", "invalid", None, None, None, "mx is '[192.0.2.1]'"),
    ("empty mx", HEAD + b"mx:\n", "invalid", None, None, None, "mx is ''"),
    ("one bad mx among good ones", WHOLE + b"mx: a b\n", "invalid", None, None, None, "mx is 'a b'"),
    ("mx of 300 characters", HEAD + b"mx: " + b"a." * 150 + b"b\n", "invalid", None, None, None, "mx is 'a.a."),
    ("white space before the colon", WHOLE.replace(b"mode:", b"mode :"), "invalid", None, None, None, "not a line"),
    ("white space before the key", WHOLE.replace(b"mode", b" mode"), "invalid", None, None, None, "not a line"),
    ("no colon", WHOLE + b"hello\n", "invalid", None, None, None, "not a line of a policy: 'hello'"),
    ("= for a colon", WHOLE.replace(b"mode: ", b"mode="), "invalid", None, None, None, "not a line of a policy"),
    ("comment", b"# our policy\n" + WHOLE, "invalid", None, None, None, "not a line of a policy: '# our policy'"),
    ("bare CR", WHOLE.replace(b"\n", b"\r"), "invalid", None, None, None, "not a line of a policy"),
    ("bare CR at the end", WHOLE[:-1] + b"\r", "invalid", None, None, None, "not a line of a policy"),
    ("CR twice", WHOLE.replace(b"\n", b"\r\r\n"), "invalid", None, None, None, "not a line of a policy"),
    ("NUL", WHOLE.replace(b"mx.example", b"mx\0example"), "invalid", None, None, None, "not a line of a policy"),
    ("line separator of Unicode", WHOLE.replace(b"\n", "\u2028".encode()), "invalid", None, None, None, "version is"),
    ("byte order mark", b"\xef\xbb\xbf" + WHOLE, "invalid", None, None, None, "not a line of a policy"),
    ("UTF-16", WHOLE.decode().encode("utf-16"), "invalid", None, None, None, "not UTF-8"),
    ("Latin-1", WHOLE + b"x: \xe9\n", "invalid", None, None, None, "not UTF-8"),
    ("stored with a replacement", WHOLE + "x: \ufffd\n".encode(), "invalid", None, None, None, "not UTF-8"),
    ("a page", b"<!doctype html>\n<html>", "invalid", None, None, None, "not a line of a policy: '<!doctype html>'"),
    ("JSON", b'{"version": "STSv1"}', "invalid", None, None, None, "not a line of a policy"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "state", "mode", "max_age", "mx", "words"),
    [pytest.param(*row, id=why) for why, *row in POLICIES],
)
def test_parse_policy(
    body: bytes, state: str, mode: str | None, max_age: int | None, mx: list[str] | None, words: str
) -> None:
    """A policy is taken where the grammar takes it; what is odd is noted, and what is wrong is said."""
    check = parse_policy(body)
    assert check.state == state
    assert words in check.detail
    assert bool(words) == bool(check.detail)
    if mode is None or max_age is None or mx is None:
        assert check.policy is None
    else:
        assert check.policy == StsPolicy(StsMode(mode), max_age, tuple(mx))


# why, status, media type, body, strict state, lax state, words of the strict detail
RESPONSES: list[tuple[str, int, str | None, bytes | None, str, str, str]] = [
    ("a policy", 200, "text/plain", WHOLE, "valid", "valid", ""),
    ("charset", 200, "text/plain; charset=utf-8", WHOLE, "valid", "valid", ""),
    ("charset that is ASCII", 200, "text/plain;charset=us-ascii", WHOLE, "valid", "valid", ""),
    ("another charset", 200, 'text/plain; charset="iso-8859-1"; x=y', WHOLE, "valid", "valid", ""),
    ("capitals and white space", 200, " TEXT/Plain ; x", WHOLE, "valid", "valid", ""),
    ("page", 200, "text/html", WHOLE, "content_type", "valid", "media type 'text/html', not text/plain"),
    ("octets", 200, "application/octet-stream", WHOLE, "content_type", "valid", "not text/plain"),
    ("begins like it", 200, "text/plainer", WHOLE, "content_type", "valid", "not text/plain"),
    ("two types", 200, "text/plain, text/html", WHOLE, "content_type", "valid", "not text/plain"),
    ("empty type", 200, "", WHOLE, "content_type", "valid", "media type '', not text/plain"),
    ("no type", 200, None, WHOLE, "content_type", "valid", "no media type, not text/plain"),
    ("page of the wrong type", 200, "text/html", b"<html>", "content_type", "invalid", "not text/plain"),
    ("no policy", 200, "text/plain", b"hello", "invalid", "invalid", "not a line of a policy"),
    ("no body", 200, "text/plain", None, "invalid", "invalid", "empty"),
    ("not found", 404, "text/plain", WHOLE, "http_status", "http_status", "HTTP status 404"),
    ("other success", 203, "text/plain", WHOLE, "http_status", "http_status", "HTTP status 203"),
    ("no content", 204, None, b"", "http_status", "http_status", "HTTP status 204"),
    ("server error", 500, "text/html", b"", "http_status", "http_status", "HTTP status 500"),
    ("informational", 103, None, None, "http_status", "http_status", "HTTP status 103"),
    *((f"redirect {status}", status, "text/plain", WHOLE, "redirect", "redirect", f"HTTP status {status}; no redirect")
      for status in (300, 301, 302, 303, 304, 307, 308, 399)),
    ("as long as may be", 200, "text/plain", WHOLE + b"x: " + b"y" * (MAX_POLICY_BYTES - len(WHOLE) - 3), "valid",
     "valid", "unknown keys"),
    ("one byte longer", 200, "text/plain", WHOLE + b"x: " + b"y" * (MAX_POLICY_BYTES - len(WHOLE) - 2), "too_large",
     "too_large", "more than 65536 bytes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "content_type", "body", "strict", "lax", "words"),
    [pytest.param(*row, id=why) for why, *row in RESPONSES],
)
def test_check_policy_response(
    status: int, content_type: str | None, body: bytes | None, strict: str, lax: str, words: str
) -> None:
    """Only status 200 and text/plain bring a policy; where the media type is not looked at it is noted."""
    check = check_policy_response(status, content_type, body)
    assert check.state == strict
    assert words in check.detail
    check = check_policy_response(status, content_type, body, strict_media_type=False)
    assert check.state == lax
    if (strict, lax) == ("content_type", "valid"):
        assert "media type" in check.detail


def test_size_as_it_came() -> None:
    """A stored text that is shorter than what came is judged by the size that came."""
    assert check_policy_response(200, "text/plain", WHOLE, size=MAX_POLICY_BYTES).state == "valid"
    assert check_policy_response(200, "text/plain", WHOLE, size=MAX_POLICY_BYTES + 1).state == "too_large"


# why, patterns, MX host, matches
MX_HOSTS = [
    ("the same", ["mx.example.org"], "mx.example.org", True),
    ("capitals", ["mx.example.org"], "MX.Example.ORG", True),
    ("final dot", ["mx.example.org"], "mx.example.org.", True),
    ("one of several", ["a.example", "mx.example.org"], "mx.example.org", True),
    ("another", ["mx1.example.org"], "mx2.example.org", False),
    ("wildcard", ["*.example.org"], "mx.example.org", True),
    ("wildcard, capitals and final dot", ["*.example.org"], "MX.EXAMPLE.ORG.", True),
    ("wildcard for none", ["*.example.org"], "example.org", False),
    ("wildcard for two labels", ["*.example.org"], "a.mx.example.org", False),
    ("wildcard, ends like it", ["*.example.org"], "mx.badexample.org", False),
    ("wildcard over a top-level domain", ["*.org"], "example.org", True),
    ("wildcard over an A-label", ["*.example.org"], "xn--bcher-kva.example.org", True),
    ("one label", ["localhost"], "localhost", True),
    ("no patterns", [], "mx.example.org", False),
    ("the root", ["*.example.org"], ".", False),
    ("no host", ["*.example.org"], "", False),
]


@pytest.mark.parametrize(
    ("patterns", "host", "matches"), [pytest.param(*row, id=why) for why, *row in MX_HOSTS]
)
def test_matches_mx(patterns: list[str], host: str, matches: bool) -> None:
    """A pattern names a host, or with its wildcard every host one label below (RFC 8461 §4.1)."""
    assert matches_mx(patterns, host) == matches


# -- any policy ----------------------------------------------------------------------------------------------

names = st.from_regex(
    r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,8}[a-z0-9])?){1,3}", fullmatch=True
)
patterns = st.one_of(names, names.map("*.{}".format))
policies = st.builds(
    StsPolicy,
    st.sampled_from(StsMode),
    st.integers(0, MAX_AGE),
    st.lists(patterns, min_size=1, max_size=5, unique=True).map(tuple),
)


@given(policies, st.sampled_from(["\n", "\r\n"]), st.randoms(use_true_random=False))
def test_what_prints_parses_back(policy: StsPolicy, end: str, random: object) -> None:
    """A policy written as text, its lines in any order but that of the patterns, is read as what it was."""
    lines = [f"version: STSv1{end}", f"mode: {policy.mode}{end}", f"max_age:{policy.max_age_seconds}{end}"]
    random.shuffle(lines)  # type: ignore[attr-defined]
    text = "".join([*lines[:2], *(f"mx: {pattern} {end}" for pattern in policy.mx), *lines[2:]])
    assert parse_policy(text.encode()).policy == policy


@given(st.one_of(st.binary(max_size=100), st.binary(max_size=40).map(lambda more: WHOLE + more)))
@example(b"\n" * 1_000_000)
@example(b"mx: a\n" * 200_000)
@example(b"a: " + b" \t" * 500_000 + b"x")
@example(b"x" * 1_000_000)
@example(HEAD + b"mx: " + b"a-" * 500_000)
@example(HEAD + b"".join(b"mx: a%d.example\n" % number for number in range(20_000)))
@settings(deadline=None)
def test_any_body(body: bytes) -> None:
    """Any octets are a policy or none, in few words, and never raise."""
    check = parse_policy(body)
    assert (check.policy is not None) == (check.state is StsPolicyState.VALID)
    assert len(check.detail) < 400


@given(st.integers(0, 999), st.one_of(st.none(), st.text(max_size=30)), st.binary(max_size=60), st.booleans())
@example(200, "text/plain" + " " * 100_000 + "x", b"", True)
@settings(deadline=None)
def test_any_response(status: int, content_type: str | None, body: bytes, strict: bool) -> None:
    """Any answer gets a verdict."""
    check = check_policy_response(status, content_type, body, strict_media_type=strict)
    assert (check.policy is not None) == (check.state is StsPolicyState.VALID)


@given(
    st.lists(st.one_of(patterns, st.text(max_size=10)), max_size=5), st.one_of(names, st.text(max_size=20))
)
def test_any_host(given_patterns: list[str], host: str) -> None:
    """A host that matches is one of the patterns, or stands one label below a wildcard."""
    if matches_mx(given_patterns, host):
        folded = host.lower().removesuffix(".") or host
        assert folded in given_patterns or f"*.{folded.partition('.')[2]}" in given_patterns
