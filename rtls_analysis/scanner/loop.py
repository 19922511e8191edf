"""Calling async code from scripts, from a notebook's running loop and from worker processes: one loop thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


def new_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop: uvloop's where it is installed (a quarter of the memory per connection)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class _Loop:
    lock: ClassVar = threading.Lock()
    instance: ClassVar[_Loop | None] = None

    def __init__(self) -> None:
        self.pid, self.loop = os.getpid(), new_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="rtls-loop", daemon=True)
        self.thread.start()

    @classmethod
    def get(cls) -> _Loop:
        with cls.lock:
            if cls.instance is None or cls.instance.pid != os.getpid():  # threads do not survive a fork
                cls.instance = cls()
            return cls.instance


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from anywhere, a running event loop included, and wait for it.

    An interrupt (Ctrl-C, a notebook's stop button) cancels the coroutine, waits until it has put its things in
    order, and is then raised; a second one no longer waits.
    """
    worker = _Loop.get()
    if threading.current_thread() is worker.thread:
        coroutine.close()
        raise RuntimeError("already inside the worker loop: await the async form instead")
    context = contextvars.copy_context()

    async def runner() -> T:
        return await asyncio.get_running_loop().create_task(coroutine, context=context)

    future = asyncio.run_coroutine_threadsafe(runner(), worker.loop)
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        _wait_for_end(future)
        raise


def _wait_for_end(future: concurrent.futures.Future[Any]) -> None:
    """Give the cancelled coroutine its time: the future is done at once, the tasks behind it are not."""
    worker = _Loop.get()

    async def others() -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(tasks, timeout=30) if tasks else None

    try:
        # a large scan takes its time to judge what it has; a second interrupt waits no longer
        asyncio.run_coroutine_threadsafe(others(), worker.loop).result(600)
    except concurrent.futures.TimeoutError:
        print("the scan did not end in time", file=sys.stderr)
