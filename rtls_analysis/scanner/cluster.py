"""A scan on a Dask cluster: who stands where, and shares of the work that are looked after until they are done.

A worker that dies is replaced: by the one that its nanny starts, or else by another one of the same vantage. No share
is ever done by two at once (see `rtls_analysis.scanner.orders`), so that whatever is paced in it stays paced.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import pickle
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rtls_analysis.frames import Cluster, ClusterProblem
from rtls_analysis.scanner.contacts import ScanStopped
from rtls_analysis.scanner.manifest import describe_circumstances
from rtls_analysis.scanner.options import Options, ScanProblem
from rtls_analysis.scanner.orders import NotWanted, Order, Post, check_post, look_around, run_order
from rtls_analysis.scanner.politeness import CLOCKS_AGREE
from rtls_analysis.scanner.resolver import ResolverProblem
from rtls_analysis.scanner.vantages import EACH
from rtls_analysis.scanner.worker import Domains, Hosts, Progress, Share, Work, questions_each
from rtls_analysis.storage import Folder, leases
from rtls_analysis.store import WORK, SnapshotWriter

LOOK_SECONDS = 1.0
"""Between two looks at who is still there."""

REPLACED_SECONDS = 15.0
"""Seconds in which a worker that died may be replaced, by its nanny for instance, before others take its share."""

ALONE_SECONDS = 120.0
"""Seconds for which a scan waits for a worker where none is left that could go on."""

DEATHS = 4
"""Workers that a share may cost: with as many, it is the share that kills them."""

_LAST_SECONDS = 30.0  # that the workers have to put their things in order


@dataclass(slots=True)
class _Task:
    """A share on its way: the order, who has it now, and how many died of it."""

    order: Order
    vantage: str
    worker: str = ""
    future: Any = None
    deaths: int = 0
    lost_at: float | None = None
    in_flight: int = 0
    tries: int = 0


class ClusterCrew:
    """The workers of a cluster, as the engine sees them: one share of each piece of work for each.

    Parameters
    ----------
    cluster
        Where they are.
    options
        Of the scan.
    writer
        Of the scan's snapshot: all of them must see its folder.
    posts
        What each worker says of the place where it stands, by its address.

    Attributes
    ----------
    posts : list of Post
        In the order of the shares.
    """

    def __init__(
        self, cluster: Cluster, options: Options, writer: SnapshotWriter, posts: Mapping[str, Post]
    ) -> None:
        self.size = min(len(posts), options.concurrency)
        self.posts = list(posts.values())[: self.size]
        self.vantages = [post.vantage.name for post in self.posts]
        self.families = [(post.vantage.ipv4, post.vantage.ipv6) for post in self.posts]
        self._cluster = cluster
        self._options = options
        self._writer = writer
        self._folder = writer.folder
        self._places = dict(posts)  # of every worker that was ever asked
        self._workers = list(posts)[: self.size]
        self._run = uuid.uuid4().hex[:12]
        self._topic = f"rtls-{self._run}"
        self._pieces = 0
        self._running: dict[int, _Task] = {}

    async def do(self, work: Sequence[Work]) -> AsyncIterator[Progress]:
        """Let the workers do a share each; yields how it goes over all.

        Raises
        ------
        ScanStopped, ResolverProblem, OSError
            It cannot go on; what was done is on record.
        """
        loop = asyncio.get_running_loop()
        words: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

        def hear(_when: float, word: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(words.put_nowait, ("word", word))

        def ended(future: Any) -> None:
            loop.call_soon_threadsafe(words.put_nowait, ("ended", future))

        self._pieces += 1
        stop_listening = await asyncio.to_thread(self._cluster.listen, self._topic, hear)
        try:
            for number, share in enumerate(work):
                if _size(share):
                    task = await self._prepared(number, share, work)
                    self._running[number] = task
                    await self._send(task, self._workers[number], ended)
            look_at = loop.time() + LOOK_SECONDS
            while self._running:
                try:
                    async with asyncio.timeout_at(look_at):
                        kind, what = await words.get()
                except TimeoutError:
                    look_at = loop.time() + LOOK_SECONDS
                    await self._look_after(ended)
                    continue
                if kind == "ended":
                    await self._end(what)
                elif (task_of := self._running.get(what["number"])) is not None:
                    task_of.in_flight = what["in_flight"]
                    yield Progress(what["done"], (), self._in_flight())
        finally:
            stop_listening()
            await self._take_back()

    def _in_flight(self) -> int:
        return sum(task.in_flight for task in self._running.values())

    async def _prepared(self, number: int, share: Work, work: Sequence[Work]) -> _Task:
        """Put a share where its worker finds it, and write the order for it."""
        post = self.posts[number]
        path = f"{WORK}/share-{self._run}-{self._pieces:03d}-{number:03d}.pickle"
        data = pickle.dumps(share, pickle.HIGHEST_PROTOCOL)
        await asyncio.to_thread(self._folder.write, path, data)
        of_resolver = sum(other.resolver == post.resolver for other in self.posts)
        order = Order(
            self._folder,
            f"c{number + 1}",
            path,
            replace(post.options, concurrency=_concurrency(number, work, self._options.concurrency)),
            post.check.trusted,
            post.reaches_out,
            questions_each(of_resolver),
            post.vantage.name if self._options.vantage == EACH else None,
            self._topic,
            number,
        )
        return _Task(order, post.vantage.name)

    async def _send(self, task: _Task, worker: str, ended: Any) -> None:
        """Give a share to a worker, to be done from where that one stands."""
        if (post := self._places[worker]) is not self.posts[task.order.number]:
            own = replace(post.options, concurrency=task.order.options.concurrency)
            task.order = replace(
                task.order, options=own, trusted=post.check.trusted, reaches_out=post.reaches_out
            )
        task.worker, task.lost_at = worker, None
        self._workers[task.order.number] = worker  # for the next piece of work too
        task.tries += 1
        key = f"rtls-share-{self._run}-{self._pieces}-{task.order.number}-{task.tries}"
        task.future = await asyncio.to_thread(
            self._cluster.submit, run_order, task.order, worker=worker, key=key
        )
        task.future.add_done_callback(ended)

    async def _end(self, future: Any) -> None:
        """See how a share ended."""
        task = next((one for one in self._running.values() if one.future is future), None)
        if task is None:  # one that was taken back
            return
        if future.status == "finished":
            del self._running[task.order.number]
            return
        if future.status != "error":
            raise ScanStopped(
                "the Dask scheduler is gone; once there is one, run the same scan again: what was done is kept"
            )
        problem = await asyncio.to_thread(future.exception)
        if isinstance(problem, NotWanted):  # its worker is about to end
            task.lost_at = task.lost_at or time.monotonic()
            return
        if not isinstance(problem, (ScanStopped, ResolverProblem, OSError)):
            problem = RuntimeError(f"a share of the scan failed on {task.worker}: {problem!r}")
        raise problem

    async def _look_after(self, ended: Any) -> None:
        """Let others go on with the shares of workers that died."""
        alive = await asyncio.to_thread(self._alive)
        now = time.monotonic()
        for task in self._running.values():
            if task.lost_at is None:
                if task.worker in alive:
                    continue
                task.lost_at, task.in_flight = now, 0
                task.deaths += 1
                self._note_death(task)
                await asyncio.to_thread(self._cluster.take_back, [task.future])
                if task.deaths >= DEATHS:
                    raise ScanStopped(
                        f"a share of the scan has cost {task.deaths} workers; look into their logs, and run the same "
                        "scan again: what was done is kept"
                    )
            if (worker := await self._replacement(task, alive, now - task.lost_at)) is not None:
                await self._send(task, worker, ended)

    def _note_death(self, task: _Task) -> None:
        """Put on record that a worker died: what it had in flight is done again."""
        deaths = self._writer.manifest.setdefault("worker_deaths", [])
        deaths.append(
            {"at": dt.datetime.now(dt.UTC).isoformat(), "writer": task.order.writer, "worker": task.worker}
        )
        self._writer.write_manifest()

    def _alive(self) -> list[str]:
        try:
            return self._cluster.workers
        except ClusterProblem:
            return []

    async def _replacement(self, task: _Task, alive: Sequence[str], since: float) -> str | None:
        """Find a worker for a share that lost its own: a new one, or after a while any of the same vantage."""
        if unknown := [worker for worker in alive if worker not in self._places]:
            self._places.update(await self._asked(unknown))
        busy = [other.worker for other in self._running.values() if other.lost_at is None]
        wanted = self.posts[task.order.number]
        fit = [worker for worker in alive if self._can_stand_in(self._places.get(worker), wanted)]
        free = [worker for worker in fit if worker not in busy]
        if free:
            return free[0]
        if fit and since > REPLACED_SECONDS:
            return min(fit, key=busy.count)
        if since > ALONE_SECONDS:
            raise ScanStopped(
                f"no worker is left that stands where {task.vantage} does; start one, and run the same scan again: "
                "what was done is kept"
            )
        return None

    def _can_stand_in(self, post: Post | None, wanted: Post) -> bool:
        """Whether a worker can go on with another's share: it stands in the same place, or reaches as much."""
        if post is None:
            return False
        here, there = post.vantage, wanted.vantage
        if here.name == there.name or self._options.vantage == EACH:
            return here.name == there.name
        return here.ipv4 >= there.ipv4 and here.ipv6 >= there.ipv6

    async def _asked(self, workers: Sequence[str]) -> dict[str, Post]:
        """Ask workers that joined later where they stand; those with which something is wrong are left out."""
        try:
            return await ask_posts(self._cluster, self._options, (), self._folder, workers)
        except (ScanProblem, ScanStopped, ResolverProblem, OSError):
            return {}

    async def _take_back(self) -> None:
        """Take back what still runs, and wait until whoever did it has let go of it."""
        tasks = list(self._running.values())
        self._running.clear()
        if not tasks:
            return
        await asyncio.to_thread(self._cluster.take_back, [task.future for task in tasks])
        theirs = {task.order.writer for task in tasks}
        until = time.monotonic() + _LAST_SECONDS
        while theirs.intersection(await asyncio.to_thread(leases, self._folder)):
            if time.monotonic() > until:
                return
            await asyncio.sleep(0.2)

    async def check_introductions(self) -> list[str]:
        """Say what others would find wrong with the way each vantage introduces itself (`check_introduction`)."""
        said = await asyncio.to_thread(
            self._cluster.on_each, check_post, self._options, self._folder, workers=self._workers
        )
        lines = (
            (self._places[worker].vantage.name, line) for worker, found in said.items() for line in found
        )
        return [f"{vantage}: {line}" for vantage, line in dict.fromkeys(lines)]

    async def close(self) -> None:
        """Let go of what is left."""
        await self._take_back()


def _size(work: Work) -> int:
    match work:
        case Domains(items) | Hosts(items) | Share(items):
            return len(items)


def _concurrency(number: int, work: Sequence[Work], at_once: int) -> int:
    """Give a share its part of the connections at once, by its size; each at least one, all together no more."""
    sizes = [_size(share) for share in work]
    if not isinstance(work[number], Share):
        return max(1, at_once // len(work))
    busy = sum(size > 0 for size in sizes)
    rest, total = at_once - busy, max(sum(sizes), 1)
    return 1 + rest * sizes[number] // total


def describe_posts(options: Options, posts: Sequence[Post]) -> dict[str, Any]:
    """Say under what circumstances workers make a run, as `describe_circumstances` says it of this process.

    `vantages` has a mapping for each: its name, how it introduces itself, what it reaches, its resolver, its workers.
    """
    first = posts[0]
    doubted = next((post for post in posts if not post.check.trusted), first)
    circumstances = describe_circumstances(first.options, first.resolver, doubted.check, first.vantage)
    places: dict[str, dict[str, Any]] = {}
    for post in posts:
        place = places.setdefault(post.vantage.name, {**post.vantage.as_dict(), "workers": 0})
        place["resolver"] = {
            "server": post.resolver,
            "trusted": post.check.trusted,
            "detail": post.check.detail,
        }
        place["workers"] += 1
    return {**circumstances, "concurrency": options.concurrency, "vantages": list(places.values())}


async def ask_posts(
    cluster: Cluster,
    options: Options,
    names: Sequence[str],
    folder: Folder,
    workers: Sequence[str] | None = None,
) -> dict[str, Post]:
    """Ask each worker, or these, where it stands.

    Raises
    ------
    ScanProblem
        A worker does not see the folder of the scan, or has another time than others.
    ScanStopped, ResolverProblem
        One cannot scan from there.
    """
    token = f"{WORK}/seen-{uuid.uuid4().hex}"
    await asyncio.to_thread(folder.write, token, b"")
    try:
        posts: dict[str, Post] = await asyncio.to_thread(
            cluster.on_each, look_around, options, tuple(names), folder, token, workers=workers
        )
    finally:
        await asyncio.to_thread(folder.remove, token)
    for worker, post in posts.items():
        if not post.sees_folder:
            raise ScanProblem(
                f"the worker {worker} does not see {folder.address}; give a directory that all of them share, or an "
                "address such as s3://BUCKET/NAME"
            )
    await asyncio.to_thread(_check_clocks, cluster)
    return posts


def _check_clocks(cluster: Cluster) -> None:
    """Raise `ScanProblem` where the clocks of workers differ for sure by more than what turns can bear.

    How long an answer was on its way is not known, so each clock is known within that time only.
    """
    began = time.time()
    told = cluster.on_each(time.time)
    ended = time.time()
    ahead = max(told, key=lambda worker: told[worker])
    behind = min(told, key=lambda worker: told[worker])
    if (apart := told[ahead] - told[behind] - (ended - began)) > CLOCKS_AGREE:
        raise ScanProblem(
            f"the clock of the worker {ahead} is {apart:.1f} seconds ahead of that of {behind}; set them, by NTP for "
            "instance: when each server was contacted is known by them, and by them workers take turns"
        )
