from __future__ import annotations

import itertools
import struct

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rtls_analysis.scanner.dns_message import (
    RDTYPES,
    BadName,
    Malformed,
    NameTooLong,
    Question,
    Reply,
    answers,
    decode_labels,
    decode_text,
    encode_text,
    make_question,
    parse_labels,
    read_reply,
)

TYPES = ("A", "AAAA", "CNAME", "MX", "TLSA", "TXT")


def respond(
    name: str, rdtype: str, *answer: str, rcode: int = 0, flags: int = 0, edns: bool = True
) -> dns.message.Message:
    """Make the answer of a resolver; `answer` are lines of a zone file."""
    query = dns.message.make_query(name, rdtype, use_edns=0 if edns else -1, want_dnssec=edns)
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(dns.rcode.Rcode(rcode))
    response.flags |= flags
    for line in answer:
        owner, ttl, kind, text = line.split(" ", 3)
        response.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, text))
    return response


def read(name: str, rdtype: str, *answer: str, rcode: int = 0, flags: int = 0) -> Reply:
    question = make_question(name, rdtype)
    wire = respond(name, rdtype, *answer, rcode=rcode, flags=flags).to_wire()
    assert answers(wire, question)
    return read_reply(wire, question)


# -- what an answer says -------------------------------------------------------------------------------------

ANSWERS = [
    ("one record", "A", ["x.test. 60 A 192.0.2.1"], ("192.0.2.1",), "x.test", (), 60),
    (
        "the order of the answer is kept, a repetition is not",
        "A",
        ["x.test. 60 A 192.0.2.9", "x.test. 60 A 192.0.2.1", "x.test. 60 A 192.0.2.9"],
        ("192.0.2.9", "192.0.2.1"),
        "x.test",
        (),
        60,
    ),
    ("upper case in the answer", "A", ["X.TesT. 60 A 192.0.2.1"], ("192.0.2.1",), "x.test", (), 60),
    (
        "an alias; the shortest TTL counts",
        "A",
        ["x.test. 30 CNAME Y.test.", "y.test. 60 A 192.0.2.1"],
        ("192.0.2.1",),
        "y.test",
        ("x.test",),
        30,
    ),
    (
        "aliases in any order",
        "A",
        ["z.test. 9 A 192.0.2.1", "y.test. 60 CNAME z.test.", "x.test. 60 CNAME y.test."],
        ("192.0.2.1",),
        "z.test",
        ("x.test", "y.test"),
        9,
    ),
    ("an alias to nothing", "A", ["x.test. 60 CNAME y.test."], (), "y.test", ("x.test",), 60),
    ("records of somebody else", "A", ["y.test. 60 A 192.0.2.1"], (), "x.test", (), None),
    ("records of another type", "A", ["x.test. 60 TXT hello"], (), "x.test", (), None),
    (
        "the alias itself, when it is asked for",
        "CNAME",
        ["x.test. 60 CNAME y.test.", "y.test. 60 CNAME z.test."],
        ("y.test.",),
        "x.test",
        (),
        60,
    ),
    ("a service at the root", "MX", ["x.test. 60 MX 0 ."], ("0 .",), "x.test", (), 60),
    ("an alias to the root", "A", ["x.test. 60 CNAME ."], (), ".", ("x.test",), 60),
    (
        "odd octets in a name",
        "MX",
        [r"x.test. 60 MX 10 a\.b\032\200\"c.test."],
        (r"10 a\.b\032\200\"c.test.",),
        "x.test",
        (),
        60,
    ),
    (
        "TLSA in lower case without spaces",
        "TLSA",
        ["x.test. 60 TLSA 3 1 1 " + "AB" * 32],
        ("3 1 1 " + "ab" * 32,),
        "x.test",
        (),
        60,
    ),
    (
        "TXT of many strings, joined without spaces",
        "TXT",
        ['x.test. 60 TXT "v=STSv1; " "id=1" ""'],
        ("v=STSv1; id=1",),
        "x.test",
        (),
        60,
    ),
    (
        "records that answer before an alias of the same name",
        "A",
        ["x.test. 60 CNAME y.test.", "x.test. 60 A 192.0.2.1"],
        ("192.0.2.1",),
        "x.test",
        (),
        60,
    ),
    ("IPv4-mapped", "AAAA", ["x.test. 60 AAAA ::ffff:192.0.2.1"], ("::ffff:192.0.2.1",), "x.test", (), 60),
]


@pytest.mark.parametrize(
    ("rdtype", "answer", "records", "canonical", "aliases", "ttl"),
    [pytest.param(*row[1:], id=row[0]) for row in ANSWERS],
)
def test_answer(
    rdtype: str,
    answer: list[str],
    records: tuple[str, ...],
    canonical: str,
    aliases: tuple[str, ...],
    ttl: int | None,
) -> None:
    """Records are found at the end of the aliases, and nowhere else."""
    reply = read("x.test", rdtype, *answer)
    assert (reply.records, reply.canonical, reply.aliases, reply.ttl) == (records, canonical, aliases, ttl)
    assert reply.rcode == 0
    assert not reply.authentic
    assert not reply.truncated


def test_the_ad_bit_is_read_from_answers_and_denials() -> None:
    assert read("x.test", "A", "x.test. 60 A 192.0.2.1", flags=dns.flags.AD).authentic
    assert read("x.test", "A", flags=dns.flags.AD).authentic
    assert read("x.test", "A", rcode=3, flags=dns.flags.AD).authentic


def test_nxdomain_is_about_the_end_of_the_aliases() -> None:
    """RFC 6604: and records beside it do not count."""
    reply = read("x.test", "A", "x.test. 60 CNAME y.test.", rcode=3)
    assert (reply.rcode, reply.canonical, reply.aliases) == (3, "y.test", ("x.test",))
    assert read("x.test", "A", "x.test. 60 A 192.0.2.1", rcode=3).records == ()


def chain(length: int) -> list[str]:
    return [f"x{n or ''}.test. 60 CNAME x{n + 1}.test." for n in range(length)]


def test_aliases_are_bounded() -> None:
    """Sixteen are followed; more, or a circle, are no answer."""
    assert len(read("x.test", "A", *chain(16), "x16.test. 60 A 192.0.2.1").aliases) == 16
    with pytest.raises(Malformed, match="more than 16 aliases"):
        read("x.test", "A", *chain(17))
    with pytest.raises(Malformed, match="go round"):
        read("x.test", "A", "x.test. 60 CNAME X.test.")
    with pytest.raises(Malformed, match="go round"):
        read("x.test", "A", "x.test. 60 CNAME y.test.", "y.test. 60 CNAME x.test.")


def test_other_classes_and_absurd_ttls() -> None:
    """Records of class CH do not count; a TTL with the top bit set is zero (RFC 2181)."""
    wire = respond("x.test", "A", "x.test. 60 A 192.0.2.1").to_wire()
    at = wire.index(b"\0\x01\0\x01\0\0\0\x3c")
    question = make_question("x.test", "A")
    assert read_reply(wire[: at + 3] + b"\3" + wire[at + 4 :], question).records == ()
    assert read_reply(wire[: at + 4] + b"\xff" + wire[at + 5 :], question).ttl == 0


# -- errors --------------------------------------------------------------------------------------------------


def test_extended_errors_are_read_from_failures() -> None:
    """RFC 8914: the codes, and in words what a person can use."""
    response = respond("x.test", "A", rcode=2)
    options: list[dns.edns.Option] = [
        dns.edns.GenericOption(10, b"cookie12"),
        dns.edns.EDEOption(7, "signature\0 of \x1b[31mx.test"),
        dns.edns.EDEOption(4711),
    ]
    response.use_edns(0, dns.flags.DO, 1232, options=options)
    reply = read_reply(response.to_wire(), make_question("x.test", "A"))
    assert reply.rcode_text == "SERVFAIL"
    assert reply.errors == (7, 4711)
    assert reply.error_text == "signature expired (signature\ufffd of \ufffd[31mx.test), extended error 4711"


def test_a_hundred_extended_errors_are_a_few() -> None:
    response = respond("x.test", "A", rcode=2)
    response.use_edns(0, 0, 1232, options=[dns.edns.EDEOption(6, "x" * 500)] * 100)
    reply = read_reply(response.to_wire(max_size=65535), make_question("x.test", "A"))
    assert len(reply.errors) == 8
    assert len(reply.error_text) < 2000


def test_the_upper_bits_of_the_rcode_are_in_edns() -> None:
    """BADVERS has the lower bits of NOERROR, and is no denial."""
    assert read("x.test", "A", rcode=dns.rcode.BADVERS).rcode_text == "BADVERS"
    assert read("x.test", "A", rcode=dns.rcode.BADCOOKIE).rcode_text == "BADCOOKIE"
    assert read("x.test", "A", rcode=dns.rcode.YXDOMAIN).rcode_text == "YXDOMAIN"
    assert read("x.test", "A", rcode=11).rcode_text == "rcode 11"


# -- whose answer it is --------------------------------------------------------------------------------------

QUESTION = make_question("Mixed.Example.org.", "A")
WIRE = respond("mIXED.exaMPLE.org", "A", "mixed.example.org. 60 A 192.0.2.1").to_wire()
STRANGERS = [
    ("another name", respond("mixed.example.net", "A").to_wire()),
    ("another type", respond("mixed.example.org", "AAAA").to_wire()),
    ("another class", WIRE[:12] + QUESTION.wire[:-1] + b"\3" + WIRE[12 + len(QUESTION.wire) :]),
    ("a query", WIRE[:2] + b"\x01" + WIRE[3:]),
    ("no question", WIRE[:4] + b"\0\0" + WIRE[6:12] + WIRE[12 + len(QUESTION.wire) :]),
    ("two questions", WIRE[:4] + b"\0\2" + WIRE[6:]),
    ("a header alone", WIRE[:12]),
    ("less than a header", WIRE[:11]),
    ("nothing", b""),
]


def test_a_question_repeated_in_any_case_is_an_answer() -> None:
    assert answers(WIRE, QUESTION)
    assert read_reply(WIRE, QUESTION).records == ("192.0.2.1",)


@pytest.mark.parametrize("wire", [pytest.param(wire, id=why) for why, wire in STRANGERS])
def test_strangers_answer_nothing(wire: bytes) -> None:
    """A response to another question is not ours, whatever its id."""
    assert not answers(wire, QUESTION)


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_an_error_may_come_without_the_question(rcode: int) -> None:
    wire = struct.pack("!HHHHHH", 1, 0x8180 | rcode, 0, 0, 0, 0)
    assert answers(wire, QUESTION)
    assert read_reply(wire, QUESTION).rcode == rcode


# -- broken messages -----------------------------------------------------------------------------------------


def handmade(rdata: bytes, rdtype: str = "MX", owner: bytes = b"\xc0\x0c") -> bytes:
    """An answer with one record, of which every octet is given."""
    question = make_question("x.test", rdtype)
    record = owner + RDTYPES[rdtype].to_bytes(2) + b"\0\1\0\0\0\x3c" + len(rdata).to_bytes(2) + rdata
    return b"\0\0\x81\x80\0\1\0\1\0\0\0\0" + question.wire + record


BROKEN = [
    ("MX without a name", handmade(b"\0\1")),
    ("MX, something after the name", handmade(b"\0\1\0\0")),
    ("MX, a name beyond its end", handmade(b"\0\1\3ab")),
    ("MX, a name that points forward", handmade(b"\0\1\xc0\x60")),
    ("MX, a name that points at itself", handmade(b"\0\1\xc0\x26")),
    ("MX, a label of an old extended type", handmade(b"\0\1\x41a\0")),
    ("A of three octets", handmade(b"abc", "A")),
    ("A of five octets", handmade(b"abcde", "A")),
    ("AAAA of four octets", handmade(b"abcd", "AAAA")),
    ("TLSA of two octets", handmade(b"\3\1", "TLSA")),
    ("TXT, a string beyond its end", handmade(b"\4abc", "TXT")),
    ("CNAME without a name", handmade(b"", "CNAME")),
    ("an owner that points at itself", handmade(b"abcd", "A", b"\xc0\x18")),
    ("an owner of too many octets", handmade(b"abcd", "A", b"\x3f" + b"a" * 63 + b"\xc0\x18")),
    ("one record announced, none there", b"\0\0\x81\x80\0\1\0\1\0\0\0\0" + make_question("x.test", "A").wire),
]


@pytest.mark.parametrize("wire", [pytest.param(wire, id=why) for why, wire in BROKEN])
def test_broken_messages_have_a_reason(wire: bytes) -> None:
    rdtype = dns.rdatatype.to_text(int.from_bytes(wire[20:22]))
    with pytest.raises(Malformed, match=r"."):
        read_reply(wire, make_question("x.test", rdtype))


@pytest.mark.parametrize("length", range(12, len(WIRE)))
def test_messages_that_break_off_are_never_an_answer(length: int) -> None:
    """Wherever it is cut, a message loses its records or is refused, but for what stands behind the answer."""
    question = make_question("mixed.example.org", "A")
    if not answers(WIRE[:length], question):
        return
    try:
        reply = read_reply(WIRE[:length], question)
    except Malformed:
        return
    assert reply.records == ("192.0.2.1",)
    assert length >= len(WIRE) - 11  # the OPT record


def reason_or_reply(wire: bytes, question: Question) -> Reply | str:
    try:
        return read_reply(wire, question)
    except Malformed as problem:
        return str(problem)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(TYPES), st.booleans())
def test_any_bytes_are_an_answer_or_malformed(tail: bytes, rdtype: str, is_framed: bool) -> None:
    """No bytes raise anything else."""
    question = make_question("x.test", rdtype)
    wire = b"\0\0\x81\x80\0\1" + tail[:6].ljust(6, b"\1") + question.wire + tail[6:] if is_framed else tail
    if answers(wire, question):
        assert reason_or_reply(wire, question)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([row[1:3] for row in ANSWERS]), st.data())
def test_a_flipped_octet_is_an_answer_or_malformed(row: tuple[str, list[str]], data: st.DataObject) -> None:
    question = make_question("x.test", row[0])
    wire = bytearray(respond("x.test", *row[:1], *row[1]).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    if answers(bytes(wire), question):
        assert reason_or_reply(bytes(wire), question)


@pytest.mark.timeout(20)
def test_a_message_full_of_long_names_is_read() -> None:
    """64 KiB of records, the name of each as many labels away as a name can have: some thousand walks, no more."""
    question = make_question("x.test", "A")
    wire = bytearray(b"\0\0\x81\x80\0\1\0\0\0\0\0\0" + question.wire)
    pointer = (0xC000 | len(wire)).to_bytes(2)
    wire += b"\1a" * 126 + b"\0" + b"\0\1\0\1\0\0\0\0\0\4abcd"
    count = 1
    while len(wire) < 65500:
        wire += pointer + b"\0\1\0\1\0\0\0\0\0\4abcd"
        count += 1
    wire[6:8] = count.to_bytes(2)
    assert read_reply(bytes(wire), question).records == ()


@pytest.mark.timeout(20)
def test_pointers_to_pointers_are_bounded() -> None:
    """Labels may be none at all between them."""
    question = make_question("x.test", "MX")
    head = b"\0\0\x81\x80\0\1\0\2\0\0\0\0" + question.wire + b"\xc0\x0c\0\x10\0\1\0\0\0\x3c"
    begins = len(head) + 2
    steps = b"\0" + b"".join((0xC000 | begins + max(2 * n - 1, 0)).to_bytes(2) for n in range(200))
    last = (0xC000 | begins + len(steps) - 2).to_bytes(2)
    wire = head + len(steps).to_bytes(2) + steps + b"\xc0\x0c\0\x0f\0\1\0\0\0\x3c\0\4\0\1" + last
    with pytest.raises(Malformed, match="points"):
        read_reply(wire, question)


# -- against dnspython ---------------------------------------------------------------------------------------

labels = st.one_of(st.binary(min_size=1, max_size=63), st.from_regex(rb"[a-zA-Z0-9_-]{1,12}", fullmatch=True))


@st.composite
def names(draw: st.DrawFn) -> dns.name.Name:
    drawn = draw(st.lists(labels, min_size=0, max_size=5))
    assume(sum(map(len, drawn)) + len(drawn) + 1 <= 255)
    return dns.name.Name([*drawn, b""])


@st.composite
def rdatas(draw: st.DrawFn, rdtype: str) -> dns.rdata.Rdata:
    if rdtype == "A":
        data = draw(st.binary(min_size=4, max_size=4))
    elif rdtype == "AAAA":
        zeros = draw(st.integers(0, 16))
        data = draw(st.binary(min_size=16, max_size=16))[zeros:].rjust(16, b"\0")
    elif rdtype == "TLSA":
        data = bytes([draw(st.integers(0, 255)), 1, 1]) + draw(st.binary(min_size=32, max_size=32))
    elif rdtype == "TXT":
        strings = draw(st.lists(st.binary(max_size=255), min_size=1, max_size=3))
        data = b"".join(bytes([len(text)]) + text for text in strings)
    else:
        preference = draw(st.integers(0, 65535)).to_bytes(2) if rdtype == "MX" else b""
        wire = draw(names()).to_wire()
        assert wire is not None
        data = preference + wire
    return dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.from_text(rdtype), data, 0, len(data))


@st.composite
def messages(draw: st.DrawFn) -> tuple[str, dns.message.Message]:
    rdtype = draw(st.sampled_from(TYPES))
    path = draw(st.lists(names(), min_size=1, max_size=4, unique_by=lambda name: name.to_text().lower()))
    query = dns.message.make_query(path[0], rdtype, want_dnssec=True)
    response = dns.message.make_response(query, recursion_available=True)
    ttl = st.integers(0, 0x7FFFFFFF)
    sets = []
    if rdtype != "CNAME":
        for owner, target in itertools.pairwise(path):
            alias = dns.rdata.from_text("IN", "CNAME", target.to_text())
            sets.append(dns.rrset.from_rdata(owner, draw(ttl), alias))
    else:
        path = path[:1]
    if records := draw(st.lists(rdatas(rdtype), max_size=1 if rdtype == "CNAME" else 4)):
        sets.append(dns.rrset.from_rdata_list(path[-1], draw(ttl), records))
    if draw(st.booleans()):
        sets.append(dns.rrset.from_text("other.test.", 60, "IN", "TXT", "beside"))
    response.answer.extend(draw(st.permutations(sets)))
    if draw(st.booleans()):
        response.authority.append(dns.rrset.from_text("test.", 60, "IN", "NS", "ns.test."))
    if draw(st.booleans()):
        response.flags |= dns.flags.AD
    return rdtype, response


@settings(max_examples=200, deadline=None)
@given(messages())
def test_dnspython_reads_the_same(drawn: tuple[str, dns.message.Message]) -> None:
    """Records, aliases, TTL and AD are those that dnspython finds, in names of any octets."""
    rdtype, response = drawn
    wire = response.to_wire(max_size=65535)
    theirs = dns.message.from_wire(wire)
    assert isinstance(theirs, dns.message.QueryMessage)
    found = theirs.resolve_chaining()
    question = make_question(response.question[0].name.to_text(), rdtype)
    assert answers(wire, question)
    ours = read_reply(wire, question)
    assert ours.authentic is bool(theirs.flags & dns.flags.AD)
    assert ours.canonical == (found.canonical_name.to_text(omit_final_dot=True).lower())
    assert list(ours.aliases) == [name.name.to_text(omit_final_dot=True).lower() for name in found.cnames]
    records = list(found.answer or ())
    if records:
        assert ours.ttl == found.minimum_ttl
    if rdtype == "TXT":
        texts = [b"".join(record.strings) for record in records]
        assert [encode_text(text) for text in ours.records] == list(dict.fromkeys(texts))
    else:
        assert list(ours.records) == [record.to_text() for record in records]


@settings(max_examples=200, deadline=None)
@given(names(), st.sampled_from(TYPES), st.booleans())
def test_dnspython_reads_our_queries(name: dns.name.Name, rdtype: str, checking_disabled: bool) -> None:
    """The question, RD, AD, CD where wanted, DO and a payload of 1232 octets."""
    question = make_question(name.to_text(), rdtype)
    query = dns.message.from_wire(b"\x12\x34" + question.query(checking_disabled=checking_disabled))
    assert query.question[0].name == name
    assert query.question[0].rdtype == dns.rdatatype.from_text(rdtype)
    flags = dns.flags.RD | dns.flags.AD | (dns.flags.CD if checking_disabled else 0)
    assert (query.id, query.flags, query.edns, query.payload) == (0x1234, flags, 0, 1232)
    assert query.ednsflags == dns.flags.DO
    assert make_question(question.name, rdtype) == question  # what prints, parses back


# -- names and texts -----------------------------------------------------------------------------------------

BAD_NAMES = [
    ("", BadName),
    ("..", BadName),
    ("a..b", BadName),
    (".a", BadName),
    ("a.b..", BadName),
    ("bücher.example", BadName),
    ("a\\", BadName),
    ("a\\25", BadName),
    ("a\\256", BadName),
    ("a\\٠٠١", BadName),
    ("a\\²", BadName),
    ("a" * 64 + ".test", NameTooLong),
    (".".join(["a" * 63] * 4), NameTooLong),
    ("a." * 127 + "b", NameTooLong),
]


@pytest.mark.parametrize(("name", "kind"), BAD_NAMES)
def test_names_that_cannot_be_asked(name: str, kind: type[BadName]) -> None:
    """Text that is no name, and names that cannot exist, are told apart."""
    with pytest.raises(BadName) as caught:
        make_question(name, "A")
    assert type(caught.value) is kind


def test_the_longest_name_can_be_asked() -> None:
    assert len(make_question("a." * 127, "A").wire) == 255 + 4
    assert make_question(".".join(["a" * 63] * 3 + ["b" * 61]), "A").name.endswith("b" * 61)
    assert make_question(".", "A") == Question(".", "A", b"\0\0\1\0\1")


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_a_bad_one(text: str) -> None:
    try:
        parsed = parse_labels(text)
    except BadName:
        return
    assert parse_labels(decode_labels(parsed)) == parsed


TEXTS = [
    (b"v=STSv1; id=1;", "v=STSv1; id=1;"),
    ("gr\u00fc\u00dfe".encode(), "gr\u00fc\u00dfe"),
    (b"caf\xe9", "caf\\xe9"),
    (b"half a letter: \xc3", "half a letter: \\xc3"),
    (b"a \\ backslash \\x1 \\xg0", "a \\ backslash \\x1 \\xg0"),
    (b"looks escaped: \\xe9", "looks escaped: \\x5cxe9"),
    (b"\0", "\0"),
    (b"", ""),
]


@pytest.mark.parametrize(("data", "text"), TEXTS)
def test_decode_text(data: bytes, text: str) -> None:
    """UTF-8 is text, other octets are escaped, and a text that looks escaped is told apart."""
    assert decode_text(data) == text


@given(st.one_of(st.binary(), st.text(alphabet="\\x5ce9\xe9").map(str.encode)))
def test_texts_can_be_turned_back(data: bytes) -> None:
    """No two records have the same text, and any text can be stored as UTF-8."""
    assert encode_text(decode_text(data)) == data
