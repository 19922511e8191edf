"""Progress bars for long work, in terminals and notebooks alike; they can be turned off."""

from __future__ import annotations

import sys
import warnings
from typing import Any


def progress_bar(*, total: float | None, label: str, unit: str, shown: bool = True, **more: Any) -> Any:
    """Make a bar (`tqdm.auto`): the notebook's own form where there is one, else text on standard error.

    It is silent where `shown` is false, and outside a notebook where standard error is no terminal.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # tqdm warns about a missing ipywidgets and falls back to text by itself
        from tqdm.auto import tqdm
    in_notebook = "ipykernel" in sys.modules
    disable = not shown or not (in_notebook or sys.stderr.isatty())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tqdm(total=total, desc=label, unit=unit, disable=disable, leave=False, **more)
