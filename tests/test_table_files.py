"""What is written to a file comes back: every kind of column, in every form."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rtls_analysis.schema import BOUNCES, SESSIONS, TABLES, TLS_REPORTS, to_frame
from rtls_analysis.store import StoreProblem
from rtls_analysis.table_files import read_table, table_of, write_table

AT = dt.datetime(2026, 11, 25, 8, 30, 0, 123456, tzinfo=dt.UTC)
ROWS: list[tuple[Any, list[dict[str, Any]]]] = [
    (
        SESSIONS,
        [
            {"mx_host": "mx.example", "address": "192.0.2.1", "port": 25, "started_at": AT, "duration_seconds": 0.25,
             "outcome": "completed", "ehlo_tls": ["250-mx", '250 "x",y'], "name_match": True, "chain_sha256": []},
            {"mx_host": "mx2.example", "reply_text": "comma, quote \" and\nline", "name_match": False},
        ],
    ),
    (BOUNCES, [{"action": "failed", "redacted": False, "reply_code": 550, "reported_at": AT}, {}]),
    (TLS_REPORTS, [{"policy_mx_hosts": ["*.example.org"], "sessions_ok": 3, "policy_index": 0, "begins_at": AT}]),
]  # fmt: skip


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize(("table", "rows"), ROWS, ids=lambda value: getattr(value, "name", ""))
def test_round_trip(table: Any, rows: list[dict[str, Any]], ending: str, tmp_path: Path) -> None:
    """The same table, dtypes and values, whatever the form; Parquet keeps the coverage too."""
    frame = to_frame(table, rows)
    frame.attrs["coverage"] = {"lines_read": 7}
    write_table(frame, tmp_path / f"it{ending}")
    back = read_table(tmp_path / f"it{ending}")
    assert table_of(back.columns) is table
    pd.testing.assert_frame_equal(back, frame)
    if ending == ".parquet":
        assert back.attrs["coverage"] == {"lines_read": 7}
        assert len(pd.read_parquet(tmp_path / f"it{ending}")) == len(rows)
    assert [path.name for path in tmp_path.iterdir()] == [f"it{ending}"]


def test_every_table_is_known_by_its_columns() -> None:
    """No two tables are taken for each other."""
    for table in TABLES.values():
        assert table_of(table.names()) is table
    assert table_of(["a", "b"]) is None


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_table_of_another_make(ending: str, tmp_path: Path) -> None:
    """What is none of our tables is read as it is."""
    write_table(pd.DataFrame({"x": [1, 2]}), tmp_path / f"it{ending}")
    frame = read_table(tmp_path / f"it{ending}")
    assert table_of(frame.columns) is None
    assert len(frame) == 2


def test_problems(tmp_path: Path) -> None:
    """Another ending, no file and a torn file are one clear line each."""
    with pytest.raises(StoreProblem, match=r"ends in \.parquet"):
        write_table(pd.DataFrame(), tmp_path / "it.xlsx")
    with pytest.raises(StoreProblem, match="there is no file"):
        read_table(tmp_path / "it.csv")
    (tmp_path / "it.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(StoreProblem, match="cannot read"):
        read_table(tmp_path / "it.parquet")
