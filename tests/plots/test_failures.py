"""The plots of mail draw what their tables say, name n, and take tables, empty ones too."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes

from rtls_analysis.analysis import experiment, failures, log_tls
from rtls_analysis.plots import experiment as experiment_plots
from rtls_analysis.plots import failures as plots
from rtls_analysis.plots import log_tls as log_plots
from rtls_analysis.plots.bars import LIKE, group_name
from rtls_analysis.plots.palette import WORDS
from tests.plots.mail import own_connections, own_mail

MAIL = own_mail()
CONNECTIONS = own_connections()
PLOTS: list[tuple[str, Callable[..., Axes], Callable[..., pd.DataFrame], dict[str, Any]]] = [
    ("failures_over_time", plots.failures_over_time, failures.failure_rates, {"by": "day"}),
    ("failures_by", plots.failures_by, failures.failure_rates, {"by": "provider"}),
    ("repeated_failures", plots.repeated_failures, failures.repeated_failures, {}),
    ("failure_reasons", plots.failure_reasons, failures.failure_reasons, {}),
    ("reasons by group", plots.failure_reasons, failures.failure_reasons, {"by": "destination"}),
    ("hosts and messages", plots.host_and_message_rates, failures.host_and_message_rates, {}),
    ("requiretls_experiment", experiment_plots.requiretls_experiment, experiment.requiretls_experiment, {}),
    ("by day", experiment_plots.requiretls_experiment, experiment.requiretls_experiment, {"by": ["sender_domain", "day"]}),
    ("promises", experiment_plots.promises, experiment.promises, {}),
    ("tls_versions", log_plots.tls_versions, log_tls.tls_versions, {}),
    ("key_exchanges", log_plots.key_exchanges, log_tls.key_exchanges, {}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def widths(ax: Axes) -> list[float]:
    return [patch.get_width() for patch in ax.patches]


def labels(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def _saved(ax: Axes) -> bytes:
    file = io.BytesIO()
    ax.figure.savefig(file, format="png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("plot", "table", "options"), [pytest.param(*rest, id=name) for name, *rest in PLOTS]
)
def test_every_plot(
    plot: Callable[..., Axes], table: Callable[..., pd.DataFrame], options: dict[str, Any]
) -> None:
    """It draws on the Axes given, says n, takes the table in place of the mail, and draws nothing of no mail."""
    figure, ax = plt.subplots(layout="constrained")
    given = {
        name: value
        for name, value in options.items()
        if name == "by" and plot is not plots.failures_over_time
    }
    assert plot(MAIL, ax=ax, **given) is ax
    assert plt.get_fignums() == [figure.number]
    assert "n = " in ax.get_title(loc="left") or "n=" in labels(ax)[0] or " of " in ax.get_title(loc="left")
    assert _saved(ax).startswith(b"\x89PNG")
    by_table = plot(table(MAIL, **options))
    assert widths(by_table) == widths(ax)
    assert by_table.get_title(loc="left") == ax.get_title(loc="left")
    assert _saved(plot(MAIL.iloc[:0], **given)).startswith(b"\x89PNG")


def test_reasons_are_as_long_as_their_shares() -> None:
    """A bar a reason; stacked by group they fill the whole, and overlapping reasons cannot be stacked."""
    table = failures.failure_reasons(MAIL, count="all")
    ax = plots.failure_reasons(MAIL, count="all")
    assert widths(ax) == pytest.approx(table["rate"].tolist())
    assert [int(text.get_text()) for text in ax.texts if text.get_text().isdigit()] == table[
        "numerator"
    ].tolist()
    stacked = plots.failure_reasons(MAIL, by="destination")
    rows = {}
    for patch in stacked.patches:
        rows[round(patch.get_y(), 3)] = rows.get(round(patch.get_y(), 3), 0) + patch.get_width()
    assert list(rows.values()) == pytest.approx([1.0] * len(rows))
    with pytest.raises(ValueError, match="first"):
        plots.failure_reasons(MAIL, by="destination", count="all")


def test_undecided_is_drawn() -> None:
    """What was not decided is in the bars, hatched, and in the legend."""
    ax = experiment_plots.requiretls_experiment(MAIL, by=None)
    assert sum(widths(ax)) == pytest.approx(1)
    assert ax.patches[-1].get_hatch() == "////"
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()][-1] == "undecided"


def test_small_groups_are_marked() -> None:
    """Fewer than ten trials: a mark on the label, and a note that explains it."""
    few = MAIL.head(12)
    ax = experiment_plots.requiretls_experiment(few)
    assert all(label.endswith("†") for label in labels(ax))
    assert any("fewer than 10" in text.get_text() for text in ax.texts)


def test_versions_add_up() -> None:
    """The bars of a day are its sessions, cleartext and the untold among them."""
    table = log_tls.tls_versions(MAIL)
    ax = log_plots.tls_versions(MAIL)
    tops: dict[float, float] = {}
    for patch in ax.patches:
        tops[round(patch.get_x(), 6)] = tops.get(round(patch.get_x(), 6), 0.0) + patch.get_height()
    assert list(tops.values()) == (table["sessions"] + table["unknown"]).tolist()
    groups = log_plots.key_exchanges(CONNECTIONS)
    assert set(labels(groups)) == {"TLSv1.3, X25519MLKEM768", "TLSv1.3, X25519", "TLSv1.3, P-256"}


def test_every_word_has_a_colour() -> None:
    """Words of the mail analyses take the colour of a word that the palette has."""
    assert {str(word) for word in LIKE.values()} <= set(WORDS)
    assert {str(word) for word in experiment.Promise} <= set(LIKE)
    assert group_name(("a", pd.Timestamp("2026-11-23T00:00Z"))) == "a, 2026-11-23"
    assert group_name(pd.Timestamp("2026-11-23T15:00Z")) == "2026-11-23 15:00"
