"""A whole scan: from names and options to a snapshot that says how it was made."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtls_analysis.frames import Cluster
from rtls_analysis.scanner.addresses import AllowedNetworks
from rtls_analysis.scanner.cluster import ClusterCrew, ask_posts, describe_posts
from rtls_analysis.scanner.contacts import ScanStopped
from rtls_analysis.scanner.descriptors import raise_limit
from rtls_analysis.scanner.engine import Engine
from rtls_analysis.scanner.loop import run_sync
from rtls_analysis.scanner.manifest import describe_circumstances, make_manifest, note_run, scan_identity
from rtls_analysis.scanner.options import Manners, Options, ScanProblem, Timeouts, make_options
from rtls_analysis.scanner.politeness import OptOut
from rtls_analysis.scanner.reach import check_responder
from rtls_analysis.scanner.resolver import Resolver, ResolverProblem
from rtls_analysis.scanner.socks import ProxyProblem, parse_proxy
from rtls_analysis.scanner.targets import ListProblem, Target, make_targets, read_list
from rtls_analysis.scanner.vantages import Vantage, describe_vantage
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.standards.requiretls import Rules
from rtls_analysis.storage import Folder, open_folder
from rtls_analysis.store import (
    Snapshot,
    SnapshotWriter,
    StoreProblem,
    is_begun,
    open_snapshot,
    read_manifest,
)
from rtls_analysis.verdicts import rules_record

Domains = Iterable[str | tuple[str, int | None]] | str | os.PathLike[str]


class ScanInterrupted(KeyboardInterrupt):
    """The user stopped a scan; `snapshot` holds what was done until then, and what was stored is kept."""

    def __init__(self, snapshot: Snapshot, message: str) -> None:
        super().__init__(message)
        self.snapshot = snapshot


async def scan_async(
    domains: Domains,
    out: str | os.PathLike[str] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    client: Any = None,
    plan_only: bool = False,
    progress: bool = True,
    **options: Any,
) -> Snapshot:
    """Scan domains from async code: `scan` without waiting, with the same parameters and result.

    A cancellation stores what was done before it is passed on.
    """
    given = make_options(options, config=Path(config) if config is not None else None)
    folder = open_folder(out) if out is not None else None
    return await _scan(_targets(domains), folder, given, _Show(progress, plan_only), client)


def scan(
    domains: Domains,
    out: str | os.PathLike[str] | None = None,
    *,
    ehlo_name: str | None = None,
    contact: str | None = None,
    resolver: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    smtp_port: int | None = None,
    https_port: int | None = None,
    concurrency: int | None = None,
    workers: int | None = None,
    proxy: str | None = None,
    sample_shared: int | None = None,
    responder: str | None = None,
    allow_special: Sequence[str] | None = None,
    opt_out: Sequence[str] | None = None,
    timeouts: Timeouts | Mapping[str, float] | None = None,
    manners: Manners | Mapping[str, Any] | None = None,
    rules: Rules | Mapping[str, Any] | None = None,
    seed: int | None = None,
    config: str | os.PathLike[str] | None = None,
    vantage: str | None = None,
    source: Sequence[str] | None = None,
    client: Any = None,
    plan_only: bool = False,
    progress: bool = True,
) -> Snapshot:
    """Scan domains: who could receive REQUIRETLS mail, and what stops the rest.

    Each MX host is greeted at each of its addresses once (EHLO, STARTTLS, EHLO, QUIT: no mail is sent), however
    many domains share it. Works in scripts and in a notebook's running loop; an interrupt keeps what was done.

    Parameters
    ----------
    domains
        Names in any form (U-labels, upper case, a final dot), pairs of name and rank, or the path of a list as a
        `Path`; a text is one domain.
    out
        Directory for the snapshot, or an address such as ``s3://BUCKET/NAME``. With the same one again the scan is
        resumed. Without one the tables stay in memory.
    ehlo_name, contact
        Who scans; see `configure`. There is no default.
    resolver
        ``"127.0.0.1:5353"``, or ``"tls://ADDRESS:PORT#NAME"`` for DNS over TLS; by default the first one of
        ``/etc/resolv.conf``. DNSSEC is believed from a validating resolver on loopback or over TLS only; from any
        other, DNSSEC and DANE are ``not_tested``.
    ca_file
        PEM file of root certificates, in place of the built-in ones, for the policy hosts too.
    smtp_port, https_port
        Ports of the MX hosts (25) and of the MTA-STS policy hosts (443).
    concurrency
        Connections at once (50).
    workers
        Processes that do the work: by default one for each core where there are thousands of domains, else this
        one alone.
    proxy
        ``"socks5://HOST:PORT"``: connections go through it, for a place where port 25 is open. Names are looked up
        here.
    sample_shared
        Of an address that stands behind more MX hosts than this, probe a sample of so many names, drawn by the
        seed; the others are ``not_sampled``.
    responder
        ``"ADDRESS"`` or ``"ADDRESS:PORT"`` of a mail server that is known to answer: where it takes no connection,
        port 25 is closed on the way out, and the scan does not begin.
    allow_special
        Special addresses or networks that may be contacted, such as ``"127.0.0.0/8"`` for a lab: your own.
    opt_out
        Domains, MX hosts and networks of those who asked to be left alone.
    timeouts, manners, rules
        Records, or mappings of their fields: `Timeouts`, `Manners`, and the reading of the RFCs (see `judge`).
    seed
        Decides the order in which addresses are contacted.
    config
        A TOML file with any of these.
    vantage
        Name of the place from which this scan is made, for the column of that name; by default the EHLO name. With
        ``"each"``, and workers in several places, every target is contacted from each of them.
    source
        Own addresses from which connections are made, one IPv4 and one IPv6 at most.
    client
        A Dask client, or the address of a scheduler: the workers of that cluster do the work, and `out` must be
        where all of them see it. Each may name its own vantage by its environment (``RTLS_VANTAGE``,
        ``RTLS_EHLO_NAME``, ``RTLS_CONTACT``, ``RTLS_SOURCE``). The manners hold over all of them together.
    plan_only
        Look everything up, make the plan, and stop before the first contact; `manifest["plan"]` holds it.
    progress
        Show progress bars, and the plan before the first contact.

    Returns
    -------
    Snapshot
        The tables of the scan; `rtls.open_snapshot` opens them again.

    Raises
    ------
    ScanProblem, ListProblem, StoreProblem, ResolverProblem
        What was asked for cannot be done; the message says what would do. What a remote does is never an error.
    ScanStopped
        This machine or its network cannot go on; what was done is kept, and the same call resumes.
    ScanInterrupted
        On Ctrl-C; its `snapshot` holds what was done.
    ClusterProblem
        There is no such scheduler, or no worker.
    """
    folder = open_folder(out) if out is not None else None
    holder: list[Snapshot] = []
    targets = _targets(domains)
    options = make_options(
        {
            "ehlo_name": ehlo_name,
            "contact": contact,
            "resolver": resolver,
            "ca_file": ca_file,
            "smtp_port": smtp_port,
            "https_port": https_port,
            "concurrency": concurrency,
            "workers": workers,
            "proxy": proxy,
            "sample_shared": sample_shared,
            "responder": responder,
            "allow_special": allow_special,
            "opt_out": opt_out,
            "timeouts": timeouts,
            "manners": manners,
            "rules": rules,
            "seed": seed,
            "vantage": vantage,
            "source": source,
        },
        config=Path(config) if config is not None else None,
    )
    show = _Show(progress, plan_only)
    try:
        return run_sync(_scan(targets, folder, options, show, client, holder))
    except KeyboardInterrupt:
        if not holder:
            raise
        done = len(holder[0].domains)
        where = f"; the same call with out={folder.address!r} resumes" if folder is not None else ""
        message = f"interrupted after {done:,} of {len(targets):,} domains{where}"
        raise ScanInterrupted(holder[0], message) from None


def _targets(domains: Domains) -> list[Target]:
    if isinstance(domains, os.PathLike):
        return read_list(Path(domains))
    if isinstance(domains, str):
        if Path(domains).is_file():
            raise ListProblem(
                f"{domains!r} is a file here; give Path({domains!r}) for the list in it, or [{domains!r}] for a domain"
            )
        domains = [domains]
    targets = make_targets(domains)
    if not targets:
        raise ListProblem("no domain to scan: the list is empty; give at least one name")
    return targets


@dataclass(frozen=True, slots=True)
class _Show:
    """What the user wants to see of a scan."""

    progress: bool
    plan_only: bool

    def announce(self, plan: str) -> None:
        """Show the plan before the first contact."""
        if self.progress and not self.plan_only:
            print(plan, file=sys.stderr)


async def _scan(
    targets: list[Target],
    out: Folder | None,
    options: Options,
    show: _Show,
    client: Any = None,
    holder: list[Snapshot] | None = None,
) -> Snapshot:
    cluster = await asyncio.to_thread(Cluster, client) if client is not None else None
    try:
        return await _scan_with(cluster, targets, out, options, show, holder)
    finally:
        if cluster is not None:
            await asyncio.to_thread(cluster.close)


async def _scan_with(
    cluster: Cluster | None,
    targets: list[Target],
    out: Folder | None,
    options: Options,
    show: _Show,
    holder: list[Snapshot] | None,
) -> Snapshot:
    _check(options)
    raise_limit()
    roots = _roots(options)
    places = await _places(options, cluster)
    identity = scan_identity(targets, options, roots, places)
    if out is not None and _is_finished(out, identity, options.rules):
        return open_snapshot(out)
    names = [target.domain for target in targets[:3] if not target.problem]
    announce = show.announce if len(targets) > 1 else lambda plan: None
    async with Resolver(options.resolver, ca_file=options.ca_file) as resolver:
        if cluster is None:
            check = await resolver.check(names)
            await check_responder(options)
            circumstances = describe_circumstances(options, resolver.server, check)
            manifest = make_manifest(identity, targets, options, roots, circumstances)
            writer, crew = SnapshotWriter(out, manifest, roots.pem), None
            note_run(writer.manifest, circumstances, resumed=writer.resumed)
        else:
            writer = SnapshotWriter(out, make_manifest(identity, targets, options, roots, {}), roots.pem)
            crew = await _gather(cluster, writer, names, options)
            announce(cluster.dashboard)
        engine = Engine(
            options, resolver, writer, roots, progress=show.progress, announce=announce, cluster=crew
        )
        try:
            await engine.run(targets, plan_only=show.plan_only)
            if show.plan_only:
                return _finish(writer, engine, "planned")
            return _finish(writer, engine, "complete", targets)
        except (ScanStopped, ResolverProblem, OSError) as problem:
            told = _in_a_line(problem, writer)
            told.snapshot = _keep(writer, engine, "stopped")
            raise told from problem
        except BaseException:
            snapshot = _keep(writer, engine, "interrupted")
            if holder is not None and snapshot is not None:
                holder.append(snapshot)
            raise


async def _gather(
    cluster: Cluster, writer: SnapshotWriter, names: Sequence[str], options: Options
) -> ClusterCrew:
    """Bring the workers of a cluster together that are to write to a snapshot, and note this run in its manifest."""
    try:
        posts = await ask_posts(cluster, options, names, writer.folder)
    except BaseException:
        writer.abandon()
        raise
    circumstances = describe_posts(options, list(posts.values()))
    if not writer.resumed:
        writer.manifest.update(circumstances)
    note_run(writer.manifest, circumstances, resumed=writer.resumed)
    writer.write_manifest()
    return ClusterCrew(cluster, options, writer, posts)


async def _places(options: Options, cluster: Cluster | None) -> list[Vantage]:
    """Ask the workers of a cluster who they are; those of other versions would scan otherwise."""
    if cluster is None:
        return []
    workers = await asyncio.to_thread(lambda: cluster.workers)
    found = await asyncio.to_thread(cluster.on_each, describe_vantage, options, workers=workers)
    for worker, vantage in found.items():
        if vantage.version != (own := version("rtls_analysis")):
            raise ScanProblem(
                f"the worker {worker} has rtls_analysis {vantage.version}, this is {own}; give both one"
            )
    return list(found.values())


def _check(options: Options) -> None:
    """Raise where an option cannot be made sense of, before anything is done."""
    try:
        AllowedNetworks(options.allow_special)
        OptOut(options.opt_out)
        if options.proxy is not None:
            parse_proxy(options.proxy)
    except (ValueError, ProxyProblem) as problem:
        raise ScanProblem(str(problem)) from None


def _in_a_line(
    problem: ScanStopped | ResolverProblem | OSError, writer: SnapshotWriter
) -> ScanStopped | ResolverProblem:
    """Give a problem that ended a scan in a form that says what would do."""
    if not isinstance(problem, OSError):
        return problem
    where = f"cannot write to {writer.folder}" if problem.errno in _DISK else "the scan cannot go on here"
    reason = (problem.strerror or str(problem)).lower()
    return ScanStopped(f"{where}: {reason}; mend that and run the same scan again: what was done is kept")


_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG})


def _keep(writer: SnapshotWriter, engine: Engine, state: str) -> Snapshot | None:
    """Put in order what can be put in order; the rows are on the disk whatever comes of it."""
    try:
        return _finish(writer, engine, state)
    except OSError:
        return None
    finally:
        writer.abandon()


def _finish(writer: SnapshotWriter, engine: Engine, state: str, targets: Sequence[Target] = ()) -> Snapshot:
    """Write the judged tables of all that is done, of these targets at least, and let go of the directory.

    Raises
    ------
    ScanStopped
        Not all of the targets are there: a file system that does not show what was written to it.
    """
    writer.fold()
    judged, wanted = engine.judge(), len({target.domain for target in targets})
    if judged < wanted:
        raise ScanStopped(
            f"{writer.folder} shows {judged:,} of {wanted:,} domains that are done; run the same scan again: what is "
            "missing is done again"
        )
    writer.manifest["state"] = state
    writer.manifest["ended_at"] = dt.datetime.now(dt.UTC).isoformat()
    writer.close()
    if state == "complete":
        writer.drop_work()
    return writer.snapshot()


def _is_finished(out: Folder, identity: Mapping[str, Any], rules: Rules) -> bool:
    """Whether a directory holds this scan, done to its end.

    Raises
    ------
    StoreProblem
        It holds this scan, done or not, judged by other rules.
    """
    if not is_begun(out):
        return False
    manifest = read_manifest(out)
    if manifest.get("scan") != identity:
        return False
    asked = rules_record(rules)
    held = {**asked, **manifest.get("rules", {})}
    if differ := [name.replace("_", " ") for name in asked if asked[name] != held[name]]:
        raise StoreProblem(
            f"{out} holds this scan under other rules (different {', '.join(differ)}); run it under those it began "
            "with, and have rtls.judge give the verdicts under others, or give a new directory"
        )
    return bool(manifest.get("state") == "complete")


def _roots(options: Options) -> Roots:
    if options.ca_file is None:
        return Roots.builtin()
    try:
        return Roots.from_pem(options.ca_file.read_bytes())
    except OSError as error:
        raise ScanProblem(f"cannot read the CA file {options.ca_file}: {error.strerror}") from None
    except ValueError as error:
        raise ScanProblem(f"no certificates in the CA file {options.ca_file}: {error}") from None
