"""The samples: each there, of the kind it says it is, described, and the same from an installed wheel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import rtls_analysis as rtls
from rtls_analysis.samples import SAMPLES, data_folder, load_sample
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, HOPS, TLS_REPORTS
from rtls_analysis.store import Snapshot

REPOSITORY = Path(__file__).parents[1]
TABLES = {table.name: table for table in (DELIVERIES, CONNECTIONS, BOUNCES, TLS_REPORTS, HOPS)}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_loads(name: str) -> None:
    """A sample is what its first word says: a table of the schema, a snapshot, snapshots by date, or figures."""
    found = load_sample(name)
    kind = SAMPLES[name].what.partition(":")[0]
    if kind in TABLES:
        assert [*found.columns] == TABLES[kind].names()
        assert len(found) or kind == "connections"  # not every server tells of them
        assert not found.attrs["coverage"]["unreadable_files"]
    elif kind == "a snapshot":
        assert isinstance(found, Snapshot)
        assert found.is_complete
    elif kind == "snapshots by date":
        assert [*found] == sorted(found)
        assert all(isinstance(snapshot, Snapshot) for snapshot in found.values())
    else:
        assert kind == "a table"
        assert isinstance(found, pd.DataFrame)
        assert len(found)


def test_an_unknown_name_lists_the_known_ones() -> None:
    """Who asks for a sample that is not there is told which are."""
    with pytest.raises(ValueError, match="no sample 'postfix'") as problem:
        load_sample("postfix")
    assert all(f"\n  {name} " in str(problem.value) for name in SAMPLES)


def test_every_sample_is_described() -> None:
    """The README has a line for each file or folder, and nothing lies there that no sample reads."""
    described = (data_folder() / "README.md").read_text(encoding="utf-8")
    top = {Path(sample.path).parts[0] for sample in SAMPLES.values()}
    for name in top:
        assert f"| `{name}" in described
    held = {path.name for path in data_folder().iterdir() if path.name != "README.md"}
    assert held == top


def test_published_rates_hold_together() -> None:
    """Keys are unique, a rate is that of its counts, and each row says where it comes from."""
    table = load_sample("published-rates")
    assert table["key"].is_unique
    assert table["source"].ne("").all()
    assert set(table["evidence"]) == {"tables", "abstract", "derived", "none"}
    counted = table[table["numerator"].notna() & table["denominator"].notna()]
    share = counted["numerator"].astype(float) / counted["denominator"].astype(float)
    assert ((share - counted["rate"]).abs() < 6e-5).all()
    told = table.set_index("key")["rate"]
    assert told["mta_sts_top1m_2026"] == pytest.approx(0.007377)
    assert pd.isna(told["requiretls"])


def test_the_series_changes() -> None:
    """Some domains come, some go, some gain, some lose, and no verdict depends on when it is judged again."""
    series = load_sample("lab-series")
    assert [*series] == ["2026-05-04", "2026-08-03", "2026-11-02"]
    first, _middle, last = series.values()
    changes = rtls.compare(first, last)
    assert {"entered", "left", "gained", "lost"} <= set(changes["change"])
    for date, snapshot in series.items():
        assert str(snapshot.manifest["started_at"]).startswith(date)
        again = rtls.judge(snapshot).domains["requiretls_ready"].astype(str)
        assert again.tolist() == snapshot.domains["requiretls_ready"].astype(str).tolist()


def test_the_series_is_small() -> None:
    """The three scans travel in the wheel: less than 300 kB together."""
    files = [path for path in (data_folder() / "lab-series").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000


LOAD_ALL = """
import json, pathlib, rtls_analysis
from rtls_analysis.samples import SAMPLES, load_sample
for name in SAMPLES:
    load_sample(name)
print(json.dumps([rtls_analysis.__file__, sorted(SAMPLES)]))
"""


@pytest.mark.timeout(280)
def test_samples_travel_in_the_wheel(tmp_path: Path) -> None:
    """An installed wheel outside the repository has every sample."""
    import json

    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
    ]
    try:
        import hatchling  # noqa: F401
    except ImportError:
        build.remove("--no-build-isolation")
    made = subprocess.run([*build, tmp_path, REPOSITORY], capture_output=True, text=True, cwd=tmp_path)
    if made.returncode and "hatchling" in made.stderr:
        pytest.skip("the build back end cannot be had")
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel]
    subprocess.run(install, check=True, cwd=tmp_path, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD_ALL],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    where, names = json.loads(done.stdout)
    assert Path(where).is_relative_to(target)
    assert names == sorted(SAMPLES)


def test_the_two_vantages_differ() -> None:
    """Of the five hosts one is the same from both places, and the others differ for four reasons; its manners held."""
    seen = load_sample("two-vantages")
    assert seen.vantages == ["ams", "bos"]
    reasons = rtls.analysis.vantage_reasons(seen)["numerator"].droplevel(["first", "second", "verdict"])
    assert reasons[reasons > 0].to_dict() == {
        "": 1,
        "unreachable": 1,
        "blocked": 1,
        "no_starttls": 1,
        "requiretls_not_offered": 1,
    }
    assert rtls.audit(seen).empty
    before, after = (rtls.judge(seen), seen)
    pd.testing.assert_frame_equal(before.domains, after.domains)
