"""Work done ahead by worker threads, in order, with the memory that it freed given back.

Threads, not processes: pictures are decoded by code that lets others run meanwhile, and nothing has to be sent. Not
here: what the work is (`viscircuits.data.sources`).
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ctypes import CDLL
from functools import partial
from typing import TypeVar

_BETWEEN = 128
"""Items between two times that free memory is given back."""

_give_back: Callable[[], object] = partial(getattr(CDLL(None), "malloc_trim", int), 0) if os.name == "posix" else int
"""Gives the system what the C library keeps of freed memory. Pictures are made in one thread and freed in another, and
the holes that they leave in the threads' heaps would add up to a gigabyte."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_order(function: Callable[[_T], _R], items: Sequence[_T], workers: int, ahead: int) -> Iterator[_R]:
    """Yields ``function(item)`` for each item, in order.

    Args:
        function: what is done with an item; errors are raised where its turn comes.
        items: in the order wanted.
        workers: threads; 0 = in the caller's thread, nothing ahead.
        ahead: how many results may wait to be taken.
    """
    if not workers:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[Future[_R]] = deque()
        for number, item in enumerate(items, 1):
            waiting.append(pool.submit(function, item))
            if number % _BETWEEN == 0:
                _give_back()
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # also where the caller takes no more: threads must not go on reading behind its back
        pool.shutdown(wait=True, cancel_futures=True)
        _give_back()
