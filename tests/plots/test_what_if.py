"""The plots of what-if draw its totals and its losses."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes

from rtls_analysis.analysis import what_if as tables
from rtls_analysis.plots import what_if as plots
from rtls_analysis.schema import WHAT_IF, to_frame


def row(
    domain: str, verdict: str, obstacle: str, messages: int, accepted: int, **more: Any
) -> dict[str, Any]:
    return {
        "recipient_domain": domain,
        "relay_host": f"mx.{domain}",
        "provider": "big.test",
        "messages": messages,
        "domain_messages": messages,
        "messages_delivered": accepted,
        "domain_delivered": accepted,
        "recipients": messages,
        "domain_recipients": messages,
        "rule": "requiretls",
        "scanned": True,
        "verdict": verdict,
        "obstacle": obstacle,
        "obstacles": [obstacle] if obstacle else [],
        **more,
    }


FRAME = to_frame(
    WHAT_IF,
    [
        row("a.test", "fails", "mx_unauthenticated", 50, 40),
        row("b.test", "fails", "requiretls_not_offered", 30, 30),
        row("c.test", "delivered", "", 15, 15),
        row("d.test", "unknown", "unreachable", 5, 0),
    ],
)


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("plot", [plots.what_if_totals, plots.what_if_losses, plots.what_if_obstacles])
def test_every_plot(plot: Callable[..., Axes]) -> None:
    """It draws on the Axes given, says n, and draws nothing of no mail without a warning."""
    _, ax = plt.subplots()
    assert plot(FRAME, ax=ax) is ax
    assert "n = " in ax.get_title(loc="left")
    for frame in (FRAME, FRAME.iloc[:0]):
        file = io.BytesIO()
        plot(frame).figure.savefig(file, format="png")
        assert file.getvalue().startswith(b"\x89PNG")


def test_totals() -> None:
    """Each row of bars fills the whole, unknown among it, and names its count."""
    ax = plots.what_if_totals(FRAME)
    totals = tables.what_if_totals(FRAME)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "messages  n=100",
        "messages accepted today  n=85",
        "recipients  n=100",
        "domains  n=4",
    ]
    first = [patch.get_width() for patch in ax.patches if abs(patch.get_y() + patch.get_height() / 2) < 0.01]
    assert first == pytest.approx(totals["share"].tolist())


def test_losses() -> None:
    """The longest loss on top, in figures and with the share so far; providers together on request."""
    ax = plots.what_if_losses(FRAME)
    assert [patch.get_width() for patch in ax.patches] == [40, 30]
    assert [text.get_text() for text in ax.texts][:2] == ["40  (57%)", "30  (100%)"]
    ax = plots.what_if_losses(FRAME, by="provider")
    assert sorted(label.get_text() for label in ax.get_yticklabels()) == ["big.test  (1 domains)"] * 2
    by_obstacle = plots.what_if_obstacles(FRAME)
    assert [patch.get_width() for patch in by_obstacle.patches] == [40, 30, 0]
