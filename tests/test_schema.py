"""The tables as they are declared: dtypes, missing values, and frames that come from outside."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rtls_analysis import schema
from rtls_analysis.schema import DOMAINS, TABLES, Kind, conform, describe, rows_of, to_frame, write_csv


@pytest.mark.parametrize("name", TABLES)
def test_names_follow_the_kinds(name: str) -> None:
    """Times end in _at or say what they bound, seconds in _seconds; every column has a meaning."""
    table = TABLES[name]
    assert len(set(table.names())) == len(table.columns)
    assert set(table.key) <= set(table.names())
    for column in table.columns:
        assert column.meaning
        assert (column.kind is Kind.WORD) == (column.words is not None)
        if column.kind is Kind.SECONDS:
            assert column.name.endswith("_seconds")
        if column.name.endswith("_at"):
            assert column.kind is Kind.TIME


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_has_the_declared_dtypes(name: str) -> None:
    """No rows still give every column with its dtype."""
    table = TABLES[name]
    frame = to_frame(table, [])
    assert {c: str(frame[c].dtype) for c in frame} == {c.name: str(c.dtype) for c in table.columns}
    pd.testing.assert_frame_equal(frame, conform(pd.DataFrame(), table))


def test_missing_is_not_a_word() -> None:
    """What does not apply stays missing; the empty obstacle is a word of its own."""
    frame = to_frame(DOMAINS, [{"domain": "a.example", "obstacle": ""}, {"domain": "b.example"}])
    assert frame["obstacle"].tolist()[0] == ""
    assert frame["obstacle"].isna().tolist() == [False, True]
    rows = rows_of(DOMAINS, frame)
    assert rows[0]["obstacle"] == ""
    assert rows[1]["obstacle"] is None
    assert rows[0]["rank"] is None
    assert rows[0]["sts_texts"] is None


def test_bytes_that_are_no_text_do_not_stop_a_table() -> None:
    """Undecodable bytes arrive escaped."""
    frame = to_frame(DOMAINS, [{"domain": "a\udcff", "sts_texts": ["v=\udc80"]}])
    assert frame["domain"].iloc[0] == "a\\udcff"
    assert frame["sts_texts"].iloc[0] == ["v=\\udc80"]


def test_conform_takes_what_other_tools_write() -> None:
    """A frame of plain objects gets the declared dtypes; further columns follow."""
    frame = pd.DataFrame(
        {
            "mine": [1],
            "scanned_at": ["2026-11-24T10:00:00Z"],
            "rank": [3.0],
            "domain": ["a.example"],
            "starttls": ["all"],
        }
    )
    frame.attrs["coverage"] = {"lines": 1}
    result = conform(frame, DOMAINS)
    assert result["scanned_at"].dtype == pd.DatetimeTZDtype("us", "UTC")
    assert result["starttls"].cat.categories.tolist() == list(schema.DomainShare)
    assert result["rank"].iloc[0] == 3
    assert result.columns[-1] == "mine"
    assert result.attrs == {"coverage": {"lines": 1}}


@pytest.mark.parametrize("name", TABLES)
def test_conform_adds_what_is_missing(name: str) -> None:
    """A frame without any of the columns gets them all, as missing values."""
    table = TABLES[name]
    result = conform(pd.DataFrame({"mine": [1, 2]}), table)
    assert {c: str(result[c].dtype) for c in table.names()} == {c.name: str(c.dtype) for c in table.columns}
    assert result[table.names()].isna().all(axis=None)


def test_csv_keeps_lists_as_json() -> None:
    """Lists are JSON in CSV, missing values are empty."""
    frame = to_frame(DOMAINS, [{"domain": "a.example", "sts_texts": ["x, y", "z"]}, {"domain": "b.example"}])
    file = io.StringIO()
    write_csv(frame, file)
    back = pd.read_csv(io.StringIO(file.getvalue()))
    assert json.loads(back["sts_texts"].iloc[0]) == ["x, y", "z"]
    assert isinstance(back["sts_texts"].iloc[1], float)
    assert np.isnan(back["sts_texts"].iloc[1])


def test_arrow_schema_has_no_null_types() -> None:
    """Every part has the full types, so that parts with empty columns can be read together."""
    for table in TABLES.values():
        assert not any(pa.types.is_null(kind) for kind in table.arrow_schema.types)


def test_describe_names_every_column() -> None:
    """The description lists all columns."""
    text = describe(DOMAINS)
    assert all(name in text for name in DOMAINS.names())
