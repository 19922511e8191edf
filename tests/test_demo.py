"""The demo shows every part of the way, and leaves tables that read back and pages that hold what pages promise."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rtls_analysis.demo import run_demo
from rtls_analysis.lab import start_lab
from rtls_analysis.store import open_snapshot
from rtls_analysis.table_files import read_table


def _module(name: str) -> ModuleType:
    """Load a neighbour: the tests are no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What a demo on a small lab says, and the folder that it leaves."""
    out = tmp_path_factory.mktemp("demo") / "results"
    said: list[str] = []
    with start_lab(domains=30) as lab:
        run_demo(lab, out, say=said.append)
        run_demo(lab, out, say=said.append)
    return said, out


def test_every_part_is_shown(told: tuple[list[str], Path]) -> None:
    """Scan, own mail, real logs, one message, an old trace, and where the pages are."""
    said = "\n".join(told[0])
    for words in (
        "A lab of 30 domains",
        "What stops REQUIRETLS mail first",
        "What if all this mail had asked for REQUIRETLS",
        "How far the promise was kept",
        "Its sender asked for REQUIRETLS",
        "anonymous cipher",
        "report.html",
        "postfix-3.11.html",
    ):
        assert words in said


def test_tables_and_pages_stay(told: tuple[list[str], Path]) -> None:
    """Each table reads back with rows, both pages are whole, and a second demo leaves the first one's scan alone."""
    _said, out = told
    for name in ("deliveries", "connections", "bounces", "tls_reports", "hops", "what_if"):
        assert len(read_table(out / f"{name}.parquet"))
    assert open_snapshot(out / "scan").is_complete
    assert open_snapshot(out / "scan-2").is_complete
    read_page: Any = _module("test_report").read_page
    assert "What if own mail asked for more" in read_page(out / "report.html").text
    assert "Mail that asked for REQUIRETLS" in read_page(out / "postfix-3.11.html").text
