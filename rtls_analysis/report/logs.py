"""What became of own mail, as sections of the page: what the logs tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.delays import End, time_to_delivery
from rtls_analysis.analysis.experiment import Promise, promises, requiretls_experiment
from rtls_analysis.analysis.failures import (
    failure_rates,
    failure_reasons,
    host_and_message_rates,
    repeated_failures,
)
from rtls_analysis.analysis.messages import STORY, columns_of
from rtls_analysis.frames import Frame, collected, mapped
from rtls_analysis.outcomes import Action, RequireTls
from rtls_analysis.plots import delays as delay_plots
from rtls_analysis.plots import experiment as experiment_plots
from rtls_analysis.plots import failures as failure_plots
from rtls_analysis.report.page import Block, Note, Section, Table, draw
from rtls_analysis.report.tables import (
    counted,
    drawable,
    example_table,
    last_word,
    period_of,
    rate_table,
    share_table,
)
from rtls_analysis.schema import CONNECTIONS, DELIVERIES, conform

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 12  # destinations

_LEVELS = {
    "encrypted": "encrypted",
    "certificate_valid": "with a valid certificate",
    "verified": "authenticated",
}
_WISHES: Mapping[str, str] = {
    RequireTls.SENT: "sent on: the next server takes it, and had authenticated itself",
    RequireTls.SENT_UNAUTHENTICATED: "sent on, though the next server had not authenticated itself",
    RequireTls.NOT_OFFERED: "the next server does not offer REQUIRETLS",
    RequireTls.NO_STARTTLS: "the next server does not offer STARTTLS",
    RequireTls.NO_ENCRYPTION: "the session was not encrypted",
    RequireTls.NO_CERTIFICATE_MATCH: "the next server could not be authenticated",
}
_PROMISES: Mapping[str, str] = {
    Promise.KEPT: "kept: sent on with REQUIRETLS, server and name authenticated",
    Promise.KEPT_UNTOLD: "kept as far as told: how the name was secured is not",
    Promise.WEAKENED: "weakened: sent on with REQUIRETLS, server or name not authenticated",
    Promise.DROPPED: "dropped: delivered over TLS without REQUIRETLS",
    Promise.BROKEN: "broken: delivered in cleartext",
    Promise.REFUSED: "refused: returned by the sender's own server, as was asked",
    Promise.NOT_DELIVERED: "not delivered, for another reason or not yet",
}


def log_headline(deliveries: Frame) -> str:
    """Say what the logs come to, in a sentence."""
    if not (attempts := len(deliveries)):
        return "The logs tell of no delivery."
    when = period_of(_of_mail(deliveries)["logged_at"])
    told = f"Logs{f' of {when}' if when else ''}: {attempts:,} delivery attempts."
    for row in failure_rates(deliveries).to_dict("records"):  # one, or none where all mail stayed at home
        told += (
            f" Of {row['denominator']:,} messages (counted for each recipient) that ended, {row['numerator']:,} "
            f"failed; {row['delayed']:,} were still queued."
        )
    return told


def log_sections(deliveries: Frame, connections: Frame | None) -> list[Section]:
    """Make the sections about logs."""
    if not len(deliveries):
        return [Section("What became of mail", [Note("The logs tell of no delivery.")])]
    mail = _of_mail(deliveries)
    lines = None if connections is None else mapped(connections, conform, table=CONNECTIONS)
    return [_ends(mail), _reasons(mail, lines), _wishes(mail), _levels(mail, lines)]


_LOOKED_AT = [
    *STORY,
    "reply_text",
    "tls_version",
    "requiretls",
    "requiretls_strict",
    "requiretls_violated",
]


def _of_mail(deliveries: Frame) -> Frame:
    """Give what the page is made of."""
    return mapped(deliveries, columns_of, columns=_LOOKED_AT, table=DELIVERIES, names=_LOOKED_AT)


def _ends(mail: Frame) -> Section:
    section = Section(
        "What became of mail", [Note("A message counts once for each recipient, by its last attempt.")]
    )
    caption = "Messages that failed, of those that ended; what is still queued could not be told."
    section.add(rate_table(failure_rates(mail), caption, "mail"))
    by_day = failure_rates(mail, by="day")
    if len(by_day) > 1:
        caption = "The same by day (UTC), by the first attempt."
        section.add(
            draw(
                failure_plots.failures_over_time,
                drawable(mail),
                alternative=f"A line over {len(by_day)} days: the share of messages that failed, with its interval. "
                "The table below has the numbers.",
                caption="Messages that failed, by day.",
                height=3.4,
            ),
            rate_table(by_day, caption, "day", names=lambda day: f"{day:%Y-%m-%d}", most=31),
        )
    destinations = _worst(failure_rates(mail, by="destination"))
    providers = _worst(failure_rates(mail, by="provider"))
    if len(destinations):
        caption = "Recipient domains at which most messages failed."
        section.add(rate_table(destinations, caption, "recipient domain", most=SHOWN))
    if len(providers) < len(destinations):
        caption = "Providers of the relay at which most messages failed."
        section.add(rate_table(providers, caption, "provider", most=SHOWN))
    section.add(*_delays(mail), _first_tries(mail))
    return section


def _worst(table: pd.DataFrame) -> pd.DataFrame:
    """Put groups with most failures first, and leave out those without any."""
    failed = table[table["numerator"] > 0]
    return failed.sort_values("numerator", ascending=False, kind="stable")


def _delays(mail: Frame) -> Iterator[Block]:
    spans = collected(time_to_delivery(mail), ["seconds", "end"])
    taken = spans["seconds"][spans["end"] == End.DELIVERED].dropna()
    if taken.empty:
        return None
    rows = [[f"{share:.0%} within", seconds_text(float(taken.quantile(share)))] for share in (0.5, 0.9, 0.99)]
    counts = counted(spans["end"])
    told = ", ".join(f"{count:,} {word}" for word, count in counts.items())
    yield draw(
        delay_plots.time_to_delivery,
        drawable(mail),
        alternative=f"Two curves over the time since arrival: the share delivered and the share failed; {told}. The "
        "table below has the quantiles of those delivered.",
        caption="How long mail takes; what is still queued took at least as long as the log goes.",
    )
    caption = f"How long the {len(taken):,} took that were delivered."
    yield Table(caption, ("of those delivered", "time"), rows, frozenset({1}))


def seconds_text(seconds: float) -> str:
    """Write a span of time.

    >>> seconds_text(0.25), seconds_text(75), seconds_text(7300)
    ('0.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return (
        f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
    )


def _first_tries(mail: Frame) -> Table | None:
    again = _worst(repeated_failures(mail))
    if again.empty:
        return None
    rows = [
        [
            name,
            f"{row['numerator']:,} / {row['denominator']:,}",
            f"{row['recovered']:,}",
            f"{row['lost']:,}",
            f"{row['queued']:,}",
            f"{row['most_tries']:,}",
            "yes" if row["is_failing"] else "no",
        ]
        for name, row in zip(again.index[:SHOWN], again.head(SHOWN).to_dict("records"), strict=True)
    ]
    columns = (
        "recipient domain",
        "first try failed / tried",
        "later delivered",
        "lost",
        "queued",
        "most tries",
        "failing still",
    )
    caption = "Destinations whose first try failed, and what became of that mail."
    return Table(caption, columns, rows, frozenset(range(1, 6)), "First tries that failed")


def _reasons(mail: Frame, connections: Frame | None) -> Section:
    section = Section("Why mail failed or was put off")
    table = failure_reasons(mail, connections=connections)
    if table.empty:
        section.add(Note("None failed, and none was put off."))
        return section
    caption = (
        "One reason each, of messages that failed or were put off at least once: the first in the order of a "
        "connection, TLS before what has nothing to do with it."
    )
    bad = mail[mail["action"].isin([Action.FAILED, Action.DELAYED])]
    section.add(
        draw(
            failure_plots.failure_reasons,
            drawable(mail),
            connections=connections,
            alternative=f"A bar for each of {len(table)} reasons, the commonest is {last_word(table.index[0])}. The "
            "table below has the numbers.",
            caption="Why mail failed or was put off, and how it ended.",
        ),
        rate_table(table, caption, "reason", names=last_word, most=20),
        example_table(
            bad, "tls_outcome", "reply_text", "recipient_domain", "What the logs say, an example of each."
        ),
    )
    return section


def _wishes(mail: Frame) -> Section:
    section = Section("Mail that asked for REQUIRETLS")
    table = requiretls_experiment(mail, by=None)
    if table.empty:
        section.add(
            Note(
                "No message is known to have asked for it; most mail servers have no word for it in their logs."
            )
        )
        return section
    kept = promises(mail, by=None, of="all")
    section.add(
        draw(
            experiment_plots.requiretls_experiment,
            drawable(mail),
            alternative="A bar for each domain that sends, its parts by what became of the wish for REQUIRETLS. The "
            "table below has the numbers of all together.",
            caption="What became of the wish for REQUIRETLS, by the domain of the sender.",
            height=3.0,
        ),
        rate_table(
            table,
            "What became of the wish, as the last attempt of each message tells.",
            "what became of it",
            names=lambda key: _WISHES[last_word(key, raw=True)],
        ),
        rate_table(
            kept[kept["numerator"] > 0],
            "How far the promise was kept, of all messages that asked.",
            "promise",
            names=lambda key: _PROMISES[last_word(key, raw=True)],
        ),
    )
    by_sender = requiretls_experiment(mail, by="sender_domain")
    sent = by_sender[by_sender.index.get_level_values("requiretls") == RequireTls.SENT]
    if len(sent) > 1:
        caption = "Messages whose wish was sent on to an authenticated server, by the domain of the sender."
        section.add(rate_table(sent.droplevel("requiretls"), caption, "sender domain"))
    return section


def _levels(mail: Frame, connections: Frame | None) -> Section:
    section = Section("TLS of the mail that went")
    table = host_and_message_rates(mail)
    if len(table):
        section.add(
            Note(
                "Few hosts take most mail, so the rate of hosts and that of messages part. Messages of one host are "
                "not independent; their interval allows for that."
            )
        )
        section.add(
            draw(
                failure_plots.host_and_message_rates,
                drawable(mail),
                alternative="Dots with intervals: for encrypted, valid and verified mail the rate of hosts beside the "
                "rate of messages. The tables below have the numbers.",
                caption="The rate of hosts beside that of messages.",
                height=3.6,
            )
        )
        for of, unit in (("message", "messages"), ("host", "hosts")):
            part: pd.DataFrame = table[table.index.get_level_values("of") == of].droplevel("of")
            section.add(rate_table(part, f"Of {unit}.", unit, names=_level))
    for values, caption, label in (
        (mail["tls_version"].dropna(), "TLS versions of attempts, where the log tells.", "version"),
        (mail["tls_level"].dropna(), "TLS levels of attempts with a session.", "level"),
    ):
        counts = counted(values)
        if len(counts):
            section.add(share_table(counts, caption, label, "attempts"))
    if connections is not None and len(connections):
        caption = (
            "What came of TLS at each connection that the log tells of; a host that failed before the next one took "
            "the mail is only here."
        )
        section.add(share_table(counted(connections["tls_outcome"]), caption, "outcome", "connections"))
    return section


def _level(key: Any) -> str:
    return _LEVELS[last_word(key, raw=True)]
