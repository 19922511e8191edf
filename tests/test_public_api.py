"""The public names: all there, documented, and cheap to have."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import rtls_analysis as rtls


def test_every_public_name_resolves() -> None:
    """Each name of `__all__` is there, and none bears the name of a module or folder of the package."""
    modules = {module.name for module in pkgutil.iter_modules(rtls.__path__)}
    for name in rtls.__all__:
        value = getattr(rtls, name)
        assert inspect.ismodule(value) or name not in modules


@pytest.mark.parametrize("name", [n for n in rtls.__all__ if not inspect.ismodule(getattr(rtls, n))])
def test_public_names_say_what_they_are(name: str) -> None:
    """A public function or class has a docstring of its own."""
    value = getattr(rtls, name)
    assert value.__doc__
    assert value.__doc__.strip()[0].isupper()


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that does not exist fails as it does for any module."""
    with pytest.raises(AttributeError, match="no_such_thing"):
        rtls.no_such_thing  # noqa: B018


def test_import_stays_light() -> None:
    """`import rtls_analysis` and building the command's parser load none of the heavy libraries."""
    code = (
        "import sys, rtls_analysis, rtls_analysis.cli as cli; cli.make_parser().format_help();"
        "print(sorted({'pandas', 'numpy', 'pyarrow', 'matplotlib', 'cryptography', 'dns', 'scipy', 'asyncio'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_imports_without_warning() -> None:
    """Each module of the package can be imported by itself, with warnings as errors."""
    names = [
        m.name for m in pkgutil.walk_packages(rtls.__path__, "rtls_analysis.") if "__main__" not in m.name
    ]
    for name in names:
        importlib.import_module(name)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import {', '.join(names)}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
