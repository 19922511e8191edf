"""The work of a scan: look domains and hosts up, then contact addresses and policy hosts as the manners allow."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from rtls_analysis.outcomes import (
    DnsSecurity,
    DnsStatus,
    MxState,
    Purpose,
    SessionOutcome,
    StsPolicyState,
    StsRecordState,
    TlsrptState,
)
from rtls_analysis.progress import progress_bar
from rtls_analysis.providers import provider_of
from rtls_analysis.scanner.addresses import AllowedNetworks, families, special_reason
from rtls_analysis.scanner.options import Options
from rtls_analysis.scanner.policy_fetch import fetch_policy
from rtls_analysis.scanner.politeness import Job, OptOut, Scheduler
from rtls_analysis.scanner.probe import ProbeTarget, not_contacted, probe
from rtls_analysis.scanner.resolver import Resolver
from rtls_analysis.scanner.smtp_client import Limits
from rtls_analysis.scanner.targets import Target
from rtls_analysis.scanner.tls import lax_context
from rtls_analysis.standards.certificates import Roots, describe_certificate
from rtls_analysis.standards.dane import tlsa_bases, tlsa_name
from rtls_analysis.standards.dns_answer import DnsAnswer
from rtls_analysis.standards.mta_sts import check_sts_record
from rtls_analysis.standards.mx import check_mx, check_mx_host
from rtls_analysis.standards.names import fold_host, is_address
from rtls_analysis.standards.tlsrpt import check_tlsrpt_record
from rtls_analysis.store import LOOKUPS, SnapshotWriter
from rtls_analysis.verdicts import Judge

_AT_ONCE_IN_DNS = 500  # domains looked up at the same time; the resolver bounds the questions in flight
_PUSHED_BACK = frozenset({SessionOutcome.RATE_LIMITED, SessionOutcome.GREYLISTED, SessionOutcome.BLOCKED})


class Engine:
    """Fetches evidence and stores it row by row; what is stored already is not fetched again."""

    def __init__(
        self,
        options: Options,
        resolver: Resolver,
        writer: SnapshotWriter,
        roots: Roots,
        *,
        progress: bool,
    ) -> None:
        self.options = options
        self.resolver = resolver
        self.writer = writer
        self.roots = roots
        self.progress = progress
        self.allowed = AllowedNetworks(options.allow_special)
        self.opted_out = OptOut(options.opt_out)
        self.families = families()
        times = options.timeouts
        self.limits = Limits(
            connect=times.connect,
            greeting=times.greeting,
            reply=times.reply,
            handshake=times.handshake,
            session=times.session,
        )
        self.context: ssl.SSLContext = lax_context()
        self.certificates: dict[str, bytes] = {}
        self.judge = Judge(options.rules, roots, self.certificates.__getitem__)
        self.hosts: dict[str, dict[str, Any]] = {}
        self.lookups: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, dict[str, Any]] = {}
        self._host_tasks: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._probed: set[tuple[str, str]] = set()
        self._load()

    def _load(self) -> None:
        """Take up what an earlier run of the same scan stored."""
        for row in self.writer.stored("certificates"):
            self.certificates[row["sha256"]] = row["der"]
        for row in self.writer.stored("hosts"):
            self.hosts[row["mx_host"]] = row
        for row in self.writer.stored("sessions", ["mx_host", "address"]):
            self._probed.add((row["mx_host"], row["address"]))
        for row in self.writer.stored(LOOKUPS):
            held = self.policies if row.pop("kind") == "policy" else self.lookups
            held[row["domain"]] = row

    async def run(self, targets: Iterable[Target]) -> None:
        """Do all that is left to do for these domains."""
        await self._resolve([target for target in targets if target.domain not in self.lookups])
        await self._contact()

    # -- looking up ------------------------------------------------------------------------------------------

    async def _resolve(self, targets: list[Target]) -> None:
        todo = iter(targets)
        bar = progress_bar(total=len(targets), label="Looking up", unit="domain", shown=self.progress)

        async def work() -> None:
            for target in todo:
                row = await self._look_up(target)
                self.lookups[target.domain] = row
                self.writer.append(LOOKUPS, {"kind": "domain", **row})
                bar.update()

        with bar:
            await _all_or_none(work() for _ in range(min(_AT_ONCE_IN_DNS, len(targets))))

    async def _look_up(self, target: Target) -> dict[str, Any]:
        """Look a domain up: MX, the MTA-STS and TLSRPT records, and each MX host."""
        row: dict[str, Any] = {"domain": target.domain, "rank": target.rank}
        if target.problem or self.opted_out.names(target.domain):
            row.update(
                mx_state=MxState.BAD_NAME if target.problem else None,
                mx_dnssec=DnsSecurity.NOT_TESTED,
                mx_canonical=target.domain,
                mx=[],
                sts_record=StsRecordState.NOT_TESTED,
                tlsrpt=TlsrptState.NOT_TESTED,
                detail=target.problem or "opted out, not looked up",
                scanned_at=dt.datetime.now(dt.UTC).isoformat(),
            )
            return row
        answer = await self.resolver.ask(target.domain, "MX")
        has_address: bool | None = None
        check = check_mx(target.domain, answer, has_address=None)
        if check.state in (MxState.IMPLICIT_MX, MxState.NO_MAIL):
            host = await self._host(target.domain, keep=False)
            failed = host["mx_state"] == MxState.DNS_FAILURE
            has_address = None if failed else bool(host["addresses"])
            check = check_mx(target.domain, answer, has_address=has_address)
            if check.state is MxState.IMPLICIT_MX and failed:
                check = check_mx(target.domain, _failed_like(answer, host["detail"]), has_address=None)
        details = [check.detail]
        for record in check.hosts:
            await self._host(record.host)
        row.update(
            mx_state=check.state,
            mx_dnssec=answer.security,
            mx_canonical=answer.canonical or target.domain,
            mx=[[record.preference, record.host] for record in check.hosts],
        )
        sts = await self.resolver.ask(f"_mta-sts.{target.domain}", "TXT")
        if sts.failed:
            row.update(sts_record=StsRecordState.DNS_FAILURE, sts_texts=[], sts_policy_id=None)
            details.append(f"_mta-sts: {sts.detail or sts.status}")
        else:
            record_check = check_sts_record(sts.records)
            row.update(sts_record=record_check.state, sts_policy_id=record_check.policy_id)
            row["sts_texts"] = list(sts.records)
            details.append(f"_mta-sts: {record_check.detail}" if record_check.detail else "")
        tlsrpt = await self.resolver.ask(f"_smtp._tls.{target.domain}", "TXT")
        if tlsrpt.failed:
            row.update(tlsrpt=TlsrptState.DNS_FAILURE, tlsrpt_texts=[])
            details.append(f"_smtp._tls: {tlsrpt.detail or tlsrpt.status}")
        else:
            report_check = check_tlsrpt_record(tlsrpt.records)
            row.update(tlsrpt=report_check.state, tlsrpt_texts=list(tlsrpt.records))
            row["tlsrpt_rua"] = list(report_check.rua) if report_check.state is TlsrptState.VALID else None
            details.append(f"_smtp._tls: {report_check.detail}" if report_check.detail else "")
        row["detail"] = "; ".join(detail for detail in details if detail) or None
        row["scanned_at"] = dt.datetime.now(dt.UTC).isoformat()
        return row

    async def _host(self, name: str, *, keep: bool = True) -> dict[str, Any]:
        """Look a host up, once per run however many domains name it; `keep` stores its row."""
        row = self.hosts.get(name)
        if row is None:
            if (task := self._host_tasks.get(name)) is None:
                task = self._host_tasks[name] = asyncio.ensure_future(self._look_up_host(name))
            row = await asyncio.shield(task)
            self._host_tasks.pop(name, None)
        if name not in self.hosts and (keep or row["addresses"]):
            self.hosts[name] = row
            self.writer.append("hosts", row)
        return row

    async def _look_up_host(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = {
            "mx_host": name,
            "canonical_name": name,
            "addresses": (),
            "provider": provider_of(name),
        }
        if is_address(name):
            row.update(
                mx_state=check_mx_host(
                    name, addresses=(), lookup_failed=False, all_special=False, canonical=name
                )
            )
            row.update(addresses_dnssec=DnsSecurity.NOT_TESTED, tlsa=(), tlsa_dnssec=None)
            row["resolved_at"] = dt.datetime.now(dt.UTC)
            return {**row, **self.judge.host(row)}
        answers = [await self.resolver.ask(name, "A"), await self.resolver.ask(name, "AAAA")]
        addresses = tuple(address for answer in answers for address in answer.records)
        details = [
            f"{answer.rdtype}: {answer.detail or answer.status}" for answer in answers if answer.failed
        ]
        heard = [answer for answer in answers if answer.records] or answers
        failed = not addresses and bool(details)
        security = _weakest(answer.security for answer in heard)
        aliased = next((answer for answer in heard if answer.aliases), None)
        canonical = fold_host(aliased.canonical) if aliased is not None else name
        alias_security: DnsSecurity | None = None
        if aliased is not None:
            alias_security = security
            if security is DnsSecurity.INSECURE:  # the alias may be signed though its target is not
                alias_security = (await self.resolver.ask(name, "CNAME")).security
        special = {address: self.special(address) for address in addresses}
        row.update(
            canonical_name=canonical,
            canonical_dnssec=alias_security,
            addresses=addresses,
            addresses_dnssec=DnsSecurity.ERROR if failed else security,
            mx_state=check_mx_host(
                name,
                addresses=addresses,
                lookup_failed=failed,
                all_special=bool(addresses) and all(special.values()),
                canonical=canonical,
            ),
        )
        bases = (
            ()
            if failed or not addresses
            else tlsa_bases(name, canonical, host_security=security, alias_security=alias_security)
        )
        row.update(await self._tlsa(bases))
        details += [row.pop("tlsa_detail")] if row.get("tlsa_detail") else []
        row.pop("tlsa_detail", None)
        row["detail"] = "; ".join(details) or None
        row["resolved_at"] = dt.datetime.now(dt.UTC)
        return {**row, **self.judge.host(row)}

    async def _tlsa(self, bases: Iterable[str]) -> dict[str, Any]:
        """Ask the candidates in turn; the first with a secure RRset is the TLSA base domain (RFC 7672 §2.2.3)."""
        held: dict[str, Any] | None = None  # unsigned records, or the denial
        for base in bases:
            answer = await self.resolver.ask(tlsa_name(base, self.options.smtp_port), "TLSA")
            found = {
                "tlsa": answer.records,
                "tlsa_base": base if answer.records else None,
                "tlsa_dnssec": answer.security,
                "tlsa_detail": f"TLSA: {answer.detail or answer.status}" if answer.failed else "",
            }
            if answer.failed or (answer.records and answer.security is DnsSecurity.SECURE):
                return found
            if held is None or (answer.records and not held["tlsa"]):
                held = found
        return held or {"tlsa": (), "tlsa_base": None, "tlsa_dnssec": None, "tlsa_detail": ""}

    def special(self, address: str) -> str:
        """Say why an address must not be contacted; empty where it may be."""
        if self.allowed.allows(address):
            return ""
        return special_reason(address)

    # -- contacting ------------------------------------------------------------------------------------------

    def _pairs(self) -> Iterator[ProbeTarget]:
        """List the (MX host, address) pairs that were not probed yet, once each however many domains share them."""
        wanted = {host for row in self.lookups.values() for _preference, host in row["mx"]}
        for name in sorted(wanted):
            host = self.hosts[name]
            sni = (host["tlsa_base"] if host["tlsa_dnssec"] == DnsSecurity.SECURE else None) or name
            for address in host["addresses"]:
                if (name, address) not in self._probed:
                    yield ProbeTarget(name, address, self.options.smtp_port, sni)

    async def _contact(self) -> None:
        jobs: list[Job] = []
        for target in self._pairs():
            if (row := self._left_alone(target)) is not None:
                self._store_session(row)
                continue
            provider = self.hosts[target.mx_host]["provider"]
            jobs.append(Job(target.address, provider, target, own=self.allowed.allows(target.address)))
        for domain, row in self.lookups.items():
            if row["sts_record"] == StsRecordState.VALID and domain not in self.policies:
                job = await self._policy_job(domain)
                if job is not None:
                    jobs.append(job)
        random.Random(self.options.seed).shuffle(jobs)  # so that one provider's hosts are not asked in a row
        scheduler = Scheduler(self.options.manners)
        for job in jobs:
            scheduler.add(job)
        bar = progress_bar(total=len(jobs), label="Probing", unit="address", shown=self.progress)
        wake = asyncio.Event()

        async def work() -> None:
            while (job := scheduler.take(time.monotonic())) is not None:
                if isinstance(job, float):
                    wake.clear()
                    wait = None if job == float("inf") else job
                    if wait is None and not scheduler.active:
                        raise RuntimeError("the scheduler waits for nothing")
                    try:
                        async with asyncio.timeout(wait):
                            await wake.wait()
                    except TimeoutError:
                        pass
                    continue
                pushed_back = False
                try:
                    pushed_back, store = await self._do(job)
                finally:
                    again = scheduler.done(job, time.monotonic(), pushed_back=pushed_back)
                    wake.set()
                if not again:
                    store()
                    bar.update()

        with bar:
            await _all_or_none(work() for _ in range(min(self.options.concurrency, len(jobs))))

    def _left_alone(self, target: ProbeTarget) -> dict[str, Any] | None:
        """Give the row of a pair that is not contacted, or None where it is."""
        if reason := self.special(target.address):
            return not_contacted(target, SessionOutcome.ADDRESS_REFUSED, f"special address: {reason}")
        if self.opted_out.names(target.mx_host) or self.opted_out.covers(target.address):
            return not_contacted(target, SessionOutcome.OPTED_OUT, "opted out")
        if not self.allowed.allows(target.address):
            is_v6 = ":" in target.address
            if not self.families[is_v6]:
                family = "IPv6" if is_v6 else "IPv4"
                return not_contacted(target, SessionOutcome.FAMILY_UNAVAILABLE, f"no {family} here")
        return None

    async def _do(self, job: Job) -> tuple[bool, Callable[[], None]]:
        """Make one connection; gives whether the server pushed back, and how to store what was seen."""
        if isinstance(job.payload, ProbeTarget):
            return await self._probe(job, job.payload)
        return await self._fetch(job, *job.payload)

    async def _probe(self, job: Job, target: ProbeTarget) -> tuple[bool, Callable[[], None]]:
        row, chain = await probe(
            target, ehlo_name=self.options.ehlo_name, limits=self.limits, context=self.context
        )
        row["attempts"] = job.attempts
        self._attempt(job, Purpose.PROBE, row["started_at"], row["outcome"], mx_host=target.mx_host)

        def store() -> None:
            self._keep_certificates(chain)
            self._store_session(row)

        return row["outcome"] in _PUSHED_BACK, store

    def _store_session(self, row: dict[str, Any]) -> None:
        row.update(self.judge.session(row, self.hosts[row["mx_host"]]))
        self.writer.append("sessions", row)
        self._probed.add((row["mx_host"], row["address"]))

    def _keep_certificates(self, chain: Iterable[bytes]) -> None:
        for der in chain:
            certificate = describe_certificate(der)
            if certificate.sha256 in self.certificates:
                continue
            self.certificates[certificate.sha256] = der
            row = {
                name: getattr(certificate, name)
                for name in ("sha256", "der", "subject", "issuer", "dns_names")
            }
            row.update(
                not_before=certificate.not_before,
                not_after=certificate.not_after,
                key=certificate.key or None,
            )
            self.writer.append("certificates", row)

    def _attempt(
        self, job: Job, purpose: Purpose, started_at: dt.datetime, outcome: str, **more: Any
    ) -> None:
        self.writer.append(
            "attempts",
            {
                "purpose": purpose,
                "address": job.address,
                "port": self.options.smtp_port if purpose is Purpose.PROBE else self.options.https_port,
                "provider": job.provider,
                "started_at": started_at,
                "ended_at": dt.datetime.now(dt.UTC),
                "outcome": outcome,
                **more,
            },
        )

    # -- MTA-STS policies ------------------------------------------------------------------------------------

    async def _policy_job(self, domain: str) -> Job | None:
        """Look the policy host up; None where there is nothing to contact, which is then on record."""
        host = f"mta-sts.{domain}"
        answers = [await self.resolver.ask(host, "A"), await self.resolver.ask(host, "AAAA")]
        addresses = [address for answer in answers for address in answer.records]
        addresses = [address for address in addresses if not self.opted_out.covers(address)]
        reasons = {address: self.special(address) for address in addresses}
        usable = [
            address
            for address in addresses
            if not reasons[address] and (self.allowed.allows(address) or self.families[":" in address])
        ]
        if usable:
            canonical = next((answer.canonical for answer in answers if answer.canonical), host)
            own = all(self.allowed.allows(address) for address in usable)
            return Job(usable[0], provider_of(fold_host(canonical)), (domain, usable), own=own)
        if addresses:
            refused = [f"{address}: {reason}" for address, reason in reasons.items() if reason]
            if refused:
                self._store_policy(
                    domain, StsPolicyState.ADDRESS_REFUSED, "special address " + ", ".join(refused)
                )
            else:
                self._store_policy(
                    domain, StsPolicyState.NOT_TESTED, "no route to the policy host's address family"
                )
        elif any(answer.failed for answer in answers):
            failed = next(answer for answer in answers if answer.failed)
            self._store_policy(
                domain, StsPolicyState.DNS_FAILURE, f"{host}: {failed.detail or failed.status}"
            )
        else:
            self._store_policy(domain, StsPolicyState.NO_ADDRESS, f"{host} has no address")
        return None

    def _store_policy(self, domain: str, state: StsPolicyState | None, detail: str, **evidence: Any) -> None:
        row = {"domain": domain, "sts_policy": state, "sts_detail": detail or None, **evidence}
        self.policies[domain] = row
        self.writer.append(LOOKUPS, {"kind": "policy", **row})

    async def _fetch(self, job: Job, domain: str, addresses: list[str]) -> tuple[bool, Callable[[], None]]:
        host = f"mta-sts.{domain}"
        fetch = await fetch_policy(
            host,
            addresses,
            roots=self.roots,
            port=self.options.https_port,
            deadline=self.options.timeouts.policy,
            user_agent=f"rtls_analysis ({self.options.contact})",
        )
        for made in fetch.attempts:
            self._attempt(
                job,
                Purpose.POLICY,
                made.started_at,
                made.outcome,
                ended_at=made.ended_at,
                address=made.address,
                domain=domain,
            )

        def store() -> None:
            self._keep_certificates(fetch.chain)
            self._store_policy(
                domain,
                fetch.state,
                fetch.detail,
                sts_http_status=fetch.http_status if fetch.state is None else None,
                sts_content_type=fetch.content_type,
                sts_policy_bytes=None if fetch.body is None else len(fetch.body),
                sts_policy_text=None if fetch.body is None else fetch.body.decode("utf-8", "replace"),
                sts_address=fetch.address,
                sts_chain_sha256=[describe_certificate(der).sha256 for der in fetch.chain],
            )

        return False, store

    # -- rows for the tables ---------------------------------------------------------------------------------

    def domain_rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Judge every domain whose addresses are all done: the rows of `domains` and of `mx`."""
        sessions: dict[str, list[dict[str, Any]]] = {}
        for row in self.writer.stored("sessions"):
            sessions.setdefault(row["mx_host"], []).append(row)
        domains: list[dict[str, Any]] = []
        mx_rows: list[dict[str, Any]] = []
        for lookup in self.lookups.values():
            if not self._is_done(lookup):
                continue
            domain, mx = self._rows_of(lookup)
            result = self.judge.domain(domain, mx, self.hosts, sessions)
            domains.append({**domain, **result.domain})
            mx_rows += [{**row, **columns} for row, columns in zip(mx, result.mx, strict=True)]
        return domains, mx_rows

    def _is_done(self, lookup: Mapping[str, Any]) -> bool:
        if lookup["sts_record"] == StsRecordState.VALID and lookup["domain"] not in self.policies:
            return False
        return all(
            (host, address) in self._probed
            for _preference, host in lookup["mx"]
            for address in self.hosts[host]["addresses"]
        )

    def _rows_of(self, lookup: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Put what was looked up into the columns of `domains` and `mx`, verdicts aside."""
        row = {**lookup, **self.policies.get(lookup["domain"], {})}
        scanned_at = dt.datetime.fromisoformat(row["scanned_at"])
        row["scanned_at"] = scanned_at
        mx = [
            {
                "domain": row["domain"],
                "preference": preference,
                "mx_host": host,
                "mx_state": self.hosts[host]["mx_state"],
                "provider": self.hosts[host]["provider"],
            }
            for preference, host in row.pop("mx")
        ]
        row["mx_hosts"] = len(mx)
        row["addresses"] = len(
            {address for line in mx for address in self.hosts[line["mx_host"]]["addresses"]}
        )
        row["provider"] = mx[0]["provider"] if mx else None
        return row, mx


def _weakest(states: Iterable[DnsSecurity]) -> DnsSecurity:
    order = (DnsSecurity.NOT_TESTED, DnsSecurity.ERROR, DnsSecurity.INSECURE, DnsSecurity.SECURE)
    return min(states, key=order.index)


def _failed_like(answer: DnsAnswer, detail: str | None) -> DnsAnswer:
    """Give the answer of a domain whose address lookup failed: whether it takes mail could not be told."""
    return DnsAnswer(answer.name, answer.rdtype, DnsStatus.SERVFAIL, DnsSecurity.ERROR, detail=detail or "")


async def _all_or_none(work: Iterable[Awaitable[None]]) -> None:
    """Run workers together; the first failure, or a cancellation, ends them all before it is raised."""
    tasks = [asyncio.ensure_future(item) for item in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
