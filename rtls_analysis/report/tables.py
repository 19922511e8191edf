"""Tables of the analysis as tables of the page: every rate with numerator, denominator, interval and bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtls_analysis.frames import Frame, mapped, picked, reduced, tallied
from rtls_analysis.plots.drawing import said
from rtls_analysis.read.mail_coverage import printable
from rtls_analysis.report.page import Note, Table

if TYPE_CHECKING:
    import pandas as pd

RATE_COLUMNS = ("yes / tested", "rate", "95% interval")
UNTOLD_COLUMNS = ("unknown", "unknown as no ... yes")
LEFT_OUT = "left out"
ABOUT_RATES = (
    "Rates are shares of what was conclusively tested. Beside each stand its 95% interval (Wilson) and its bounds: "
    "everything that could not be told taken for a no, and for a yes. Left out is what was not tested, or does not "
    "apply. A full scan of a list has no sampling error about that list; the interval speaks about lists of its kind."
)


def percent(share: float) -> str:
    """Write a share for people, small ones with more digits.

    >>> percent(0.5), percent(0.0052), percent(float("nan"))
    ('50.0%', '0.52%', '-')
    """
    if share != share:
        return "-"
    return f"{share:.2%}" if 0 < share < 0.01 else f"{share:.1%}"


def between(low: float, high: float) -> str:
    """Write an interval.

    >>> between(0.0, 0.278)
    '0.0-27.8%'
    """
    return "-" if low != low else f"{percent(low).removesuffix('%')}-{percent(high)}"


def words(word: Any) -> str:
    """Write a word of a vocabulary for people, as the plots do.

    >>> words("mx_unauthenticated"), words("no_starttls"), words(None)
    ('MX unauthenticated', 'no STARTTLS', '-')
    """
    return said(word) if isinstance(word, str) and word else "-"


def rate_table(
    frame: pd.DataFrame,
    caption: str,
    label: str,
    *,
    names: Callable[[Any], str] = str,
    folded: str = "",
    most: int = 12,
) -> Table:
    """Show what `rates` gave: a row per group, at most `most`; the rate of a small group is not shown, its interval is.

    What could not be told, and what was left out, have columns where there is any.
    """
    shown = frame.head(most)
    has_unknown = bool(shown["unknown"].sum())
    left_out = shown["not_tested"] + shown["not_applicable"]
    rows = [
        [names(group), *_rate_cells(row), *(_untold_cells(row) if has_unknown else ()), *more]
        for group, row, more in zip(
            shown.index,
            shown.to_dict("records"),
            [[f"{count:,}"] if left_out.sum() else [] for count in left_out],
            strict=True,
        )
    ]
    unit = str(frame["unit"].iloc[0]) if len(frame) else "row"
    ending = f" One {unit} is one trial."
    if len(frame) > most:
        ending += f" The {most} largest of {len(frame):,}."
    if shown["is_small"].any():
        ending += f" A rate of fewer than {frame.attrs.get('minimum', 10)} trials is not shown."
    columns = (label, *RATE_COLUMNS, *(UNTOLD_COLUMNS if has_unknown else ()))
    columns += (LEFT_OUT,) if left_out.sum() else ()
    return Table(caption + ending, columns, rows, frozenset(range(1, len(columns))), folded)


def _rate_cells(row: Mapping[Any, Any]) -> list[str]:
    numerator, denominator = row["numerator"], row["denominator"]
    return [
        f"{numerator:,.0f} / {denominator:,.0f}",
        "(few)" if row["is_small"] else percent(row["rate"]),
        between(row["low"], row["high"]),
    ]


def _untold_cells(row: Mapping[Any, Any]) -> list[str]:
    return [f"{row['unknown']:,}", between(row["if_unknown_no"], row["if_unknown_yes"])]


def share_table(
    counts: pd.Series[Any],
    caption: str,
    label: str,
    unit: str,
    *,
    more: Sequence[tuple[str, Mapping[Any, str]]] = (),
    most: int = 20,
) -> Table:
    """Show how many of all are what: a count per word with its share of the sum and the interval of that."""
    from rtls_analysis.analysis.intervals import wilson

    total = int(counts.sum())
    rows = []
    for word, count in counts.head(most).items():
        low, high = wilson(int(count), total)
        cells = [f"{int(count):,} / {total:,}", percent(int(count) / total), between(low, high)]
        rows.append([words(word), *cells, *(str(texts.get(word, "")) for _name, texts in more)])
    columns = (label, f"{unit} / all", "share", "95% interval", *(name for name, _texts in more))
    ending = f" The {most} most frequent of {len(counts):,}." if len(counts) > most else ""
    return Table(caption + ending, columns, rows, frozenset({1, 2, 3}))


def counted(values: Any) -> pd.Series[int]:
    """Count the words of a column, of a frame of either kind, most frequent first, without those that do not occur."""
    counts = tallied(values.to_frame("word"), ["word"]).dropna(subset="word").set_index("word")["count"]
    return counts.sort_values(ascending=False, kind="stable")


def last_word(key: Any, *, raw: bool = False) -> str:
    """Give the last level of a group's name, as people read it or as it is.

    >>> last_word(("all", "no_starttls")), last_word("no_starttls", raw=True)
    ('no STARTTLS', 'no_starttls')
    """
    word = str(key[-1] if isinstance(key, tuple) else key)
    return word if raw else words(word)


def period_of(times: Any) -> str:
    """Say from when to when, by day; empty where no time is known. The column may be Dask's."""
    known = reduced(times.to_frame("at"), _first_and_last, how={"first": "min", "last": "max"}).dropna()
    if known.empty:
        return ""
    first, last = (f"{moment:%Y-%m-%d}" for moment in known.iloc[0])
    return first if first == last else f"{first} to {last}"


def _first_and_last(times: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    at = times["at"]
    return pd.DataFrame({"first": [at.min()], "last": [at.max()]}, index=pd.Index(["all"], name="of"))


def example_table(
    frame: Frame, reason: str, text: str, who: str, caption: str, most: int = 12
) -> Table | None:
    """Show a text of each reason, the commonest reason first; None where there is none."""
    told = frame.dropna(subset=[text, reason])
    first = picked(told, _examples, reason=reason).drop_duplicates(reason).set_index(reason)
    rows = [
        [words(word), f"{int(count):,}", _or_dash(first.at[word, who]), first.at[word, text]]
        for word, count in counted(told[reason]).head(most).items()
    ]
    columns = ("reason", "times", "example", "its text")
    return Table(caption, columns, rows, frozenset({1}), "Texts") if rows else None


def _examples(frame: pd.DataFrame, reason: str) -> pd.DataFrame:
    return frame.drop_duplicates(reason)


def _or_dash(value: Any) -> str:
    return value if isinstance(value, str) else "-"


_LABELS = ("sender_domain", "recipient_domain", "relay_host", "reporting_host", "provider")


def drawable(frame: Frame) -> Frame:
    """Give a frame whose names can be drawn: short, and without what no font has; each name stays itself."""
    return mapped(frame, _drawable)


def _drawable(frame: pd.DataFrame) -> pd.DataFrame:
    cleaned = {}
    for column in _LABELS:
        if column in frame:
            names = frame[column].dropna().unique()
            cleaned[column] = frame[column].map({name: printable(name, 60) for name in names}).astype("str")
    return frame.assign(**cleaned)


def coverage_tables(frames: Mapping[str, Frame]) -> list[Table]:
    """Show what the tables of mail were made of, and what gave no row; nothing where no frame tells."""
    rows, trouble = [], []
    told: list[Any] = []
    for name, frame in frames.items():
        coverage = getattr(frame, "attrs", {}).get("coverage")
        if not isinstance(coverage, Mapping):
            continue
        read = coverage.get("lines_read", coverage.get("messages_read", 0))
        matched = coverage.get("lines_matched", coverage.get("messages_matched", 0))
        what = (
            "lines" if "lines_read" in coverage else "file or message" if read == 1 else "files or messages"
        )
        rows.append([words(name), f"{read:,} {what}", f"{matched:,}", f"{len(frame):,}"])
        gaps = (coverage.get("skipped", {}), coverage.get("unreadable_files", {}))
        if gaps in told:  # the same log, for another table
            continue
        told.append(gaps)
        trouble += [[words(name), reason, f"{skipped['count']:,}"] for reason, skipped in gaps[0].items()]
        trouble += [[words(name), f"{path}: {why}", "not read to its end"] for path, why in gaps[1].items()]
    if not rows:
        return []
    tables = [
        Table(
            "What the tables were made of.", ("table", "read", "of use", "rows"), rows, frozenset({1, 2, 3})
        )
    ]
    if trouble:
        caption = (
            "What gave no row, by reason; nothing is guessed, and nothing dropped without being counted."
        )
        tables.append(
            Table(caption, ("table", "reason", "count"), trouble[:60], frozenset({2}), "What gave no row")
        )
    return tables


def artefacts(found: Iterable[Any]) -> list[Note]:
    """Give the warnings that were raised while figures were made as notes for the reader."""
    return [Note(message, warning=True) for message in dict.fromkeys(str(item.message) for item in found)]
