"""Runs an iterator in another thread, a few items ahead of its consumer."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T], depth: int = 8) -> Generator[T, None, None]:
    """The same items. Up to `depth` of them are computed in advance in another thread.

    Callbacks of `items`, such as `on_warning`, run in that thread. It pays if computing an item releases the
    interpreter lock, as decoding does. `items` is closed at the end.
    """
    end = object()
    # One worker, because an iterator cannot be advanced by two threads at once.
    pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    waiting: collections.deque[concurrent.futures.Future[Any]] = collections.deque()
    try:
        while True:
            while len(waiting) < depth:
                waiting.append(pool.submit(next, items, end))
            # `result` raises an error of `items` here, so the consumer sees it at the item where it happened.
            item = waiting.popleft().result()
            if item is end:
                return
            yield item
    finally:
        # `items` must not be closed while the other thread is still inside it.
        pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(items, "close", None)  # a generator may hold a file or a detector open
        if close is not None:
            close()
