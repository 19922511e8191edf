"""A proposal for Postfix 3.11 from the table `what_if`: a piece of main.cf for the operator to review.

`smtp_tls_policy_maps` gets a level that authenticates the destinations that qualify, so that REQUIRETLS mail to them
is not returned for want of a level that matches certificates; `smtp_requiretls_policy` gets the destinations where
it would be returned, as comments: to let such mail go all the same is the operator's decision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtls_analysis.analysis.declared import fetched
from rtls_analysis.analysis.obstacles import WHAT_IT_MEANS
from rtls_analysis.analysis.what_if import what_if_domains
from rtls_analysis.frames import Frame
from rtls_analysis.outcomes import Obstacle
from rtls_analysis.schema import WHAT_IF, Demand, Prospect, VerifiedBy, rows_of

if TYPE_CHECKING:
    import pandas as pd

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62}\.)*[a-z0-9_-]{1,63}")
_NO_TLS = frozenset({Obstacle.NO_STARTTLS, Obstacle.TLS_FAILED})
_GOES = frozenset({Prospect.DELIVERED, Prospect.AT_RISK})
_WAYS: Mapping[str, str] = {
    VerifiedBy.DANE: "; DANE",
    VerifiedBy.MTA_STS: "; MTA-STS",
    VerifiedBy.DNSSEC: "; signed MX record and a public CA",
    VerifiedBy.IMPLICIT_MX: "; no MX record, and a public CA",
}
_DEFAULT_POLICY = """\
    inline:{
        { ${domain_to_ascii{$mydomain}} = opportunistic }
        { .${domain_to_ascii{$mydomain}} = opportunistic }
        { localhost = opportunistic }
    },
    cidr:{ { 0.0.0.0/0 opportunistic } { ::/0 opportunistic } },
    enforce"""
"""The default of `smtp_requiretls_policy` in Postfix 3.11: own names and addresses optional, all others enforced."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of a table in main.cf, with the reason for it."""

    domain: str
    value: str
    reason: str


def postfix_policy(frame: Frame, *, relaxed: bool = False) -> str:
    """Write a proposal for Postfix 3.11, to be reviewed and put into main.cf.

    Parameters
    ----------
    frame
        The table `what_if` under any rule.
    relaxed
        Under ``requiretls``: exempt the destinations that fail from enforcement. Otherwise the exemptions are
        comments. An exempt message goes as if its sender had not asked, where need be in cleartext.

    Returns
    -------
    str
        A piece of main.cf. Destinations whose mail took a smart host are left out, for Postfix looks up the smart
        host; so are those that could not be judged, and names that are no host names.

    Notes
    -----
    Levels: ``dane-only`` where TLSA records vouch for a host (under ``requiretls`` none is needed: the level ``dane``
    for all does it), ``secure`` with the policy's names for MTA-STS, ``verify`` where the MX record is signed and the
    certificate is of a public CA, ``encrypt`` for any TLS. In a policy ``*.example.net`` stands for one label, in
    Postfix ``.example.net`` for any number. A policy map does not follow a domain that changes its policy: a plug-in
    for MTA-STS does.
    """
    frame = fetched(frame)
    if frame.empty:
        return "# No mail to other hosts: nothing to propose.\n"
    rows = rows_of(WHAT_IF, what_if_domains(frame))
    demand = Demand(rows[0]["rule"])
    by_smart_host = _by_smart_host(frame)
    known = [row for row in rows if row["scanned"] and row["recipient_domain"] not in by_smart_host]
    usable = [row for row in known if _NAME.fullmatch(row["recipient_domain"])]
    levels = list(_levels(usable, demand))
    exemptions = list(_exemptions(usable)) if demand is Demand.REQUIRETLS else []
    lines = ["# A proposal for Postfix 3.11 (main.cf), drawn from own mail and a scan. Review every line."]
    lines += _left_out(rows, usable, len(by_smart_host))
    lines += ["", *_settings(usable, demand, levels)]
    lines += _table("smtp_tls_policy_maps", levels)
    if demand is Demand.REQUIRETLS:
        lines += ["", *_requiretls_policy(exemptions, relaxed=relaxed)]
    return "\n".join(lines) + "\n"


def _by_smart_host(frame: pd.DataFrame) -> set[str]:
    """Name the domains whose mail went by relays that are none of their MX hosts."""
    told = frame[frame["relay_is_mx"].notna()]
    is_mx = told.groupby("recipient_domain")["relay_is_mx"].any()
    return set(is_mx.index[~is_mx.astype(bool)])


def _left_out(rows: list[dict[str, Any]], usable: list[dict[str, Any]], by_smart_host: int) -> list[str]:
    lines = []
    if by_smart_host:
        lines.append(
            f"# Left out: {by_smart_host:,} domains whose mail takes a smart host. Postfix looks up the smart host, in"
            " brackets, not them."
        )
    unscanned = sum(not row["scanned"] for row in rows)
    if unscanned:
        lines.append(f"# Left out: {unscanned:,} domains that were not scanned.")
    unknown = sum(row["verdict"] == Prospect.UNKNOWN for row in usable)
    if unknown:
        lines.append(f"# Left out: {unknown:,} domains of which the scan could not tell.")
    return lines


# -- levels ----------------------------------------------------------------------------------------------------


def _levels(rows: list[dict[str, Any]], demand: Demand) -> Iterator[_Entry]:
    for row in rows:
        if row["verdict"] in _GOES and (level := _level(row, demand)):
            partly = ", at some addresses only" if row["verdict"] == Prospect.AT_RISK else ""
            way = _WAYS.get(row["verified_by"] or "", "")
            yield _Entry(row["recipient_domain"], level, f"{row['messages']:,} messages{partly}{way}")


def _level(row: Mapping[str, Any], demand: Demand) -> str:
    """Choose the level for a destination that qualifies; empty where it needs no line."""
    if demand is Demand.TLS:
        return "encrypt"
    if demand is Demand.PKIX:
        return "verify"
    match row["verified_by"]:
        case VerifiedBy.DANE:
            return "dane-only" if demand is Demand.VERIFIED else ""
        case VerifiedBy.MTA_STS:
            names = [_match(pattern) for pattern in row["sts_mx"] or ()]
            return f"secure match={':'.join(names)} servername=hostname" if names and all(names) else ""
        case VerifiedBy.DNSSEC:
            return "verify"
        case VerifiedBy.IMPLICIT_MX:
            return "secure match=nexthop"
        case _:
            return ""


def _match(pattern: str) -> str:
    """Write an mx pattern of a policy as Postfix writes it; empty where it is no name."""
    name = pattern.removeprefix("*.").lower()
    if not _NAME.fullmatch(name):
        return ""
    return f".{name}" if pattern.startswith("*.") else name


def _settings(rows: list[dict[str, Any]], demand: Demand, levels: list[_Entry]) -> list[str]:
    by_dane = sum(row["verified_by"] == VerifiedBy.DANE and row["verdict"] in _GOES for row in rows)
    lines = []
    if by_dane:
        lines += [
            f"# {by_dane:,} destinations are authenticated by DANE; this needs a validating resolver on this host.",
            "smtp_dns_support_level = dnssec",
        ]
        if demand is Demand.REQUIRETLS:
            lines.append("smtp_tls_security_level = dane")
    if any(entry.value.split()[0] in ("secure", "verify") for entry in levels):
        lines.append("# smtp_tls_CApath or smtp_tls_CAfile must name the public CAs.")
    return lines


def _table(name: str, entries: list[_Entry]) -> list[str]:
    if not entries:
        return [f"# {name}: no line needed."]
    lines = [f"{name} ="]
    if len(entries) > 500:
        lines.insert(0, "# Long: better kept as a file, lmdb:/etc/postfix/..., one `domain value` a line.")
    return [*lines, "    inline:{", *(line for entry in entries for line in _lines(entry)), "    }"]


def _lines(entry: _Entry, sign: str = "") -> list[str]:
    return [f"        # {entry.reason}", f"        {sign}{{ {entry.domain} = {entry.value} }}"]


# -- exemptions ------------------------------------------------------------------------------------------------


def _exemptions(rows: list[dict[str, Any]]) -> Iterator[_Entry]:
    for row in rows:
        obstacle = Obstacle(row["obstacle"] or Obstacle.NONE)  # CSV keeps no empty word
        if row["verdict"] == Prospect.FAILS and obstacle is not Obstacle.NO_MX:
            lacks_tls = _NO_TLS.intersection(row["obstacles"] or ())
            action = "opportunistic" if lacks_tls else "opportunistic+starttls"
            reason = f"{row['messages']:,} messages: {WHAT_IT_MEANS[obstacle]}"
            yield _Entry(row["recipient_domain"], action, reason)


def _requiretls_policy(exemptions: list[_Entry], *, relaxed: bool) -> list[str]:
    head = ["# What becomes of a message whose sender asks for REQUIRETLS."]
    if not exemptions:
        return [*head, "smtp_requiretls_policy =", _DEFAULT_POLICY]
    if relaxed:
        head.append("# Mail to the first table goes as if its sender had not asked.")
        table = ["    inline:{", *(line for entry in exemptions for line in _lines(entry)), "    },"]
    else:
        head += [
            "# Mail to the destinations in the comments is returned, as its sender asked. To let it go as if the",
            "# sender had not, take the # away before `inline:{`, `},` and the destination.",
        ]
        commented = [line for entry in exemptions for line in _lines(entry, "# ")]
        table = ["    # inline:{", *commented, "    # },"]
    return [*head, "smtp_requiretls_policy =", *table, _DEFAULT_POLICY]
