"""The notebooks run top to bottom, use public names only, and are committed without output."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import rtls_analysis as rtls

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def code_of(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_public_names_only(path: Path) -> None:
    """A notebook imports the package as users do, and takes public names from it."""
    tree = ast.parse(code_of(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("rtls_analysis")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rtls":
            assert node.attr in rtls.__all__


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_committed(path: Path) -> None:
    """What a notebook shows is made when it runs."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_top_to_bottom(path: Path, tmp_path: Path) -> None:
    """A fresh kernel runs every cell without an error or a warning, and the last plot is a picture."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    stderr = "".join(output.get("text", "") for output in outputs if output.get("name") == "stderr")
    assert "Warning" not in stderr
    assert "Traceback" not in stderr
