"""Options of a scan: where they come from, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtls_analysis.scanner import options
from rtls_analysis.scanner.options import Manners, ScanProblem, configure, make_options, read_opt_out

WHO = {"ehlo_name": "probe.example.org", "contact": "me@example.org"}


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_configured", {})
    for variable in options.SAYS.values():
        monkeypatch.delenv(variable, raising=False)


def test_who_scans_is_never_guessed() -> None:
    """Without EHLO name and contact one line says how to give them."""
    with pytest.raises(
        ScanProblem, match=r"no EHLO name and no contact: .*rtls\.configure.*--ehlo-name.*RTLS_CONTACT"
    ):
        make_options({})
    with pytest.raises(ScanProblem, match=r"^no contact"):
        make_options({"ehlo_name": "probe.example.org"})


def test_arguments_go_before_file_before_configure_before_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest word counts."""
    monkeypatch.setenv("RTLS_EHLO_NAME", "env.example.org")
    monkeypatch.setenv("RTLS_CONTACT", "env@example.org")
    assert make_options({}).ehlo_name == "env.example.org"
    configure(ehlo_name="configured.example.org")
    assert make_options({}).ehlo_name == "configured.example.org"
    file = tmp_path / "scan.toml"
    file.write_text(
        'ehlo-name = "file.example.org"\nconcurrency = 7\n[manners]\npause = 5\n[rules]\nname_rule = "literal"\n'
    )
    held = make_options({}, file)
    assert (held.ehlo_name, held.concurrency, held.manners.pause) == ("file.example.org", 7, 5)
    assert held.rules.name_rule == "literal"
    assert held.contact == "env@example.org"
    assert make_options({"ehlo_name": "argument.example.org"}, file).ehlo_name == "argument.example.org"


WRONG = [
    ("an EHLO name without a dot", {"ehlo_name": "laptop"}, "has no dot"),
    ("an EHLO name that is none", {"ehlo_name": "a b"}, "not a name for EHLO"),
    ("a contact that reaches nobody", {"contact": "me"}, "give a mail address"),
    ("a port out of range", {"smtp_port": 70000}, "from 1 to 65535"),
    ("a port that is text", {"smtp_port": "25"}, "whole number"),
    ("no connection at all", {"concurrency": 0}, "from 1 to"),
    ("an unknown option", {"speed": 1}, "no option speed"),
    ("an unknown time limit", {"timeouts": {"hello": 1}}, "no timeouts hello"),
    ("a negative time limit", {"timeouts": {"connect": -1}}, "give a number"),
    ("no time at all", {"timeouts": {"reply": 0}}, "reply is 0; give a number from 0.001 on"),
    ("time without end", {"timeouts": {"session": float("inf")}}, "give a number"),
    ("no number", {"manners": {"pause": float("nan")}}, "give a number from 0 on"),
    ("nobody may be contacted", {"manners": {"address_at_once": 0}}, "give a whole number from 1 on"),
    ("nobody, said with a record", {"manners": Manners(prefix_at_once=0)}, "give a whole number from 1 on"),
    ("half a connection", {"manners": {"prefix_at_once": 1.5}}, "give a whole number from 1 on"),
    ("a share in percent", {"manners": {"error_share": 5}}, "give a number from 0 to 1"),
    ("a manner of the wrong kind", {"manners": {"own_addresses": 1}}, "true or false"),
    ("an unknown rule", {"rules": {"mood": "mild"}}, "mood"),
    ("an unknown mode", {"rules": {"sts_modes": ["strict"]}}, "strict"),
]


@pytest.mark.parametrize(("given", "message"), [pytest.param(g, m, id=why) for why, g, m in WRONG])
def test_a_wrong_option_is_one_clear_error(given: dict[str, Any], message: str) -> None:
    """The error says what came and what would do."""
    with pytest.raises(ScanProblem, match=message):
        make_options({**WHO, **given})


@pytest.mark.parametrize("text", ["[192.0.2.1]", "[IPv6:2001:db8::1]", "Probe.Example.org."])
def test_an_address_in_brackets_will_do(text: str) -> None:
    """Whoever has no name greets with the address, as RFC 5321 §4.1.3 has it."""
    assert make_options({**WHO, "ehlo_name": text}).ehlo_name.strip("[]")


@pytest.mark.parametrize(
    ("text", "message"), [("x = ", "no TOML"), ("speed = 1", "no option speed"), (None, "cannot read")]
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str | None, message: str) -> None:
    """The error names the file."""
    file = tmp_path / "scan.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ScanProblem, match=message):
        make_options(dict(WHO), file)


@pytest.mark.parametrize(
    "manners", [{"retries": 0}, {"provider_spacing": 0}, {"pause": 0.0, "longest_pause": 0}]
)
def test_nothing_is_a_manner_too(manners: dict[str, Any]) -> None:
    """No second visit, no spacing and no pause are things that one may want."""
    assert make_options({**WHO, "manners": manners})


def test_an_opt_out_list_that_the_file_names(tmp_path: Path) -> None:
    """In the TOML file it is a list of entries or, as on the command line, the name of a file: never an entry."""
    opted_out, file = tmp_path / "optout.txt", tmp_path / "scan.toml"
    opted_out.write_text("example.org\n")
    file.write_text(f'opt-out = "{opted_out}"\n')
    assert make_options(dict(WHO), file).opt_out == ("example.org",)
    file.write_text('opt-out = ["example.net"]\n')
    assert make_options(dict(WHO), file).opt_out == ("example.net",)
    file.write_text('opt-out = "nowhere.txt"\n')
    with pytest.raises(ScanProblem, match=r"cannot read the opt-out list nowhere\.txt"):
        make_options(dict(WHO), file)


def test_opt_out_list(tmp_path: Path) -> None:
    """One entry a line, comments passed over."""
    file = tmp_path / "optout"
    file.write_text("# asked us\nexample.org # 2026\n\n192.0.2.0/24\n")
    assert read_opt_out(file) == ["example.org", "192.0.2.0/24"]


# -- from where ----------------------------------------------------------------------------------------------

FROM_WHERE = [
    ("a vantage with a space", {"vantage": "my place"}, "not a name of a vantage: 'my place'; give 1 to 64"),
    ("a vantage without a name", {"vantage": ""}, "not a name of a vantage"),
    ("a vantage with a long name", {"vantage": "x" * 65}, "not a name of a vantage"),
    (
        "two of a family",
        {"source": ["127.0.0.1", "127.0.0.2"]},
        r"2 IPv4 addresses .*\(127.0.0.1, 127.0.0.2\)",
    ),
    ("a name in place of an address", {"source": ["eth0"]}, "not an address to connect from: 'eth0'"),
    ("any address", {"source": "0.0.0.0"}, "not an address to connect from"),
    ("an address of a group", {"source": "224.0.0.1"}, "not an address to connect from"),
    (
        "somebody else's address",
        {"source": "192.0.2.77"},
        r"cannot connect from 192\.0\.2\.77: .*this machine's",
    ),
    ("somebody else's IPv6 address", {"source": "2001:db8::77"}, "cannot connect from 2001:db8::77"),
    (
        "an address, and a proxy that has its own",
        {"source": "127.0.0.1", "proxy": "socks5://127.0.0.1:1080"},
        "the proxy connects from its own",
    ),
]


@pytest.mark.parametrize(("given", "message"), [pytest.param(g, m, id=why) for why, g, m in FROM_WHERE])
def test_a_place_that_cannot_be_is_one_clear_error(given: dict[str, Any], message: str) -> None:
    """The error says what came and what would do."""
    with pytest.raises(ScanProblem, match=message):
        make_options({**WHO, **given})


def test_a_vantage_has_the_name_it_is_given_or_that_of_the_machine() -> None:
    """Tables name every place, whether its user did or not; `each` is no name."""
    assert make_options(WHO).vantage_name == "probe.example.org"
    assert make_options({**WHO, "vantage": "ams-1"}).vantage_name == "ams-1"
    every = make_options({**WHO, "vantage": "each"})
    assert (every.vantage, every.vantage_name) == ("each", "probe.example.org")


def test_a_family_is_connected_from_its_own_source() -> None:
    """An address of the other family, or none, leaves the choice to the system."""
    made = make_options({**WHO, "source": ["127.0.0.2"]})
    assert made.source == ("127.0.0.2",)
    assert (made.source_for("192.0.2.1"), made.source_for("2001:db8::1")) == ("127.0.0.2", None)


def test_the_nearest_word_on_the_place_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments, TOML file, `configure`, environment, as for who scans."""
    monkeypatch.setenv("RTLS_VANTAGE", "env")
    monkeypatch.setenv("RTLS_SOURCE", "127.0.0.2, ")
    made = make_options(WHO)
    assert (made.vantage, made.source) == ("env", ("127.0.0.2",))
    configure(vantage="configured", source=["127.0.0.3"])
    made = make_options(WHO)
    assert (made.vantage, made.source) == ("configured", ("127.0.0.3",))
    file = tmp_path / "scan.toml"
    file.write_text('vantage = "file"\nsource = ["127.0.0.4"]\n')
    made = make_options(WHO, file)
    assert (made.vantage, made.source) == ("file", ("127.0.0.4",))
    made = make_options({**WHO, "vantage": "argument", "source": ["127.0.0.5"]}, file)
    assert (made.vantage, made.source) == ("argument", ("127.0.0.5",))


def test_configure_refuses_a_place_at_once() -> None:
    """What cannot be is told where it is said."""
    with pytest.raises(ScanProblem, match="not a name of a vantage"):
        configure(vantage="a/b")
    with pytest.raises(ScanProblem, match="cannot connect from"):
        configure(source="192.0.2.77")
