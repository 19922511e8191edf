"""The notebooks run top to bottom, use public names only, and are committed without output."""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rtls_analysis as rtls

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
ROOMS = ("analysis", "plots")


def cells_of(path: Path, kind: str) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def is_rtls(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "rtls"


def test_the_study_is_whole() -> None:
    """The notebooks of the study are there, in order."""
    assert [path.stem for path in NOTEBOOKS] == [
        "01_first_scan",
        "02_deployment",
        "03_failure_rates",
        "04_my_logs",
        "05_what_if",
        "06_change_over_time",
        "07_beyond_one_machine",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_public_names_only(path: Path) -> None:
    """A notebook imports the package as users do, and takes public names from it and from its rooms."""
    tree = ast.parse("\n".join(cells_of(path, "code")))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("rtls_analysis")
        if isinstance(node, ast.Attribute) and is_rtls(node.value):
            assert node.attr in rtls.__all__
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Attribute)
            and is_rtls(node.value.value)
        ):
            room: ModuleType | Any = getattr(rtls, node.value.attr)
            if node.value.attr in ROOMS:
                assert node.attr in room.__all__
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_committed(path: Path) -> None:
    """What a notebook shows is made when it runs."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_own_paths_come_first(path: Path) -> None:
    """The first cell of code has names in capitals for one's own data, which are None without."""
    first = ast.parse(cells_of(path, "code")[0])
    own = [
        node.targets[0].id
        for node in first.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and node.value.value is None
    ]
    assert own
    assert all(name.isupper() for name in own)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_words_stand_between_the_cells(path: Path) -> None:
    """A notebook is a study: it begins with a title, and says why before it computes."""
    texts = cells_of(path, "markdown")
    assert texts[0].startswith("# ")
    assert len(texts) * 3 >= len(cells_of(path, "code"))
    assert sum(len(text.split()) for text in texts) > 150


def test_published_figures_are_named() -> None:
    """The notebook on deployment says of at least six tables or figures which published ones they are like."""
    first = cells_of(next(path for path in NOTEBOOKS if path.stem == "02_deployment"), "markdown")[0]
    rows = [
        line for line in first.splitlines() if line.startswith("| ") and line.split("|")[1].strip().isdigit()
    ]
    assert len([row for row in rows if "new" not in row.split("|")[3]]) >= 6


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place for a kernel's sockets, whose names may not be long, and for what it writes into its user's home."""
    with tempfile.TemporaryDirectory(prefix="nb-") as folder:
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", folder)
        monkeypatch.setenv("IPYTHONDIR", f"{folder}/ipython")
        yield f"{folder}/kernel"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_top_to_bottom(path: Path, tmp_path: Path, sockets: str) -> None:
    """A fresh kernel runs every cell without an error or a warning, and there are pictures."""
    import nbclient
    import nbformat
    from traitlets.config import Config

    notebook = nbformat.read(path, as_version=4)
    # five TCP ports would be found free here and bound by the kernel, when others may have taken them
    by_file = Config({"KernelManager": {"transport": "ipc", "ip": sockets}})
    nbclient.NotebookClient(
        notebook,
        timeout=None,  # the test has one
        startup_timeout=200,
        resources={"metadata": {"path": str(tmp_path)}},
        config=by_file,
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    stderr = "".join(output.get("text", "") for output in outputs if output.get("name") == "stderr")
    assert "Warning" not in stderr
    assert "Traceback" not in stderr
