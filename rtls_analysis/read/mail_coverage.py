"""What a reader of mail took in, and what of it gave nothing, counted by reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SAMPLES = 3


@dataclass(slots=True)
class MailCoverage:
    """Every message, or file that is none, is counted once as read; `skipped` has those that lack something."""

    messages_read: int = 0
    messages_matched: int = 0
    skipped: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)  # of what else the reader counts

    def skip(self, reason: str, source: str) -> None:
        """Count a reason why a message, or a part of it, gave nothing, and keep the first few places."""
        number, samples = self.skipped.get(reason, (0, []))
        self.skipped[reason] = (number + 1, [*samples, source][:SAMPLES])

    def count(self, what: str, number: int = 1) -> None:
        """Count something besides."""
        self.counts[what] = self.counts.get(what, 0) + number

    def as_dict(self, problems: Mapping[str, str]) -> dict[str, Any]:
        """The whole as JSON-able values; `problems` are files that could not be read to their end."""
        return {
            "messages_read": self.messages_read,
            "messages_matched": self.messages_matched,
            **self.counts,
            "skipped": {
                reason: {"count": number, "samples": list(samples)}
                for reason, (number, samples) in self.skipped.items()
            },
            "unreadable_files": dict(problems),
        }


def coverage_lines(coverage: Mapping[str, Any]) -> list[str]:
    """The same as lines for a terminal: what was read, and a line for each reason why something gave nothing."""
    read, matched = coverage.get("messages_read", 0), coverage.get("messages_matched", 0)
    lines = [f"{read:,} {'file or message' if read == 1 else 'files or messages'} read, {matched:,} of use"]
    lines += [f"  {skipped['count']:,}: {reason}" for reason, skipped in coverage.get("skipped", {}).items()]
    lines += [f"  {name}: {reason}" for name, reason in coverage.get("unreadable_files", {}).items()]
    return [printable(line, 300) for line in lines]


def printable(text: str, limit: int) -> str:
    r"""Keep what a stranger wrote on one line, short, and free of control characters.

    >>> printable("a\x07" + "b" * 20, 12)
    'a\\x07bbb ...'
    """
    clean = "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in text[: limit + 1])
    return clean if len(clean) <= limit else f"{clean[: limit - 4].rstrip()} ..."
