"""Imports go one way: a module knows only what stands to its left."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "rtls_analysis"
ORDER = [
    "standards",
    "outcomes",
    "providers",
    "schema",
    "frames",
    "storage",
    "store",
    "addresses",
    "table_files",
    "verdicts",
    "progress",
    "scanner",
    "read",
    "samples",
    "analysis",
    "plots",
    "pages",
    "report",
    "lab",
    "demo",
    "cli",
]
SIBLINGS = {"scanner": {"read"}, "read": {"scanner"}}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(module: str) -> str:
    """The room of a dotted module name inside the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, at its top or inside its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            if node.module == "rtls_analysis":
                names |= {f"rtls_analysis.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "rtls_analysis"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    """A module imports only from its own room and those before it; only `cli` reaches the lab and the top."""
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in ORDER, f"{own} has no place in the order"
    for name in imported(path):
        other = room(name)
        if other == "" or other not in ORDER:
            assert own == "cli", f"{own} imports the public names of the package"
            continue
        assert ORDER.index(other) <= ORDER.index(own), f"{own} imports {name}"
        assert other not in SIBLINGS.get(own, set()), f"{own} imports {name}"
        if own == "lab":
            assert other in ("lab", "standards"), f"lab imports {name}"
        if own == "standards":
            assert other == "standards"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_home_for_each_tool(path: Path) -> None:
    """Dask lives in `frames`, matplotlib in `plots`, argparse in `cli` and the lab's own entry."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    own = path.relative_to(PACKAGE).with_suffix("").parts
    assert "dask" not in names or own[0] == "frames"
    assert "matplotlib" not in names or own[0] in ("plots", "report")
    assert "argparse" not in names or own[0] == "cli" or own == ("lab", "__main__")
    if own[0] == "standards":
        assert not names & {"asyncio", "socket", "pandas", "pathlib", "time"}, (
            "standards do no input or output"
        )
