"""What the DNS says of a domain and of an MX host, as rows of evidence (RFC 5321 §5.1, 7672 §2.2, 8461 §3, 8460 §3)."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from rtls_analysis.outcomes import (
    DnsSecurity,
    DnsStatus,
    MxState,
    StsPolicyState,
    StsRecordState,
    TlsrptState,
)
from rtls_analysis.providers import provider_of
from rtls_analysis.scanner.addresses import AllowedNetworks, special_reason
from rtls_analysis.scanner.politeness import OptOut
from rtls_analysis.scanner.resolver import Resolver
from rtls_analysis.scanner.targets import Target
from rtls_analysis.standards.dane import tlsa_bases, tlsa_name
from rtls_analysis.standards.dns_answer import DnsAnswer
from rtls_analysis.standards.mta_sts import check_sts_record
from rtls_analysis.standards.mx import check_mx, check_mx_host
from rtls_analysis.standards.names import fold_host, is_address
from rtls_analysis.standards.tlsrpt import check_tlsrpt_record
from rtls_analysis.verdicts import host_verdict

Row = dict[str, Any]

MAX_ADDRESSES = 100
"""Addresses of one MX host that are looked at: nobody's answer shall send a scan to thousands of others' servers."""


class Lookups:
    """Asks a resolver about domains and hosts, as the manners of one scan allow; `vantage` is where that is done."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        smtp_port: int,
        allowed: AllowedNetworks,
        opted_out: OptOut,
        vantage: str | None = None,
    ) -> None:
        self._resolver = resolver
        self._vantage = vantage
        self._smtp_port = smtp_port
        self._allowed = allowed
        self._opted_out = opted_out

    def special(self, address: str) -> str:
        """Say why an address must not be contacted; empty where it may be."""
        return "" if self._allowed.allows(address) else special_reason(address)

    # -- a domain --------------------------------------------------------------------------------------------

    async def domain(self, target: Target) -> tuple[Row, Row | None]:
        """Look a domain up: MX, the MTA-STS and TLSRPT records, and where its policy is served.

        Gives its row of evidence, `mx` as pairs of preference and host, and the row of the domain as a host
        where it is its own (the implicit MX).
        """
        row: Row = {"vantage": self._vantage, "domain": target.domain, "rank": target.rank}
        if target.problem or self._opted_out.names(target.domain):
            row.update(
                mx_state=MxState.BAD_NAME if target.problem else None,
                mx_dnssec=DnsSecurity.NOT_TESTED,
                mx_canonical=target.domain,
                mx=[],
                sts_record=StsRecordState.NOT_TESTED,
                tlsrpt=TlsrptState.NOT_TESTED,
                detail=target.problem or "opted out, not looked up",
                scanned_at=_now().isoformat(),
            )
            return row, None
        answer = await self._resolver.ask(target.domain, "MX")
        check = check_mx(target.domain, answer, has_address=None)
        host: Row | None = None
        if check.state is MxState.IMPLICIT_MX:
            host = await self.host(target.domain)
            if host["mx_state"] == MxState.DNS_FAILURE:
                check = check_mx(target.domain, _failed_like(answer, host["detail"]), has_address=None)
            else:
                check = check_mx(target.domain, answer, has_address=bool(host["addresses"]))
            if check.state is not MxState.IMPLICIT_MX:
                host = None
        row.update(
            mx_state=check.state,
            mx_dnssec=answer.security if check.state is not MxState.DNS_FAILURE else DnsSecurity.ERROR,
            mx_canonical=answer.canonical or target.domain,
            mx=[[record.preference, record.host] for record in check.hosts],
        )
        details = [check.detail, await self._sts(target.domain, row), await self._tlsrpt(target.domain, row)]
        row["detail"] = "; ".join(detail for detail in details if detail) or None
        row["scanned_at"] = _now().isoformat()
        return row, host

    async def _sts(self, domain: str, row: Row) -> str:
        """Look the MTA-STS record up, and the policy host where there is one; gives what is to be said of it."""
        answer = await self._resolver.ask(f"_mta-sts.{domain}", "TXT")
        row["sts_texts"] = sorted(answer.records)
        if answer.failed:
            row.update(sts_record=StsRecordState.DNS_FAILURE, sts_policy_id=None)
            return f"_mta-sts: {answer.detail or answer.status}"
        check = check_sts_record(answer.records)
        row.update(sts_record=check.state, sts_policy_id=check.policy_id)
        if check.state is StsRecordState.VALID:
            row["policy_host"] = await self._policy_host(f"mta-sts.{domain}")
        return f"_mta-sts: {check.detail}" if check.detail else ""

    async def _tlsrpt(self, domain: str, row: Row) -> str:
        answer = await self._resolver.ask(f"_smtp._tls.{domain}", "TXT")
        row["tlsrpt_texts"] = sorted(answer.records)
        if answer.failed:
            row["tlsrpt"] = TlsrptState.DNS_FAILURE
            return f"_smtp._tls: {answer.detail or answer.status}"
        check = check_tlsrpt_record(answer.records)
        row["tlsrpt"] = check.state
        row["tlsrpt_rua"] = list(check.rua) if check.state is TlsrptState.VALID else None
        return f"_smtp._tls: {check.detail}" if check.detail else ""

    async def _policy_host(self, name: str) -> Row:
        """Look a policy host up: its `addresses` and `provider`, or the `state` and `detail` why it is not asked."""
        answers = [await self._resolver.ask(name, "A"), await self._resolver.ask(name, "AAAA")]
        addresses = [address for answer in answers for address in _in_order(answer.records)]
        if not addresses:
            failed = next((answer for answer in answers if answer.failed), None)
            if failed is not None:
                return {
                    "state": StsPolicyState.DNS_FAILURE,
                    "detail": f"{name}: {failed.detail or failed.status}",
                }
            return {"state": StsPolicyState.NO_ADDRESS, "detail": f"{name} has no address"}
        reasons = {address: self.special(address) for address in addresses}
        usable = [address for address in addresses if not reasons[address]]
        if not usable:
            refused = ", ".join(f"{address}: {reason}" for address, reason in reasons.items())
            return {"state": StsPolicyState.ADDRESS_REFUSED, "detail": f"special address {refused}"}
        canonical = next((answer.canonical for answer in answers if answer.canonical), name)
        return {"addresses": usable, "provider": provider_of(fold_host(canonical))}

    # -- a host ----------------------------------------------------------------------------------------------

    async def host(self, name: str) -> Row:
        """Look an MX host up: its addresses, aliases and TLSA records; gives its row of `hosts`."""
        row: Row = {
            "vantage": self._vantage,
            "mx_host": name,
            "canonical_name": name,
            "addresses": (),
            "addresses_dnssec": DnsSecurity.NOT_TESTED,
            "tlsa": (),
            "tlsa_dnssec": None,
            "provider": provider_of(name),
            "resolved_at": _now(),
        }
        if is_address(name):
            row["mx_state"] = MxState.MX_IS_ADDRESS
            return {**row, **host_verdict(row)}
        answers = [await self._resolver.ask(name, "A"), await self._resolver.ask(name, "AAAA")]
        addresses = tuple(address for answer in answers for address in _in_order(answer.records))
        details = [
            f"{answer.rdtype}: {answer.detail or answer.status}" for answer in answers if answer.failed
        ]
        heard = [answer for answer in answers if answer.records] or answers
        failed = not addresses and bool(details)
        if len(addresses) > MAX_ADDRESSES:
            details.append(f"{len(addresses):,} addresses, {MAX_ADDRESSES} looked at")
            addresses = addresses[:MAX_ADDRESSES]
        security = _weakest([answer.security for answer in heard])
        aliased = next((answer for answer in heard if answer.aliases), None)
        canonical = fold_host(aliased.canonical) if aliased is not None else name
        alias_security: DnsSecurity | None = None
        if aliased is not None:
            alias_security = security
            if security is DnsSecurity.INSECURE:  # the alias may be signed though its target is not
                alias_security = (await self._resolver.ask(name, "CNAME")).security
        row.update(
            canonical_name=canonical,
            canonical_dnssec=alias_security,
            addresses=addresses,
            addresses_dnssec=DnsSecurity.ERROR if failed else security,
            mx_state=check_mx_host(
                name,
                addresses=addresses,
                lookup_failed=failed,
                all_special=bool(addresses) and all(map(self.special, addresses)),
                canonical=canonical,
            ),
        )
        if addresses:
            bases = tlsa_bases(name, canonical, host_security=security, alias_security=alias_security)
            details += await self._tlsa(bases, row)
        row["detail"] = "; ".join(details) or None
        row["resolved_at"] = _now()
        return {**row, **host_verdict(row)}

    async def _tlsa(self, bases: Iterable[str], row: Row) -> list[str]:
        """Ask the candidates in turn; the first with a secure RRset is the TLSA base domain (RFC 7672 §2.2.3).

        Gives what is to be said of a question that failed.
        """
        for base in bases:
            answer = await self._resolver.ask(tlsa_name(base, self._smtp_port), "TLSA")
            if answer.security is DnsSecurity.NOT_TESTED:  # too long to be a name: it has no records
                continue
            is_secure = answer.security is DnsSecurity.SECURE
            # unsigned records of one candidate stay on record where the next one has none
            if (
                answer.failed
                or row["tlsa_dnssec"] is None
                or (answer.records and (is_secure or not row["tlsa"]))
            ):
                row.update(tlsa=tuple(sorted(answer.records)), tlsa_dnssec=answer.security)
                row["tlsa_base"] = base if answer.records else None
            if answer.failed:
                return [f"TLSA: {answer.detail or answer.status}"]
            if answer.records and is_secure:
                break
        return []


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _in_order(addresses: Iterable[str]) -> list[str]:
    """Sort addresses: a resolver turns them about, and two scans of the same host ought to look the same."""
    return sorted(addresses, key=lambda address: ipaddress.ip_address(address).packed)


def _weakest(states: Sequence[DnsSecurity]) -> DnsSecurity:
    order = (DnsSecurity.NOT_TESTED, DnsSecurity.ERROR, DnsSecurity.INSECURE, DnsSecurity.SECURE)
    return min(states, key=order.index)


def _failed_like(answer: DnsAnswer, detail: str | None) -> DnsAnswer:
    """Give the answer of a domain whose address lookup failed: whether it takes mail could not be told."""
    return DnsAnswer(answer.name, answer.rdtype, DnsStatus.SERVFAIL, DnsSecurity.ERROR, detail=detail or "")
