"""A share of a scan as a Dask task: it writes journals of its own, and goes on with what is not on record yet.

Who does a share holds its lease, and stops where it is lost. What came of the share is in the folder of the scan, so
that another worker can take over from one that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rtls_analysis.frames import tell, this_task
from rtls_analysis.scanner.descriptors import raise_limit
from rtls_analysis.scanner.introduction import check_introduction
from rtls_analysis.scanner.loop import new_loop
from rtls_analysis.scanner.options import Options
from rtls_analysis.scanner.reach import check_responder
from rtls_analysis.scanner.resolver import Resolver, ResolverCheck
from rtls_analysis.scanner.vantages import Vantage, describe_vantage
from rtls_analysis.scanner.worker import PROGRESS_SECONDS, Work, Worker, left_of, portable
from rtls_analysis.standards.certificates import Roots
from rtls_analysis.storage import Folder, Lease
from rtls_analysis.store import ROOTS, Journals, stored_rows


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker says of the place where it stands: the vantage, its resolver, and how to scan from there."""

    vantage: Vantage
    options: Options
    resolver: str
    check: ResolverCheck
    reaches_out: bool
    sees_folder: bool


def own_options(options: Options) -> tuple[Vantage, Options]:
    """Give this worker's vantage, and the options of a scan as it is made from here.

    What the worker's own environment says of its vantage goes before the options.
    """
    vantage = describe_vantage(options)
    own = replace(
        options,
        vantage=vantage.name,
        ehlo_name=vantage.ehlo_name,
        contact=vantage.contact,
        source=vantage.source,
    )
    return vantage, own


async def check_post(options: Options, folder: Folder) -> list[str]:
    """Say what others would find wrong with the way this worker introduces itself."""
    _vantage, own = own_options(options)
    with _ca_file(own, folder) as ca_file:
        async with Resolver(own.resolver, ca_file=ca_file) as resolver:
            return await check_introduction(own, resolver)


async def look_around(options: Options, names: Sequence[str], folder: Folder, token: str) -> Post:
    """Say what this worker is, as a scan with these options finds it.

    Parameters
    ----------
    options
        Of the scan.
    names
        A few domains of the scan, by which a closed network shows itself.
    folder, token
        Of the scan, and the name of a file in it that shows whether this worker sees it.

    Raises
    ------
    ScanStopped, ScanProblem, ResolverProblem
        One cannot scan from there.
    """
    vantage, own = own_options(options)
    sees_folder = await asyncio.to_thread(folder.exists, token)
    with _ca_file(own, folder if sees_folder else None) as ca_file:
        async with Resolver(own.resolver, ca_file=ca_file) as resolver:
            check = await resolver.check(list(names))
            await check_responder(own)
            return Post(vantage, own, resolver.server, check, resolver.reaches_out, sees_folder)


@contextlib.contextmanager
def _ca_file(options: Options, folder: Folder | None) -> Iterator[Path | None]:
    """Give the roots of a scan as a file, where it was given one: its own may lie on another machine."""
    if options.ca_file is None or folder is None:
        yield None
        return
    with tempfile.NamedTemporaryFile(prefix="rtls-", suffix=".pem") as file:
        file.write(folder.read(ROOTS))
        file.flush()
        yield Path(file.name)


@dataclass(frozen=True, slots=True)
class Order:
    """A share of the work, and how it is to be done; the share itself lies in the scan's folder."""

    folder: Folder
    writer: str
    share: str
    options: Options  # of the worker that is to do it
    trusted: bool  # whether its resolver's word on DNSSEC is believed
    reaches_out: bool
    questions: int
    only_vantage: str | None  # where each target is contacted from each vantage
    topic: str
    number: int


def run_order(order: Order) -> None:
    """Do a share, as a Dask task: what is on record of it is not done again.

    Raises
    ------
    ScanStopped, ResolverProblem, OSError
        It cannot go on from here.
    """
    raise_limit()
    is_wanted = this_task()
    with Lease(order.folder, order.writer) as lease:
        loop = new_loop()
        try:
            loop.run_until_complete(_serve(order, lambda: lease.is_held and is_wanted()))
        finally:
            loop.close()


class NotWanted(Exception):
    """The scan took the share back, or is gone, or this worker is about to end; what was done is on record."""


async def _serve(order: Order, is_wanted: Callable[[], bool]) -> None:
    roots = Roots.from_pem(order.folder.read(ROOTS))
    work: Work = pickle.loads(order.folder.read(order.share))
    stored = partial(stored_rows, order.folder, writer=order.writer)
    work = left_of(work, stored, order.options.manners, order.only_vantage)
    journals = Journals(order.folder, order.writer)
    try:
        with _ca_file(order.options, order.folder) as ca_file:
            asking = Resolver(order.options.resolver, ca_file=ca_file, in_flight=order.questions)
            async with asking as resolver:
                resolver.trusted, resolver.reaches_out = order.trusted, order.reaches_out
                worker = Worker(order.options, journals, resolver, roots)
                await _do(worker, work, order, is_wanted)
    finally:
        journals.close()


async def _do(worker: Worker, work: Work, order: Order, is_wanted: Callable[[], bool]) -> None:
    doing = asyncio.ensure_future(worker.do(work))
    try:
        while not doing.done():
            await asyncio.wait((doing,), timeout=PROGRESS_SECONDS)
            progress = worker.progress()
            if progress.outcomes or progress.in_flight:
                done = {str(outcome): count for outcome, count in progress.outcomes.items()}
                tell(order.topic, {"number": order.number, "done": done, "in_flight": progress.in_flight})
            if not is_wanted():
                raise NotWanted
        if (problem := doing.exception()) is not None:
            raise portable(problem)
    finally:
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
