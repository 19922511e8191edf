"""Lists as people have them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtls_analysis.scanner.targets import ListProblem, make_targets, parse_list, read_list

LISTS = [
    ("one a line", "example.org\nexample.net\n", [("example.org", None), ("example.net", None)]),
    ("blank lines and comments", "\n# top\nexample.org  # why\n\n", [("example.org", None)]),
    ("upper case, final dot, white space", "  EXAMPLE.Org. \r\n", [("example.org", None)]),
    ("duplicates, the first counts", "1,example.org\n2,EXAMPLE.org\n", [("example.org", 1)]),
    ("ranks before the name", "1,example.org\n22,example.net\n", [("example.org", 1), ("example.net", 22)]),
    ("ranks after the name", "example.org,1\nexample.net,2", [("example.org", 1), ("example.net", 2)]),
    ("ranks by white space", "1 example.org\n2\texample.net", [("example.org", 1), ("example.net", 2)]),
    ("a header", "domain\nexample.org\n", [("example.org", None)]),
    ("a header with a rank", "rank,domain\n7,example.org\n", [("example.org", 7)]),
    (
        "a wide list with a header",
        "GlobalRank,TldRank,Domain,TLD\n1,1,example.com,com\n2,2,example.org,org\n",
        [("example.com", 1), ("example.org", 2)],
    ),
    ("quoted fields", '"1","example.org"\n', [("example.org", 1)]),
    ("semicolons", "1;example.org\n", [("example.org", 1)]),
    ("U-labels", "bücher.example\n", [("xn--bcher-kva.example", None)]),
    ("a byte order mark", "\ufeffexample.org\n", [("example.org", None)]),
]


@pytest.mark.parametrize(("text", "expected"), [pytest.param(t, e, id=why) for why, t, e in LISTS])
def test_lists(tmp_path: Path, text: str, expected: list[tuple[str, int | None]]) -> None:
    """Each shape gives the names and ranks that a reader sees in it."""
    path = tmp_path / "list"
    path.write_bytes(text.encode())
    targets = read_list(path)
    assert [(target.domain, target.rank) for target in targets] == expected
    assert not any(target.problem for target in targets)


def zipped(*files: bytes) -> bytes:
    """A zip archive, as the Tranco list comes in one."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(files):
            archive.writestr(f"top-{number}.csv", data)
    return whole.getvalue()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zipped, lambda data: data])
def test_packed_lists(tmp_path: Path, pack: object) -> None:
    """Compressed lists are unpacked, whatever their name."""
    path = tmp_path / "list"
    path.write_bytes(pack(b"example.org\n"))  # type: ignore[operator]
    assert [target.domain for target in read_list(path)] == ["example.org"]


def test_a_bad_name_is_kept_with_its_reason() -> None:
    """A line that holds no domain name becomes a target with a problem, and the others go on."""
    good, bad, mail = make_targets(["example.org", "exa mple..org", "me@example.org"])
    assert not good.problem
    assert "exa mple..org" in bad.problem
    assert "me@example.org" in mail.problem
    assert bad.domain == "exa mple..org"


@pytest.mark.parametrize(("data", "message"), [(b"", "names no domain"), (b"# only\n\n", "names no domain")])
def test_an_empty_list_is_one_clear_error(tmp_path: Path, data: bytes, message: str) -> None:
    """A list without a name is a mistake of the caller."""
    path = tmp_path / "list"
    path.write_bytes(data)
    with pytest.raises(ListProblem, match=message):
        read_list(path)


def test_an_unreadable_list_is_one_clear_error(tmp_path: Path) -> None:
    """A missing file, a folder, a broken archive: which, and why."""
    whole = b"example.org\n" * 100
    (tmp_path / "torn").write_bytes(gzip.compress(whole)[:-9])
    (tmp_path / "broken").write_bytes(gzip.compress(whole)[:12] + b"\xff" * 20)
    (tmp_path / "torn-bz2").write_bytes(bz2.compress(whole)[:-9])
    (tmp_path / "torn-zip").write_bytes(zipped(whole)[:-9])
    (tmp_path / "two").write_bytes(zipped(whole, whole))
    for name in ("missing", ".", "torn", "broken", "torn-bz2", "torn-zip", "two"):
        with pytest.raises(ListProblem, match="cannot read the list"):
            read_list(tmp_path / name)


@given(st.text())
def test_any_text_is_a_list_or_names_nothing(text: str) -> None:
    """No text raises; each name is in it once."""
    domains = [target.domain for target in parse_list(text)]
    assert len(domains) == len(set(domains))


def test_a_stray_quote_swallows_no_other_line() -> None:
    """Each line stands by itself, also one of a length that no field may have."""
    text = '1,"example.org\n2,example.net\n3,"' + "a" * 200_000 + "\n4,example.com\n"
    good = [(target.domain, target.rank) for target in parse_list(text) if not target.problem]
    assert good == [("example.org", 1), ("example.net", 2), ("example.com", 4)]


def test_names_and_ranks_out_of_a_frame() -> None:
    """Ranks come as whole numbers, as floats, or missing; whatever else is no name gets one line."""
    frame = pd.DataFrame({"name": ["a.example", "b.example"], "rank": [3.0, None]})
    targets = make_targets([*frame.itertuples(index=False), ("c.example", np.int64(9))])
    assert [(target.domain, target.rank) for target in targets] == [
        ("a.example", 3),
        ("b.example", None),
        ("c.example", 9),
    ]
    assert all(type(target.rank) in (int, type(None)) for target in targets)
    for wrong in (None, float("nan"), 7, ("a.example", "first"), ("a.example",), (1, 2), ("a.example", 1.5)):
        with pytest.raises(ListProblem, match="not a name"):
            make_targets([wrong])  # type: ignore[list-item]
