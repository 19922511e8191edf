"""The `rtls` command: what people type, what they see, and the exit codes."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rtls_analysis as rtls
from rtls_analysis import cli
from rtls_analysis.lab import Lab
from rtls_analysis.scanner import options as scan_options
from tests.lab.truth import disagreements, rows_by_key

README = Path(__file__).parent.parent / "README.md"
WHO = ["--ehlo-name", "probe.example.org", "--contact", "me@example.org"]
NOBODY = ["--resolver", "127.0.0.1:1"]  # where nobody answers


@pytest.fixture(autouse=True)
def _nobody_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_options, "_configured", {})
    for name in ("RTLS_EHLO_NAME", "RTLS_CONTACT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: its exit code, and what it wrote to standard output and error."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = cli.main(list(words))
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def of_lab(lab: Lab) -> list[str]:
    """The options with which the lab is scanned."""
    words = shlex.split(lab.command)
    assert words[:3] == ["rtls", "scan", lab.domains[0]]
    return words[3:]


# -- bad input -----------------------------------------------------------------------------------------------

BAD = [
    ("a lab of nothing", ["lab", "--domains", "0"], "argument --domains: '0' is no whole number from 1"),
    ("nobody says who scans", ["scan", "example"], "no EHLO name and no contact: give your own"),
    ("no domain", ["scan", *WHO], "no domain to scan: give DOMAIN, or a list with -i FILE"),
    ("no such list", ["scan", "-i", "nowhere.txt", *WHO], "cannot read the list nowhere.txt: No such file"),
    ("a folder for a list", ["scan", "-i", "{tmp}", *WHO], "cannot read the list {tmp}: Is a directory"),
    ("a list that may not be read", ["scan", "-i", "{locked}", *WHO], "cannot read the list {locked}: "),
    ("a list of nothing", ["scan", "-i", "{empty}", *WHO], "the list {empty} names no domain"),
    ("a resolver that does not answer", ["scan", "example.org", *WHO, *NOBODY], "the resolver 127.0.0.1:1 does not answer"),
    ("a resolver that is none", ["scan", "example.org", *WHO, "--resolver", "dns"], "not a resolver: 'dns'; give an address"),
    ("a port that is none", ["scan", "example.org", *WHO, "--smtp-port", "0"], "smtp_port is 0; give a whole number from 1"),
    ("a number that is none", ["scan", "example.org", *WHO, "--seed", "x"], "argument --seed: invalid int value: 'x'; see rtls scan --help"),
    ("a network that is none", ["scan", "example.org", *WHO, "--allow-special", "lan"], "not an address or network: 'lan'; give"),
    ("a proxy that is none", ["scan", "example.org", *WHO, "--proxy", "tor"], "not a proxy: 'tor'; give socks5://HOST:PORT"),
    ("no such CA file", ["scan", "example.org", *WHO, "--ca-file", "no.pem"], "cannot read the CA file no.pem: No such file"),
    ("a CA file without certificates", ["scan", "example.org", *WHO, "--ca-file", "{empty}"], "no certificates in the CA file {empty}"),
    ("no such TOML file", ["scan", "example.org", *WHO, "--config", "no.toml"], "cannot read no.toml: No such file"),
    ("a TOML file that is none", ["scan", "example.org", *WHO, "--config", "{text}"], "{text} is no TOML"),
    ("no such opt-out list", ["scan", "example.org", *WHO, "--opt-out", "no.txt"], "cannot read the opt-out list no.txt"),
    ("an EHLO name that is none", ["scan", "example.org", "--ehlo-name", "x", "--contact", "me@example.org"], "not a name for EHLO: 'x' has no dot"),
    ("a contact that is none", ["scan", "example.org", "--ehlo-name", "a.example", "--contact", "me"], "not a contact: 'me'; give"),
    ("an option that there is not", ["scan", "--fast"], "unrecognized arguments: --fast; see rtls --help"),
    ("a command that there is not", ["scna"], "argument COMMAND: invalid choice: 'scna'"),
    ("a snapshot that is none", ["show", "nowhere"], "nowhere is no snapshot: there is no such directory"),
    ("a folder of something else", ["show", "{tmp}"], "{tmp} is no snapshot: it has no manifest.json"),
    ("an audit of none", ["audit", "nowhere"], "nowhere is no snapshot"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "line"), [pytest.param(w, x, id=why) for why, w, x in BAD])
def test_a_callers_error_is_one_clear_line(
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    line: str,
) -> None:
    """It says what came and what would do, on standard error; the exit code is 2."""
    monkeypatch.setattr("rtls_analysis.scanner.resolver._CHECK_SECONDS", 0.3)  # nobody will answer
    names = {"tmp": tmp_path, "empty": tmp_path / "empty", "text": tmp_path / "text", "locked": "/proc/1/mem"}
    (tmp_path / "empty").write_text("\n# nothing but this\n\n")
    (tmp_path / "text").write_text("not = = toml")
    code, out, err = run(*(word.format(**names) for word in words))
    assert (code, out) == (2, "")
    (said,) = err.splitlines()
    assert said.startswith("rtls")
    assert line.format(**names) in said


def test_what_is_no_name_is_reported_and_the_others_are_scanned(
    run: Callable[..., tuple[int, str, str]], of_lab: list[str], lab: Lab, tmp_path: Path
) -> None:
    """A list as people have them: header, ranks, blank lines, comments, duplicates, capitals, U-labels, final dots."""
    file = tmp_path / "top.csv"
    text = """\ufeffRank,Domain
1,Valid.TEST

# a comment
2,wrong-name.test.
3,valid.test
4,MÜLLER-Post.test
5,no good name
6,signed.test
7,nothing..there
"""
    file.write_bytes(text.replace("\n", "\r\n").encode())
    out = tmp_path / "scan"
    code, shown, err = run("scan", "-i", str(file), "-o", str(out), *of_lab, "--quiet")
    assert (code, shown) == (1, "")
    assert [line.split(":")[:2] for line in err.splitlines()] == [["rtls", " not scanned"]] * 2
    assert "no good name" in err
    assert "nothing..there" in err
    snapshot = rtls.open_snapshot(out)
    found = dict(zip(snapshot.domains["domain"], snapshot.domains["rank"], strict=True))
    assert found == {
        "valid.test": 1,
        "wrong-name.test": 2,
        "xn--mller-post-9db.test": 4,
        "no good name": 5,
        "signed.test": 6,
        "nothing..there": 7,
    }
    bad = snapshot.domains.set_index("domain").loc[["no good name", "nothing..there"]]
    assert set(bad["mx_state"]) == {"bad_name"}
    assert set(bad["starttls"]) == {"not_applicable"}
    good = [name for name in found if name in lab.domains]
    assert len(good) == 4
    assert [line for line in disagreements(lab, snapshot, good) if "no such row" not in line] == []


def test_a_list_on_standard_input(
    run: Callable[..., tuple[int, str, str]],
    of_lab: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``-`` reads it, beside domains on the command line; ``-i -`` too. Who comes twice is scanned once."""
    for number, words in enumerate((["-", "signed.test"], ["-i", "-", "signed.test"])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"valid.test\nSIGNED.test\n")))
        out = tmp_path / str(number)
        assert run("scan", *words, "-o", str(out), *of_lab, "--quiet")[0] == 0
        assert set(rtls.open_snapshot(out).domains["domain"]) == {"valid.test", "signed.test"}


def test_the_directory_of_another_scan(
    run: Callable[..., tuple[int, str, str]], of_lab: list[str], tiny: rtls.Snapshot
) -> None:
    """It is refused in a line that says in what they differ."""
    code, out, err = run("scan", "valid.test", "-o", str(tiny.path), *of_lab)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"rtls: .* holds another scan \(different domain.*\); give a new directory\n", err)


# -- scan, show, audit ---------------------------------------------------------------------------------------


def test_without_a_directory_pages_are_printed(
    run: Callable[..., tuple[int, str, str]], of_lab: list[str], tmp_path: Path
) -> None:
    """Each domain's page, every step in order, and nothing is stored."""
    before = set(tmp_path.iterdir())
    code, out, err = run("scan", "requiretls-dnssec.test", "plain.test", *of_lab)
    assert code == 0
    assert set(tmp_path.iterdir()) == before
    assert "requiretls-dnssec.test," in out
    assert "plain.test," in out
    assert "REQUIRETLS mail can be delivered, at every address." in out
    assert "REQUIRETLS mail cannot be delivered" in out
    assert "Traceback" not in err


def test_with_a_directory_a_summary_is_printed_and_the_scan_is_resumed(
    run: Callable[..., tuple[int, str, str]], of_lab: list[str], tmp_path: Path
) -> None:
    """The same command again shows the same, and asks nobody."""
    words = ["scan", "valid.test", "requiretls-dnssec.test", "-o", str(tmp_path / "scan")]
    code, first, _ = run(*words, *of_lab)
    assert code == 0
    assert "2 domains, 2 MX hosts, 2 addresses" in first
    assert f"rtls show {tmp_path / 'scan'} prints it again" in first
    assert run(*words, *of_lab, *NOBODY)[:2] == (0, first)
    assert run(*words, *of_lab, *NOBODY, "--quiet") == (0, "", "")


def test_a_plan_is_printed_and_nobody_is_contacted(
    run: Callable[..., tuple[int, str, str]], of_lab: list[str], lab: Lab, tmp_path: Path
) -> None:
    """``--plan`` looks everything up and stops there; the same command without it goes on."""
    out = tmp_path / "scan"
    words = ["scan", *lab.domains[:20], "-o", str(out), *of_lab]
    code, shown, _ = run(*words, "--plan")
    assert code == 0
    assert shown.startswith("Plan: ")
    planned = rtls.open_snapshot(out)
    assert planned.manifest["state"] == "planned"
    assert planned.attempts.empty
    assert run(*words, "--quiet")[0] == 0
    done = rtls.open_snapshot(out)
    assert done.is_complete
    assert len(done.attempts) == done.manifest["plan"]["probes"] + done.manifest["plan"]["policies"]


def test_options_reach_the_scan(
    run: Callable[..., tuple[int, str, str]], of_lab: list[str], tmp_path: Path
) -> None:
    """Each option that is given stands in the manifest, before the TOML file, that before the environment."""
    (tmp_path / "scan.toml").write_text(
        'seed = 9\nconcurrency = 3\ncontact = "file@example.org"\n[manners]\npause = 7\n[rules]\nname_rule = "literal"\n'
    )
    (tmp_path / "optout").write_text("wrong-name.test # asked us\n")
    words = ["scan", "valid.test", "wrong-name.test", "-o", str(tmp_path / "scan"), *of_lab, "--quiet"]
    words += ["--config", str(tmp_path / "scan.toml"), "--seed", "4", "--opt-out", str(tmp_path / "optout")]
    assert run(*words, "--sample-shared", "5", "--workers", "1")[0] == 0
    snapshot = rtls.open_snapshot(tmp_path / "scan")
    manifest = snapshot.manifest
    assert manifest["scan"]["seed"] == 4
    assert manifest["scan"]["opt_out"] == ["wrong-name.test"]
    assert manifest["scan"]["sample_shared"] == 5
    assert manifest["concurrency"] == 3
    assert manifest["manners"]["pause"] == 7
    assert manifest["rules"]["name_rule"] == "literal"
    assert manifest["vantage"]["contact"] == "postmaster@lab.test"
    assert rows_by_key(snapshot, "domains")["wrong-name.test",]["starttls"] == "not_tested"


def test_show(run: Callable[..., tuple[int, str, str]], scanned: rtls.Snapshot) -> None:
    """The summary, a domain's page by any form of its name, and every table as CSV with lists as JSON."""
    code, out, err = run("show", str(scanned.path))
    assert (code, err) == (0, "")
    assert out == f"{scanned}\n"
    assert "1,000 domains" in out
    assert "What stops REQUIRETLS mail first" in out

    code, out, _ = run("show", str(scanned.path), "--domain", "MÜLLER-post.test.")
    assert code == 0
    assert out.startswith("müller-post.test (xn--mller-post-9db.test), ")

    for table in ("domains", "mx", "hosts", "sessions", "certificates", "attempts"):
        code, out, err = run("show", str(scanned.path), "--table", table)
        assert (code, err) == (0, "")
        rows = list(csv.DictReader(io.StringIO(out)))
        assert len(rows) == len(scanned.table(table))
        assert list(rows[0]) == list(scanned.table(table).columns)
    code, out, _ = run("show", str(scanned.path), "--table", "hosts")
    addresses = {row["mx_host"]: json.loads(row["addresses"]) for row in csv.DictReader(io.StringIO(out))}
    assert len(addresses["mx1.one-of-three.test"]) == 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--domain", "nowhere.test"], r"has no domain 'nowhere\.test'"),
        (["--domain", "no name"], "has no domain 'no name'"),
        (["--table", "tables"], "no table 'tables' in a snapshot; there are domains, mx, hosts"),
    ],
)
def test_show_says_what_there_is_not(
    run: Callable[..., tuple[int, str, str]], tiny: rtls.Snapshot, words: list[str], line: str
) -> None:
    """One line for a domain or table that is not in the snapshot."""
    code, out, err = run("show", str(tiny.path), *words)
    assert (code, out) == (2, "")
    assert re.search(line, err)
    assert len(err.splitlines()) == 1


def test_audit(run: Callable[..., tuple[int, str, str]], scanned: rtls.Snapshot) -> None:
    """The record of a scan of the lab proves that nothing was broken."""
    code, out, err = run("audit", str(scanned.path))
    assert (code, err) == (0, "")
    assert "all within the manners" in out


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rtls_analysis.cli", *words]


def test_a_reader_that_has_seen_enough(scanned: rtls.Snapshot) -> None:
    """``rtls show --table ... | head`` ends without a word."""
    line = shlex.join(_command("show", str(scanned.path), "--table", "sessions")) + " | head -n 1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("mx_host,address,")
    assert done.stderr == ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupt(of_lab: list[str], lab: Lab, tmp_path: Path, workers: str) -> None:
    """Ctrl-C, which every process of the terminal gets: exit 130, one line that says how to go on, and going on works."""
    (tmp_path / "list").write_text("\n".join(lab.domains[:21]))
    (tmp_path / "slow.toml").write_text("[manners]\nown_addresses = true\nprefix_spacing = 0.05\n")
    out = tmp_path / "scan"
    words = ["scan", "-i", str(tmp_path / "list"), "-o", str(out), *of_lab, "--workers", workers]
    slow = ["--config", str(tmp_path / "slow.toml")]
    process = subprocess.Popen(
        _command(*words, *slow), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 60
    while not list((out / "_work").glob("attempts-*")) and time.monotonic() < until:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert re.fullmatch(r"rtls: interrupted after [\d,]+ of 21 domains; .* resumes", last)
    assert "Traceback" not in err
    assert rtls.open_snapshot(out).manifest["state"] == "interrupted"
    done = subprocess.run(_command(*words, "--quiet"), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert disagreements(lab, rtls.open_snapshot(out), lab.domains[:21]) == []


# -- lab and demo --------------------------------------------------------------------------------------------


def test_lab_prints_a_command_that_works() -> None:
    """The command of the last line scans a domain of the lab; Ctrl-C ends the lab."""
    process = subprocess.Popen(
        _command("lab", "--domains", "25"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and lines[-1].startswith("  rtls scan ")):
        line = process.stdout.readline()
        assert line, "it ended"
        lines.append(line)
    assert lines[0].startswith("A lab of 25 domains is running on loopback")
    assert any("no STARTTLS" in line for line in lines)
    program, *words = shlex.split(lines[-1])
    assert program == "rtls"
    done = subprocess.run(_command(*words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "MX name secured" in done.stdout
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130


def test_demo(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """A summary, and a snapshot that is there afterwards; a second demo leaves the first alone."""
    for folder in ("scan", "scan-2"):
        code, out, err = run("demo", "-o", str(tmp_path / "demo"), "--domains", "20")
        assert code == 0, err
        assert "20 domains" in out
        snapshot = rtls.open_snapshot(tmp_path / "demo" / folder)
        assert snapshot.is_complete
        command = re.search(r"rtls (show \S+ --domain \S+)", out)
        assert command is not None
        assert run(*shlex.split(command[1]))[0] == 0


def test_demo_needs_no_network(tmp_path: Path) -> None:
    """It runs where there is nothing but loopback."""
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("takes the network away in a namespace, which needs root and the ip command")
    line = "ip link set lo up && exec " + shlex.join(
        _command("demo", "-o", str(tmp_path / "demo"), "--domains", "20")
    )
    done = subprocess.run(["unshare", "--net", "sh", "-c", line], capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert rtls.open_snapshot(tmp_path / "demo" / "scan").is_complete


# -- help ----------------------------------------------------------------------------------------------------


def _commands() -> dict[str, argparse.ArgumentParser]:
    parser = cli.make_parser()
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def _options(parser: argparse.ArgumentParser) -> set[str]:
    return {text for action in parser._actions for text in action.option_strings if text.startswith("--")}


def test_help_is_quick_and_whole() -> None:
    """``rtls --help`` and those of the commands load none of the heavy libraries."""
    code = (
        "import sys; from rtls_analysis.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'cryptography', 'matplotlib', 'scipy', 'dns', 'asyncio', 'ssl'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    for words in (["--help"], *([name, "--help"] for name in _commands()), ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == "LOADED []", words
        assert done.stdout.count("\n") > 1


def test_each_command_and_option_says_what_it_does() -> None:
    """No option without help, no command without a description."""
    for name, parser in _commands().items():
        assert parser.description, name
        for action in parser._actions:
            assert action.help, (name, action.dest)


def test_what_the_readme_shows_is_there() -> None:
    """Each ``rtls`` line of the README parses, and each option it names is one of a command."""
    text = README.read_text(encoding="utf-8")
    lines = re.findall(r"^rtls .*$", text, re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert cli.make_parser().parse_args(words).command == words[0]
    known = set().union(*map(_options, _commands().values()))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named - known == set()


def test_every_option_of_scan_is_one_of_the_function() -> None:
    """What the command takes `rtls.scan` takes too, by the same name."""
    import inspect

    taken = set(inspect.signature(rtls.scan).parameters)
    ours: dict[str, Any] = {
        "--help": "",
        "--input": "domains",
        "--output": "out",
        "--plan": "plan_only",
        "--scheduler": "client",
        "--quiet": "progress",
    }
    for option in _options(_commands()["scan"]):
        name = ours.get(option, option.removeprefix("--").replace("-", "_"))
        assert not name or name in taken, option
