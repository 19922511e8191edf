"""The plots of delays draw the curves of their tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes

from rtls_analysis.analysis import delays as tables
from rtls_analysis.plots import delays as plots
from tests.plots.mail import own_mail

MAIL = own_mail()


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize(
    ("plot", "table"),
    [(plots.time_to_delivery, tables.time_to_delivery), (plots.retry_schedule, tables.retry_schedule)],
)
def test_every_plot(plot: Callable[..., Axes], table: Callable[..., object]) -> None:
    """It draws on the Axes given, says n, takes the table, and draws no mail without a warning."""
    _, ax = plt.subplots()
    assert plot(MAIL, ax=ax) is ax
    assert "n = " in ax.get_title(loc="left")
    assert plot(table(MAIL)).get_title(loc="left") == ax.get_title(loc="left")
    for mail in (MAIL, MAIL.iloc[:0]):
        file = io.BytesIO()
        plot(mail).figure.savefig(file, format="png")
        assert file.getvalue().startswith(b"\x89PNG")


def test_the_curves_end_where_the_table_does() -> None:
    """Delivered from below, failed from above, what was queued between them."""
    table = tables.time_to_delivery(MAIL)
    curve = tables.cumulative_incidence(table["seconds"], table["end"])
    ax = plots.time_to_delivery(MAIL)
    below, above = (line.get_ydata()[-1] for line in ax.lines[:2])
    assert below == pytest.approx(curve["delivered_share"].iloc[-1])
    assert above == pytest.approx(1 - curve["failed_share"].iloc[-1])
    assert above - below == pytest.approx(curve["queued_share"].iloc[-1])
    legend = ax.get_legend()
    assert legend is not None
    assert any("between: queued" in text.get_text() for text in legend.get_texts())


def test_groups() -> None:
    """A curve for each server, named with its number of messages; those not drawn are counted."""
    ax = plots.time_to_delivery(MAIL, by="reporting_host", largest=1)
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["out0  n=30", "1 more not drawn"]
    retries = plots.retry_schedule(MAIL)
    assert len(retries.lines) == 2
    assert retries.get_yscale() == "log"
