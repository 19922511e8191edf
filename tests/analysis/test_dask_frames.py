"""All of `analysis` and `plots` on Dask frames, however they are cut, beside what it gives on pandas frames."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal, assert_series_equal

import rtls_analysis as rtls
from rtls_analysis import analysis, frames, plots
from rtls_analysis.analysis.servers import tlsa_matches
from rtls_analysis.schema import BOUNCES, CONNECTIONS, DELIVERIES, HOPS, TLS_REPORTS, Table, conform

dask = pytest.importorskip("dask")
import dask.dataframe as dd  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rtls_analysis.ArtefactWarning")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute here and now, task by task."""
    with dask.config.set(scheduler="synchronous", **{"dataframe.shuffle.method": "tasks"}):
        yield


# -- frames, and how they are cut ------------------------------------------------------------------------------


def cut(frame: Any, edges: list[int], *, as_dask_does: bool = False) -> Any:
    """A Dask frame, or column, of these rows in the same order, cut there; some partitions may be empty."""
    bounds = [0, *sorted(edges), len(frame)]
    parts = [frame.iloc[low:high] for low, high in pairwise(bounds)]
    with dask.config.set({"dataframe.convert-string": as_dask_does}):
        whole = dd.from_map(lambda part: part, parts, meta=frame.iloc[:0])
        if (
            as_dask_does
        ):  # words are text to those who open Parquet with Dask itself, and missing text is pd.NA
            whole = whole.map_partitions(as_read_by_dask, meta=as_read_by_dask(frame.iloc[:0]))
    whole.attrs = dict(frame.attrs)
    return whole


def as_read_by_dask(frame: Any) -> Any:
    """What `dd.read_parquet` makes of our Parquet parts."""
    text = [
        name
        for name, dtype in (frame.dtypes.items() if isinstance(frame, pd.DataFrame) else ())
        if isinstance(dtype, (pd.CategoricalDtype, pd.StringDtype))
    ]
    return frame.astype(dict.fromkeys(text, object)).astype(dict.fromkeys(text, "string[pyarrow]"))


def random_edges(rows: int) -> list[int]:
    """Places at which to cut, the same each time."""
    return sorted(np.random.default_rng(rows).integers(0, rows + 1, size=4).tolist())


@cache
def own_mail() -> pd.DataFrame:
    """Mail of several servers, with what is rare: rows without ids or times, local mailboxes, tries in other parts."""
    logs = [rtls.load_sample(name) for name in ("postfix-3.11", "exim", "opensmtpd", "haraka")]
    mail = pd.concat(logs, ignore_index=True)
    odd = mail.iloc[::9].copy()
    odd["logged_at"] += pd.Timedelta(days=1)
    odd["action"] = odd["action"].where(np.arange(len(odd)) % 3 > 0, "failed")
    odd.loc[odd.index[::4], "message_id"] = pd.NA
    odd.loc[odd.index[::6], ["message_id", "queue_id"]] = pd.NA
    odd.loc[odd.index[::7], "logged_at"] = pd.NaT
    odd.loc[odd.index[::5], "recipient_domain"] = pd.NA
    odd.loc[odd.index[::8], "sender"] = ""
    whole = conform(pd.concat([mail, odd], ignore_index=True), DELIVERIES)
    whole.attrs = {"coverage": {"lines_read": len(whole)}}
    return whole


def table_of(table: Table, *names: str) -> pd.DataFrame:
    parts = [rtls.load_sample(name) for name in names]
    return conform(pd.concat(parts, ignore_index=True), table)


@cache
def scan() -> rtls.Snapshot:
    return list(rtls.load_sample("lab-series").values())[-1]


@cache
def what_if() -> pd.DataFrame:
    return rtls.what_if(own_mail(), rtls.load_sample("postfix-3.11-scan"))


def two() -> list[rtls.Snapshot]:
    return list(rtls.load_sample("lab-series").values())[-2:]


TABLES_OF_PLOTS: dict[str, Callable[[], pd.DataFrame]] = {
    "adoption_by_rank": lambda: rtls.deployment(scan(), by="rank_bin"),
    "adoption_curve": lambda: analysis.adoption(two()),
    "agreement_matrix": lambda: analysis.agreement(*two()),
    "certificate_verdicts": lambda: analysis.certificate_verdicts(scan()),
    "changes_by_feature": lambda: analysis.paired_changes(*two()),
    "deployment_rates": lambda: rtls.deployment(scan()),
    "leave_one_out": lambda: analysis.leave_one_out(scan()),
    "loss_reasons": lambda: analysis.loss_reasons(scan()),
    "mechanism_matrix": lambda: analysis.mechanism_pairs(scan()),
    "mechanism_sets": lambda: analysis.mechanisms(scan()),
    "one_switches": lambda: analysis.one_switches(scan()),
    "probe_funnel": lambda: analysis.probe_funnel(scan()),
    "rates_by_unit": lambda: analysis.unit_rates(scan()),
    "readiness_by_reading": lambda: analysis.readings(scan()),
    "readiness_funnel": lambda: analysis.readiness_funnel(scan()),
    "server_sizes": lambda: analysis.server_sizes(scan()),
    "share_bars": lambda: analysis.shares(scan()),
    "sts_states": lambda: analysis.sts_states(scan()),
    "tlsa_errors_by_unit": lambda: analysis.tlsa_errors(scan()),
    "top_providers": lambda: analysis.providers(scan()),
    "transition_matrix": lambda: analysis.transitions(*two()),
    "vantage_reasons": lambda: analysis.vantage_reasons(*two()),
}
"""What plots of scans draw: they take these too. One with an index of several levels cannot be a Dask frame."""


@cache
def made(name: str) -> Any:
    """The frames that functions get, by name."""
    table = {
        "deliveries": own_mail,
        "connections": lambda: table_of(CONNECTIONS, "postfix-3.11-connections", "exim-connections"),
        "bounces": lambda: table_of(BOUNCES, "postfix-3.11-bounces"),
        "tls_reports": lambda: table_of(TLS_REPORTS, "tls-reports"),
        "hops": lambda: table_of(HOPS, "postfix-3.11-hops", "received-2019"),
        "domains": lambda: scan().domains,
        "sessions": lambda: scan().sessions,
        "mx": lambda: scan().mx,
        "matches": lambda: tlsa_matches(scan()),
        "pairs": lambda: analysis.compare_vantages(*two()),
        "what_if": what_if,
        "sizes": lambda: scan().domains["provider"].value_counts(),
        "spans": lambda: analysis.time_to_delivery(own_mail()),
        "seconds": lambda: made("spans")["seconds"],
        "ends": lambda: made("spans")["end"],
        "ended": lambda: made("spans")["end"] == "delivered",
        "curve": lambda: analysis.survival(made("seconds"), made("ended")),
        "rates": lambda: rtls.rates(scan().domains, of="starttls", by="tld"),
        "counts": lambda: made("rates")[["numerator", "trials", "unknown"]],
        **TABLES_OF_PLOTS,
        "differences": lambda: analysis.differences(made("rates"), against=made("rates").index[0]),
        "traffic": lambda: pd.Series(np.arange(len(scan().domains)) % 7, index=scan().domains["domain"]),
        "labels": lambda: scan().domains["provider"].str.upper(),
        "by_day": lambda: analysis.failure_rates(own_mail(), by="day"),
        "matrix": lambda: pd.DataFrame([[900, 25, 5], [5, 40, 5], [2, 3, 15]]),
    }
    return table[name]()


# -- which functions, and with what ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """Stands for a frame: a pandas one, or the same as a Dask one."""

    name: str


@dataclass(frozen=True)
class Call:
    """How a function is called."""

    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def on(self, change: Callable[[str, Any], Any]) -> tuple[list[Any], dict[str, Any]]:
        """Put frames in the place of their names."""

        def put(value: Any) -> Any:
            if isinstance(value, Frame):
                return change(value.name, made(value.name))
            return value() if callable(value) else value

        return [put(value) for value in self.args], {name: put(value) for name, value in self.options.items()}


def call(*args: Any, **options: Any) -> Call:
    return Call(args, options)


F = Frame
MAIL = F("deliveries")
EVERY_MAIL = [MAIL, F("connections"), F("bounces"), F("tls_reports")]
BY = [None, "destination", "day", ["provider", "week"], "reporter", "sender_domain"]
SNAPSHOT = scan
SERVED = lambda: rtls.load_sample("postfix-3.11-scan")  # noqa: E731

CALLS: dict[str, list[Call]] = {
    "rates": [
        call(F("domains"), of="starttls"),
        *(
            call(F("domains"), of="requiretls_ready", by=by)
            for by in ("provider", "tld", "rank_band", "rank_bin")
        ),
        call(F("domains"), of="pkix", by=["provider", "mx_state"], yes="all"),
        call(F("domains"), of="starttls", by=F("labels")),
        call(F("domains"), of="starttls", by="tld", clusters="provider"),
        call(F("domains"), of="starttls", by="tld", clusters=F("labels"), weights="rank"),
        call(F("domains"), of="starttls", weights=F("traffic"), by="tld"),
        call(F("domains"), of="starttls", weights=lambda: made("traffic")),
        call(F("sessions"), of="starttls", by="family"),
        call(F("sessions"), of="pkix", by=["provider", "reply_code"]),
        call(MAIL, of="action", by="recipient_domain"),
        call(MAIL, of="requiretls_violated", by="mta"),
        call(F("hops"), of="tls_state", by="mta"),
    ],
    "cohorts": [call(F("domains")), call(F("sessions")), call(F("mx"), populations={})],
    "what_if": [
        *(call(MAIL, SERVED, rule) for rule in ("requiretls", "verified", "pkix", "tls")),
        call(MAIL, SERVED, notices=True),
    ],
    "what_if_text": [call(F("what_if"))],
    "what_if_domains": [call(F("what_if"))],
    "what_if_totals": [call(F("what_if"))],
    "what_if_losses": [call(F("what_if")), call(F("what_if"), by="provider", rows=None)],
    "not_scanned": [call(F("what_if"))],
    "postfix_policy": [call(F("what_if")), call(F("what_if"), relaxed=True)],
    "concentration": [call(F("sizes"), unit="domain", unknown=3)],
    "concentration_ratio": [call(F("sizes"), 2)],
    "gini": [call(F("sizes"))],
    "hhi": [call(F("sizes"))],
    "lorenz": [call(F("sizes"))],
    "bowker": [call(F("matrix"))],
    "differences": [call(F("rates"), against=lambda: made("rates").index[0])],
    "with_rates": [call(F("counts"), unit="domain")],
    "unit_rates": [call(SNAPSHOT, traffic=F("traffic"))],
    "deployment": [call(SNAPSHOT, by=F("labels"))],
    "shares": [call(SNAPSHOT, by=F("labels"))],
    "readiness_funnel": [call(SNAPSHOT, by=F("labels"))],
    "loss_reasons": [call(SNAPSHOT, by=F("labels"))],
    "readings": [call(SNAPSHOT, by=F("labels"))],
    "vantage_reasons": [call(F("pairs"))],
    "errors_by_unit": [call(F("matches"), F("mx"))],
    "failure_rates": [
        *(call(frame, by=by) for frame in EVERY_MAIL for by in BY[:4]),
        *(call(MAIL, by=by, per="attempt") for by in BY),
        call(MAIL, reasons=["starttls_refused", "not_tls"]),
    ],
    "failure_reasons": [
        *(
            call(frame, by=by, count=count)
            for frame in EVERY_MAIL
            for by in BY[:3]
            for count in ("first", "all")
        ),
        *(
            call(MAIL, connections=F("connections"), by=by, count=count)
            for by in (None, "day", "provider")
            for count in ("first", "all")
        ),
        call(MAIL, connections=lambda: made("connections")),
        call(own_mail, connections=F("connections")),
    ],
    "repeated_failures": [
        call(MAIL, by=by) for by in ("destination", "day", "reporter", ["provider", "week"])
    ],
    "host_and_message_rates": [
        *(call(MAIL, by=by) for by in (None, "day", "host", "mta")),
        call(MAIL, hosts="all"),
    ],
    "tls_versions": [
        call(frame, by=by) for frame in (MAIL, F("connections")) for by in ("day", None, "host")
    ],
    "key_exchanges": [
        call(frame, by=by) for frame in (MAIL, F("connections")) for by in ("day", None, "mta")
    ],
    "asked_for_requiretls": [call(MAIL), call(MAIL, per="attempt")],
    "requiretls_experiment": [
        *(call(MAIL, by=by) for by in BY),
        call(MAIL, per="attempt"),
    ],
    "promises": [*(call(MAIL, by=by) for by in BY), call(MAIL, of="all")],
    "time_to_delivery": [call(MAIL), call(MAIL, until="2027-01-01")],
    "survival": [call(F("seconds"), F("ended"))],
    "survival_time": [call(F("curve")), call(F("curve"), 0.9, rule="midpoint")],
    "cumulative_incidence": [call(F("seconds"), F("ends"))],
    "retry_schedule": [call(MAIL), call(MAIL, by=["mta", "recipient_domain"])],
}
FOLLOWED = {
    "bounces": F("bounces"),
    "reports": F("tls_reports"),
    "hops": F("hops"),
    "connections": F("connections"),
}

PLOTS: dict[str, list[Call]] = {
    "failure_reasons": [call(MAIL), call(MAIL, by="day", connections=F("connections")), call(F("bounces"))],
    "failures_by": [call(MAIL), call(F("by_day"))],
    "failures_over_time": [call(MAIL), call(F("by_day")), call(F("tls_reports"))],
    "host_and_message_rates": [call(MAIL)],
    "key_exchanges": [call(MAIL), call(F("connections"))],
    "lorenz_curve": [call(F("sizes"))],
    "promises": [call(MAIL)],
    "rate_differences": [call(F("differences"))],
    "rate_intervals": [call(F("rates"))],
    "repeated_failures": [call(MAIL)],
    "requiretls_experiment": [call(MAIL)],
    "retry_schedule": [call(MAIL)],
    "time_to_delivery": [call(MAIL), call(MAIL, by="mta"), call(F("spans"))],
    "tls_versions": [call(MAIL), call(F("connections"))],
    "what_if_losses": [call(F("what_if"))],
    "what_if_obstacles": [call(F("what_if"))],
    "what_if_totals": [call(F("what_if"))],
    **{name: [call(F(name))] for name in TABLES_OF_PLOTS},
}

IN_NO_ORDER = {"time_to_delivery", "asked_for_requiretls", "cohorts"}
"""Functions that give a Dask frame of a Dask one."""

ELSEWHERE = {"follow", "write_report", "write_table"}
"""Functions that take frames and have tests of their own below."""

NO_FRAME = {"client", "reading", "against"}  # parameters of any type that are no frame


def takes_frames(function: Any) -> bool:
    """Whether a function has a parameter that may be a frame or a column."""
    return any(
        re.search(r"Frame|Series|Groups|^Any$", str(parameter.annotation))
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in NO_FRAME and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    )


def offered(room: Any) -> set[str]:
    """The public functions of a room that take frames."""
    values = {name: getattr(room, name) for name in room.__all__}
    return {name for name, value in values.items() if inspect.isfunction(value) and takes_frames(value)}


def test_no_function_is_forgotten() -> None:
    """Every public function that takes a frame is called below with Dask frames."""
    assert offered(rtls) | offered(analysis) == set(CALLS) | ELSEWHERE
    assert offered(plots) == set(PLOTS)


# -- the same numbers ------------------------------------------------------------------------------------------


def find(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(rtls if name in rtls.__all__ else analysis, name)
    return function


def assert_same(found: Any, expected: Any, *, in_order: bool = True) -> None:
    """Two results are equal to the last digit that an order of additions leaves alone, attributes too."""
    if not isinstance(expected, (pd.DataFrame, pd.Series)):
        assert found == expected or (
            isinstance(expected, float) and found == pytest.approx(expected, rel=1e-12, nan_ok=True)
        )
        return
    assert not frames.is_dask(found)
    if not in_order:
        found, expected = sorted_rows(found), sorted_rows(expected)
    check = assert_frame_equal if isinstance(expected, pd.DataFrame) else assert_series_equal
    check(found, expected, rtol=1e-12, atol=1e-12)
    assert found.attrs == expected.attrs


def sorted_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows in an order that hangs on their values alone; a number of the message is none of them."""
    frame = frame.drop(columns="unit", errors="ignore")
    keys = pd.Series(list(map(repr, frame.astype(object).to_numpy().tolist())), dtype=object)
    return frame.iloc[np.argsort(keys.to_numpy(), kind="stable")].reset_index(drop=True)


def check(name: str, how: Call, change: Callable[[str, Any], Any]) -> None:
    """Call a function with pandas frames and with Dask ones, and compare."""
    function = find(name)
    args, options = how.on(lambda _name, frame: frame)
    expected = function(*args, **options)
    args, options = how.on(change)
    found = function(*args, **options)
    if name in IN_NO_ORDER:
        assert frames.is_dask(found)
        assert list(found.dtypes) == list(expected.dtypes)  # what Dask was told before anything was computed
        found = frames.collected(found)
    assert_same(found, expected, in_order=name not in IN_NO_ORDER)


def cases(calls: Mapping[str, list[Call]], *, every: int = 1) -> list[Any]:
    return [
        pytest.param(name, how, id=f"{name}-{number}")
        for name, all_of in sorted(calls.items())
        for number, how in enumerate(all_of)
        if number % every == 0
    ]


@pytest.mark.parametrize(("name", "how"), cases(CALLS))
def test_the_same_numbers(name: str, how: Call) -> None:
    """A Dask frame with the declared dtypes, cut anywhere, gives what a pandas frame gives."""
    check(name, how, lambda _name, frame: cut(frame, random_edges(len(frame))))


@pytest.mark.parametrize(("name", "how"), cases(CALLS, every=5))
def test_the_same_numbers_as_dask_reads(name: str, how: Call) -> None:
    """So does one that a user has opened with Dask itself: text is `string[pyarrow]`, and words are text."""
    tables = {"deliveries", "connections", "bounces", "tls_reports", "hops", "domains", "sessions", "what_if"}
    check(
        name,
        how,
        lambda of, frame: (
            cut(frame, random_edges(len(frame) + 1)[1:], as_dask_does=of in tables)
            if of != "labels"
            else cut(frame, random_edges(len(frame) + 1)[1:])
        ),
    )


def drawn(ax: Any) -> list[Any]:
    """What is on Axes: texts, lines and bars."""
    texts = [text.get_text() for text in ax.figure.findobj(lambda item: hasattr(item, "get_text"))]
    lines = [np.round(np.asarray(line.get_xydata(), dtype=float), 9).tolist() for line in ax.lines]
    bars = [np.round(patch.get_extents().bounds, 6).tolist() for patch in ax.patches]
    return [texts, repr(lines), repr(bars), len(ax.collections)]


@pytest.mark.parametrize(("name", "how"), cases(PLOTS))
def test_the_same_picture(name: str, how: Call) -> None:
    """A plot of Dask frames is that of pandas frames."""
    import matplotlib.pyplot as plt

    if name in TABLES_OF_PLOTS and made(name).index.nlevels > 1:
        with pytest.raises(NotImplementedError, match="MultiIndex"):
            dd.from_pandas(made(name), npartitions=1)
        return
    plot = getattr(plots, name)
    args, options = how.on(lambda _name, frame: frame)
    expected = drawn(plot(*args, **options))
    args, options = how.on(lambda _name, frame: cut(frame, random_edges(len(frame))))
    found = drawn(plot(*args, **options))
    plt.close("all")
    assert found == expected


SOME = [
    ("rates", call(MAIL, of="action", by="recipient_domain", clusters="relay_host")),
    ("failure_rates", call(MAIL, by="day")),
    ("failure_reasons", call(MAIL, connections=F("connections"), by="provider", count="all")),
    ("failure_rates", call(F("tls_reports"), by="reporter")),
    ("repeated_failures", call(MAIL)),
    ("promises", call(MAIL)),
    ("time_to_delivery", call(MAIL)),
]


@settings(max_examples=30, deadline=None)
@given(which=st.sampled_from(SOME), data=st.data())
def test_any_cut(which: tuple[str, Call], data: st.DataObject) -> None:
    """Where a frame is cut, into how many partitions, and which of them are empty changes nothing."""

    def change(_name: str, frame: Any) -> Any:
        return cut(frame, data.draw(st.lists(st.integers(0, len(frame)), max_size=6)))

    check(*which, change)


@pytest.mark.parametrize("name", sorted({name for name, _how in SOME}))
def test_frames_without_rows(name: str) -> None:
    """A Dask frame without rows gives what a pandas frame without rows gives."""
    for how in (how for of, how in SOME if of == name):
        args, options = how.on(lambda _name, frame: frame.iloc[:0])
        expected = find(name)(*args, **options)
        args, options = how.on(lambda _name, frame: cut(frame.iloc[:0], [0, 0]))
        found = frames.collected(find(name)(*args, **options))
        pd.testing.assert_frame_equal(found, expected)


# -- what takes several tables, or writes them ------------------------------------------------------------------


def followed() -> list[str]:
    """Messages that were returned, delivered, and known by a queue id alone."""
    mail = own_mail()
    ids = mail["message_id"].dropna().unique()[:2].tolist()
    nameless = mail.loc[mail["message_id"].isna(), "queue_id"].dropna().unique()[:1].tolist()
    bounced = made("bounces")["original_message_id"].dropna().unique()[:1].tolist()
    return [*ids, *nameless, *bounced]


@pytest.mark.parametrize("as_dask_does", [False, True])
def test_follow(as_dask_does: bool) -> None:
    """One message is followed through Dask frames as through pandas frames."""
    how = call(MAIL, **FOLLOWED)
    for message in followed():
        args, options = how.on(lambda _name, frame: frame)
        expected = rtls.follow(message, *args, **options)
        args, options = how.on(
            lambda _name, frame: cut(frame, random_edges(len(frame)), as_dask_does=as_dask_does)
        )
        found = rtls.follow(message, *args, **options)
        assert str(found) == str(expected)
        assert found._repr_html_() == expected._repr_html_()
    with pytest.raises(LookupError, match="no message 'nobody'"):
        rtls.follow("nobody", *args, **options)


@pytest.mark.parametrize("ending", ["table.parquet", "table.csv", "table.jsonl", "table/"])
@pytest.mark.parametrize("as_dask_does", [False, True])
def test_write_table(tmp_path: Path, ending: str, as_dask_does: bool) -> None:
    """A Dask frame is written as the table that it is, in the order of its rows, its coverage with it."""
    mail = own_mail()
    rtls.write_table(cut(mail, random_edges(len(mail)), as_dask_does=as_dask_does), f"{tmp_path}/{ending}")
    found = rtls.read_table(f"{tmp_path}/{ending}")
    rtls.write_table(mail, f"{tmp_path}/other-{ending}")
    expected = rtls.read_table(f"{tmp_path}/other-{ending}")
    pd.testing.assert_frame_equal(found, expected)
    assert found.attrs == expected.attrs


def test_write_report(tmp_path: Path) -> None:
    """The page of Dask frames is that of pandas frames."""
    names = ("deliveries", "connections", "bounces", "tls_reports", "hops", "what_if")
    given_frames = {name: made(name) for name in names}
    rtls.write_report(tmp_path / "one.html", **given_frames)
    rtls.write_report(
        tmp_path / "two.html",
        **{name: cut(frame, random_edges(len(frame))) for name, frame in given_frames.items()},
    )
    one, two = ((tmp_path / name).read_text(encoding="utf-8") for name in ("one.html", "two.html"))
    made_on = re.compile(r"Made by .*? UTC\.")
    without_pictures = re.compile(r"data:image/[^\"]+")
    one, two = (without_pictures.sub("", made_on.sub("", text)) for text in (one, two))
    assert one == two


# -- manners ---------------------------------------------------------------------------------------------------


def test_errors_are_those_of_pandas_frames() -> None:
    """What a caller does wrong raises at once, with the same words."""
    mail = own_mail()
    cuts = cut(mail, random_edges(len(mail)))
    wrong: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (rtls.rates, {"of": "colour"}),
        (rtls.rates, {"of": "action", "by": "colour"}),
        (rtls.rates, {"of": "action", "yes": "purple"}),
        (analysis.failure_rates, {"by": "colour"}),
        (analysis.failure_reasons, {"by": "colour"}),
        (analysis.failure_reasons, {"count": "many"}),
        (analysis.repeated_failures, {"by": "colour"}),
        (analysis.tls_versions, {"by": "colour"}),
        (analysis.promises, {"by": "colour"}),
        (analysis.failure_rates, {"reasons": ["colour"]}),
    ]
    for function, options in wrong:
        with pytest.raises(ValueError, match=r".") as expected:
            function(mail, **options)
        with pytest.raises(ValueError, match=r".") as found:
            function(cuts, **options)
        assert str(found.value) == str(expected.value)
    with pytest.raises(ValueError, match="not one of the tables"):
        analysis.failure_rates(cut(made("domains"), [5]))
    with pytest.raises(ValueError, match="a Series of the rows of a Dask frame"):
        rtls.rates(cuts, of="action", by=mail["mta"])


def test_a_column_of_counts() -> None:
    """A table of which equal rows were counted before has the rates of its rows, clusters or not."""
    mail = own_mail()
    tally = frames.tallied(mail, ["action", "recipient_domain", "relay_host"])
    assert tally["count"].sum() == len(mail) > len(tally)
    for options in ({}, {"by": "recipient_domain"}, {"clusters": "relay_host"}):
        expected = rtls.rates(mail, of="action", unit="delivery attempt", **options)
        found = rtls.rates(tally, of="action", unit="delivery attempt", counts="count", **options)
        assert_same(found, expected)


def test_pandas_frames_do_without_dask() -> None:
    """Nothing of Dask is loaded for pandas frames."""
    code = (
        "import sys, rtls_analysis as rtls\n"
        "mail = rtls.load_sample('postfix-3.11')\n"
        "rtls.analysis.failure_reasons(mail); rtls.rates(mail, of='action')\n"
        "rtls.what_if(mail, rtls.load_sample('postfix-3.11-scan'))\n"
        "assert not {name.split('.')[0] for name in sys.modules} & {'dask', 'distributed'}\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=root, timeout=300)
