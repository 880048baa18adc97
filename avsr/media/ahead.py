"""Decoding in a thread of its own, a few items ahead of who uses them."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T], depth: int = 8) -> Generator[T, None, None]:
    """The same items, up to `depth` of them computed in advance in another thread, which then also calls what `items`
    calls, as `on_warning`. Worth it where computing an item releases the interpreter lock, as decoding does."""
    end = object()
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    try:
        while True:
            while len(waiting) < depth:
                waiting.append(pool.submit(next, items, end))
            item = waiting.popleft().result()
            if item is end:
                return
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(items, "close", None)  # generators hold files and detectors open
        if close is not None:
            close()
