"""What an operator wants to see first of a log: how much was understood, how mail went, and where it fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rtls_analysis.outcomes import Action, RequireTls, TlsLevel
from rtls_analysis.read.mail_coverage import printable

if TYPE_CHECKING:
    import pandas as pd

MAX_DESTINATIONS = 200_000
WORST = 10
WIDTH = 110

_NOT_SENT = [Action.DELAYED, Action.FAILED]


class LogSummary:
    """Counts over the parts of `deliveries`: add each, then print."""

    def __init__(self) -> None:
        self.attempts = 0
        self.ends = 0  # rows without a try
        self.actions: Counter[str] = Counter()
        self.levels: Counter[str] = Counter()
        self.wishes: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()  # by destination
        self.failures: dict[str, Counter[str]] = {}  # by destination, then by reason
        self.examples: dict[tuple[str, str], str] = {}  # a text for each

    def add(self, part: pd.DataFrame) -> None:
        """Count the rows of a part."""
        tried = part[part["attempted"].fillna(False).astype(bool)]
        self.attempts += len(tried)
        self.ends += len(part) - len(tried)
        for counter, column, missing in (
            (self.actions, "action", "probe of an address"),
            (self.levels, "tls_level", "no session"),
            (self.wishes, "requiretls", RequireTls.UNKNOWN),
        ):
            counts = tried[column].astype("str").fillna(missing).value_counts()
            counter.update({str(word): int(count) for word, count in counts.items()})
        self.tries.update({str(name): int(n) for name, n in tried["recipient_domain"].value_counts().items()})
        failed = tried[tried["action"].isin(_NOT_SENT) & tried["recipient_domain"].notna()]
        groups = failed.groupby(["recipient_domain", "tls_outcome"], observed=True)["reply_text"]
        for (domain, outcome), texts in groups:
            self.failures.setdefault(str(domain), Counter())[str(outcome)] += len(texts)
            self.examples.setdefault((str(domain), str(outcome)), _text(texts.iloc[0]))
        if len(self.failures) > MAX_DESTINATIONS:
            self._forget()

    def merge(self, other: LogSummary) -> None:
        """Take over what was counted of other parts, that come after these."""
        self.attempts += other.attempts
        self.ends += other.ends
        for mine, theirs in (
            (self.actions, other.actions),
            (self.levels, other.levels),
            (self.wishes, other.wishes),
            (self.tries, other.tries),
        ):
            mine.update(theirs)
        for domain, reasons in other.failures.items():
            self.failures.setdefault(domain, Counter()).update(reasons)
        for key, text in other.examples.items():
            self.examples.setdefault(key, text)
        if len(self.failures) > MAX_DESTINATIONS:
            self._forget()

    def _forget(self) -> None:
        """Keep the destinations that fail most."""
        kept = sorted(self.failures, key=lambda name: -self.failures[name].total())[: MAX_DESTINATIONS // 2]
        self.failures = {name: self.failures[name] for name in kept}
        self.examples = {key: text for key, text in self.examples.items() if key[0] in self.failures}
        self.tries = Counter({name: self.tries[name] for name in kept})

    def __str__(self) -> str:
        """The summary as lines for a terminal."""
        if not self.attempts and not self.ends:
            return "No delivery attempts."
        lines = [f"{self.attempts:,} delivery attempts", *_shares(self.actions, self.attempts)]
        if self.ends:
            lines.append(f"{self.ends:,} ends without a try (expired, held, suspended)")
        lines += ["", "TLS level", *_shares(self.levels, self.attempts, list(TlsLevel))]
        asked = self.attempts - self.wishes[RequireTls.UNKNOWN] - self.wishes[RequireTls.NOT_REQUESTED]
        lines += ["", f"REQUIRETLS (asked for in {asked:,} attempts)"]
        lines += _shares(self.wishes, self.attempts, list(RequireTls))
        worst = sorted(self.failures, key=lambda name: (-self.failures[name].total(), name))[:WORST]
        if worst:
            lines += ["", "Destinations that failed most often, with their reasons"]
        for name in worst:
            reasons = self.failures[name]
            lines.append(f"  {name}: {reasons.total():,} of {self.tries[name]:,} attempts failed")
            for outcome, count in reasons.most_common(3):
                lines.append(f"    {count:,} {outcome}: {self.examples[name, outcome]}")
        return "\n".join(printable(line, WIDTH) for line in lines)


def coverage_text(coverage: Mapping[str, Any]) -> str:
    """What was read and what was made of it, as lines for a terminal."""
    read, matched = coverage["lines_read"], coverage["lines_matched"]
    lines = [f"{read:,} lines read, {matched:,} of mail servers we know"]
    lines += [f"  {count:,} understood: {kind}" for kind, count in coverage["understood"].items()]
    for reason, skipped in coverage["skipped"].items():
        lines.append(f"  {skipped['count']:,} skipped: {reason}")
        lines += [f"    {sample}" for sample in skipped["samples"]]
    lines += [
        f"  year of the first line of {name}: {rule}" for name, rule in coverage["time"]["years"].items()
    ]
    lines += [f"  warning: {text}" for text in coverage["warnings"]]
    lines += [f"  not read to the end: {name}: {why}" for name, why in coverage["unreadable_files"].items()]
    return "\n".join(printable(line, WIDTH) for line in lines)


def _shares(counts: Counter[str], total: int, order: list[Any] | None = None) -> list[str]:
    words = [str(word) for word in order or ()]
    names = sorted(counts, key=lambda name: (words.index(name) if name in words else len(words), name))
    return [f"  {counts[name]:>11,} {counts[name] / total:6.1%}  {name}" for name in names if counts[name]]


def _text(text: Any) -> str:
    return text if isinstance(text, str) else "no text"
