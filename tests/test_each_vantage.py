"""A scan from each of several vantages: what each saw, judged by what it saw, and nothing counted twice."""

from __future__ import annotations

import inspect
import io
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import rtls_analysis as rtls
from rtls_analysis import analysis, cli, plots
from rtls_analysis.pages import DomainPage
from rtls_analysis.schema import SNAPSHOT_TABLES, TABLES
from rtls_analysis.store import Snapshot, one_vantage
from rtls_analysis.verdicts import explain, judge_hops
from tests.analysis.made import from_each, made

READING = {"sts_modes": ["enforce", "testing"], "minimum_tls": "TLSv1.3"}


@pytest.fixture(scope="module")
def blocked(scanned: rtls.Snapshot) -> Snapshot:
    """What a vantage sees that a third of the servers turn away, and that fetched no policy of some domains."""
    frames = {table.name: scanned.table(table.name) for table in SNAPSHOT_TABLES}
    sessions = frames["sessions"]
    turned_away = sessions.index % 3 == 0
    nothing = {"starttls": "unknown", "requiretls_tls": "unknown", "outcome": "blocked", "pkix": "not_tested"}
    for column, word in nothing.items():
        sessions[column] = sessions[column].mask(turned_away, word)
    for column in ("tls_version", "cipher", "chain_sha256"):
        sessions[column] = sessions[column].mask(turned_away, None)
    domains = frames["domains"]
    unfetched = domains["sts_policy"].eq("valid") & (domains.index % 2 == 0)
    for column, value in (("sts_policy", "timeout"), ("sts_http_status", None), ("sts_policy_text", None)):
        domains[column] = domains[column].mask(unfetched, value)
    return rtls.judge(Snapshot(None, scanned.manifest, scanned.roots_pem, frames))


@pytest.fixture(scope="module")
def each(scanned: rtls.Snapshot, blocked: Snapshot) -> Snapshot:
    return from_each(free=scanned, blocked=blocked)


def told(snapshot: Snapshot, table: str) -> pd.DataFrame:
    """A table in an order of its own, the vantage aside."""
    keys = [name for name in TABLES[table].key if name != "vantage"]
    frame = snapshot.table(table).drop(columns="vantage", errors="ignore")
    return frame.sort_values(keys or ["started_at", "address"], kind="stable", ignore_index=True)


def assert_same(one: Snapshot, other: Snapshot, tables: tuple[str, ...]) -> None:
    for table in tables:
        pd.testing.assert_frame_equal(told(one, table), told(other, table), obj=table)


SEEN = ("domains", "mx", "sessions")


def test_each_vantage_gives_back_what_it_saw(
    each: Snapshot, scanned: rtls.Snapshot, blocked: Snapshot
) -> None:
    """One vantage of a scan from each is a scan from there, of which nothing is told of the others."""
    assert each.vantages == ["blocked", "free"]
    assert each.is_from_each
    for name, whole in (("free", scanned), ("blocked", blocked)):
        one = each.from_vantage(name)
        assert (one.vantages, one.is_from_each) == ([name], False)
        assert_same(one, whole, (*SEEN, "hosts", "attempts"))
        assert set(one.certificates["sha256"]) <= set(whole.certificates["sha256"])
        chains = one.sessions["chain_sha256"].dropna()
        assert {sha256 for chain in chains for sha256 in chain} <= set(one.certificates["sha256"])
        assert one.manifest["vantage"]["ehlo_name"] == f"{name}.example.org"
        assert [place["name"] for place in one.manifest["vantages"]] == [name]
        assert f"seen from {name}" in str(one)
        assert one_vantage(one) is one
    with pytest.raises(ValueError, match=r"no vantage 'c' in this snapshot; there are blocked, free"):
        each.from_vantage("c")


def test_domains_are_judged_by_what_their_vantage_saw(
    each: Snapshot, scanned: rtls.Snapshot, blocked: Snapshot
) -> None:
    """A server that turns one vantage away takes nothing from a domain as another sees it; under other rules too."""
    assert not told(scanned, "domains").equals(told(blocked, "domains"))
    again = rtls.judge(each)
    for name in each.vantages:
        assert_same(again.from_vantage(name), each.from_vantage(name), SEEN)
    other = rtls.judge(each, **READING)
    for name, whole in (("free", scanned), ("blocked", blocked)):
        assert_same(other.from_vantage(name), rtls.judge(whole, **READING), SEEN)
    assert not told(other.from_vantage("free"), "domains").equals(told(scanned, "domains"))


def test_hops_of_each_vantage(each: Snapshot, scanned: rtls.Snapshot, blocked: Snapshot) -> None:
    """Hop by hop the verdicts are those of two scans."""
    found = [(domain["vantage"], domain["domain"], hop) for domain, hop in judge_hops(each)]
    for name, whole in (("free", scanned), ("blocked", blocked)):
        expected = [(name, domain["domain"], hop) for domain, hop in judge_hops(whole)]
        assert [line for line in found if line[0] == name] == expected


def takes_a_snapshot(function: Any) -> list[str]:
    """The parameters of a function that are snapshots, the required ones."""
    parameters = inspect.signature(function).parameters.values()
    return [
        one.name
        for one in parameters
        if re.search(r"\bSnapshot\b", str(one.annotation)) and one.default is inspect.Parameter.empty
    ]


COMPARES = {"compare_vantages", "vantage_reasons"}
"""Functions that are made for a scan from each vantage."""

COUNTING = [
    pytest.param(function, id=f"{room.__name__}.{name}")
    for room in (analysis, plots)
    for name in room.__all__
    if name not in {*COMPARES, "ArtefactWarning"} and takes_a_snapshot(function := getattr(room, name))
] + [
    pytest.param(getattr(rtls, name), id=f"rtls.{name}")
    for name in ("deployment", "concentration", "compare", "what_if")
]


@pytest.mark.parametrize("function", COUNTING)
def test_nobody_counts_twice(function: Any, each: Snapshot) -> None:
    """Whoever counts domains or servers of a snapshot refuses one that tells of them several times, in one line."""
    names = list(inspect.signature(function).parameters)
    given: list[Any] = [each]
    if "snapshots" in names:
        given = [[each]]
    elif names[1:2] in (["after"], ["second"]):
        given = [each, each]
    elif function is rtls.what_if:
        given = [rtls.load_sample("postfix-3.11"), each]
    with pytest.raises(
        ValueError, match=r"vantages blocked, free: take one with .*from_vantage\('blocked'\)"
    ):
        function(*given)


def test_a_page_is_of_one_vantage(each: Snapshot, lab: Any) -> None:
    """A domain's page and its explanation ask which vantage is meant."""
    domain = lab.domains[0]
    for make in (DomainPage, explain):
        with pytest.raises(ValueError, match="take one with"):
            make(each, domain)
    assert domain in str(DomainPage(each.from_vantage("blocked"), domain))


def test_a_report_is_of_one_vantage(each: Snapshot, tmp_path: Path) -> None:
    """Nothing is written of a snapshot that would be counted twice."""
    with pytest.raises(ValueError, match="take one with"):
        rtls.write_report(tmp_path / "page.html", snapshot=each)
    assert not (tmp_path / "page.html").exists()


def test_a_snapshot_from_each_shows_each(each: Snapshot) -> None:
    """What people see of it are the counts of each vantage, under its name."""
    for text in (str(each), each._repr_html_()):
        assert text.count("seen from blocked") == text.count("seen from free") == 1
    for count in (each.summary, each.obstacles):
        with pytest.raises(ValueError, match="take one with"):
            count()


def test_a_scan_that_several_vantages_shared_is_one(scanned: rtls.Snapshot) -> None:
    """Where each target was contacted from one of several vantages nothing is told twice, and all functions count it."""
    frames = {table.name: scanned.table(table.name) for table in SNAPSHOT_TABLES}
    for name in ("domains", "mx", "sessions", "attempts"):
        places = pd.Series(["a", "b", None], dtype="str")
        at = frames[name].index % 3
        frames[name]["vantage"] = (
            places[at].set_axis(frames[name].index).astype(frames[name]["vantage"].dtype)
        )
    shared = Snapshot(None, scanned.manifest, scanned.roots_pem, frames)
    assert shared.vantages == ["a", "b"]
    assert one_vantage(shared) is shared
    assert shared.summary().equals(scanned.summary())
    assert_same(rtls.judge(shared), scanned, SEEN)
    assert set(shared.from_vantage("a").domains["vantage"]) == {"a"}


def test_an_old_snapshot_names_no_vantage(tiny: rtls.Snapshot, tmp_path: Path) -> None:
    """A snapshot of before the column opens, is audited and judged: the column is missing there."""
    out = tmp_path / "old"
    tiny.save(out)
    for table in SNAPSHOT_TABLES:
        for part in (out / table.name).glob("*.parquet"):
            held = pq.read_table(part, partitioning=None)
            if "vantage" in held.column_names:
                pq.write_table(held.drop_columns(["vantage"]), part)
    old = rtls.open_snapshot(out)
    assert old.vantages == []
    assert one_vantage(old) is old
    assert old.sessions["vantage"].isna().all()
    assert list(old.sessions.columns) == TABLES["sessions"].names()
    assert_same(rtls.judge(old), tiny, SEEN)
    assert rtls.audit(old).empty
    assert str(old) == str(tiny)
    with pytest.raises(ValueError, match="there are none"):
        old.from_vantage("a")


def test_tables_made_by_hand_tell_by_themselves() -> None:
    """Without a manifest of a scan the rows say whether they are told of each vantage."""
    row = {"mx_host": "a.example", "address": "192.0.2.1", "starttls": "yes"}
    assert not made(sessions=[row, row]).is_from_each
    assert made(sessions=[{**row, "vantage": "a"}, {**row, "vantage": "b"}]).is_from_each
    assert not made(
        [{"domain": "a.example", "vantage": "a"}, {"domain": "b.example", "vantage": "b"}]
    ).is_from_each


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(each: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("each") / "scan"
    each.save(folder)
    return str(folder)


Said = tuple[int, str, str]


def command(capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    """Run `rtls` in this process: its exit code, and what it wrote to standard output and error."""
    capsys.readouterr()
    return cli.main(list(words)), *capsys.readouterr()


def test_the_command_takes_one_vantage_of_them(
    capsys: pytest.CaptureFixture[str], stored: str, each: Snapshot, scanned: Snapshot, tmp_path: Path
) -> None:
    """A page and a summary of each, or of the one that is named; another scan is compared with the one that is named."""
    code, out, err = command(capsys, "show", stored)
    assert (code, err) == (0, "")
    assert (out.count("seen from blocked"), out.count("seen from free")) == (1, 1)
    code, out, err = command(capsys, "show", stored, "--vantage", "free")
    assert (code, out, err) == (0, f"{each.from_vantage('free')}\n", "")
    pages = {name: str(DomainPage(each.from_vantage(name), "valid.test")) for name in ("blocked", "free")}
    assert command(capsys, "show", stored, "--domain", "valid.test")[1] == "\n".join(pages.values()) + "\n"
    one = command(capsys, "show", stored, "--domain", "valid.test", "--vantage", "free")
    assert one[1] == pages["free"] + "\n"
    text = command(capsys, "show", stored, "--table", "domains", "--vantage", "free")[1]
    assert list(pd.read_csv(io.StringIO(text))["domain"]) == list(each.from_vantage("free").domains["domain"])

    code, out, err = command(capsys, "compare", stored, str(scanned.path), "--vantage", "free")
    assert (code, out, err) == (0, "Nothing differs.\n", "")
    out_file = tmp_path / "page.html"
    code, out, err = command(capsys, "report", "--snapshot", stored, "--vantage", "free", "-o", str(out_file))
    assert (code, out, err) == (0, f"Written: {out_file}\n", "")


def test_the_command_compares_the_vantages(
    capsys: pytest.CaptureFixture[str], stored: str, each: Snapshot, tmp_path: Path
) -> None:
    """One scan from each is compared with itself: counts, and the servers on which they differ; the table too."""
    table = analysis.compare_vantages(each)
    differs = table[table["verdict"] == "differs"]
    assert len(differs) > 10
    code, out, err = command(capsys, "compare", stored, "-o", str(tmp_path / "sights.csv"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    same = len(table) - len(differs)
    assert lines[0] == f"blocked and free say the same of {same:,} of {len(table):,} servers"
    first = differs[differs["reason"] == "blocked"].iloc[0]
    assert f"  {first['mx_host']} [{first['address']}]: {first['detail']}" in lines
    for reason, count in differs["reason"].value_counts().items():
        assert f"{reason}: {count:,}" in lines
    assert f"  ... and {(differs['reason'] == 'blocked').sum() - 10:,} more" in lines
    assert len(pd.read_csv(tmp_path / "sights.csv")) == len(table)
    again = command(capsys, "compare", stored, stored, "--vantage", "free")
    assert again == (0, "Nothing differs.\n", "")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["compare", "{each}", "{each}"], "{each} was seen from each of blocked, free: take one with --vantage NAME"),
        (["report", "--snapshot", "{each}", "-o", "page.html"], "{each} was seen from each of blocked, free: take"),
        (["show", "{each}", "--vantage", "c"], "{each}: no vantage 'c' in this snapshot; there are blocked, free"),
        (["compare", "{one}", "{one}", "--vantage", "c"], "{one}: no vantage 'c' in this snapshot; there are probe.lab.test"),
        (["compare", "{each}", "--vantage", "free"], "--vantage goes with two scans: one is compared from all of its"),
        (["compare", "{one}"], "{one}: this snapshot has probe.lab.test, and tells of each server once; give a scan from"),
    ],
)  # fmt: skip
def test_the_command_says_what_it_needs(
    capsys: pytest.CaptureFixture[str], stored: str, scanned: Snapshot, words: list[str], line: str
) -> None:
    """One clear line where all vantages cannot be told at once, or there is no such one."""
    code, out, err = command(capsys, *(word.format(each=stored, one=scanned.path) for word in words))
    assert (code, out) == (2, "")
    assert err.startswith("rtls: " + line.format(each=stored, one=scanned.path))
    assert len(err.splitlines()) == 1
