"""Logs of real servers and their truth, read in place, and a reader of bytes."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rtls_analysis.read.logs import read_connections, read_logs

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def read_text() -> Callable[..., pd.DataFrame]:
    """A function that reads bytes as a log: zone UTC and year 2026 unless told otherwise."""

    def read(data: bytes, *, table: str = "deliveries", **options: Any) -> pd.DataFrame:
        read_table = read_connections if table == "connections" else read_logs
        return read_table(io.BytesIO(data), **{"timezone": "UTC", "year": 2026, **options})

    return read


@pytest.fixture
def lab_log() -> Callable[[str], Path]:
    """A function that finds a log of the real-server lab, and skips the test where the data are not there."""
    return lambda name: _shared("mta-logs", name)


@pytest.fixture
def public_log() -> Callable[[str], Path]:
    """A function that finds a public sample log, and skips the test where the data are not there."""
    return lambda name: _shared("public-logs", name)


def _shared(folder: str, name: str) -> Path:
    path = SHARED_DATA / folder / name
    if not path.exists():
        pytest.skip(f"no {folder}/{name} beside the repository")
    return path


@pytest.fixture
def truth() -> Callable[[str], list[dict[str, str]]]:
    """A function that gives the rows of truth.csv about one sender."""
    return lambda sender: _truth()[sender] if _shared("mta-logs", "truth.csv") else []


@lru_cache
def _truth() -> dict[str, list[dict[str, str]]]:
    rows = defaultdict(list)
    with _shared("mta-logs", "truth.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            rows[row["sender"]].append(row)
    return rows


@pytest.fixture
def final_rows() -> Callable[[pd.DataFrame], dict[tuple[str, str], dict[str, Any]]]:
    """A function that gives the last row of each (queue id, recipient), missing values as `None`."""

    def final(frame: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
        plain = frame.astype(object).where(frame.notna(), None)
        return {(row["queue_id"], row["recipient"]): row for row in plain.to_dict("records")}

    return final
