"""Short calls of several threads, one after the other.

Python's lock goes from core to core with every operation of torch, and on a small model that costs as much as the work
itself. So whoever calls us waits for its turn. A call that has run for `PATIENCE` seconds no longer holds up the
others: large models, whose operations do without Python's lock, use all cores, and nobody waits for what hangs.

A turn is advice, not protection: no result depends on it. Nothing here is waited for without an end, because Ctrl-C may
fall into any of these lines; what it leaves in the queue is thrown out by the next one.
"""

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, local

PATIENCE = 0.05
"""Seconds: many short calls on a small model, and little beside one call on a large one."""


class Turns:
    """A queue, whose first has the turn. Each step on it is one of the deque's own, which no thread sees half done."""

    def __init__(self) -> None:
        self._queue: deque[Lock] = deque()  # of each caller a lock of its own, which is opened when it comes first
        self._since = 0.0
        self._inside = local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A block that begins when it is this thread's turn; within another such block it begins at once."""
        if getattr(self._inside, "already", False):
            yield
            return
        place = Lock()
        try:
            self._inside.already = True
            self._wait(place)
            yield
        finally:
            self._inside.already = False
            self._end(place)

    def _wait(self, place: Lock) -> None:
        place.acquire(blocking=False)
        self._queue.append(place)
        if self._first() is place:
            self._since = time.monotonic()
        # whose place is gone came first, and was thrown out before it noticed
        while place in self._queue and (first := self._first()) is not place:
            left = self._since + PATIENCE - time.monotonic()
            if not place.acquire(timeout=max(0.0, left)) and first is not None and left <= 0:
                self._end(first)

    def _end(self, place: Lock) -> None:
        with suppress(ValueError):  # it was thrown out, and another one has the turn
            self._queue.remove(place)
            self._since = time.monotonic()
            if (first := self._first()) is not None:
                with suppress(RuntimeError):  # it is open already
                    first.release()

    def _first(self) -> "Lock | None":  # a text, as Lock is no class before Python 3.13
        try:
            return self._queue[0]
        except IndexError:
            return None


turns = Turns()
"""Those of this process, as what is shared is Python's lock."""

os.register_at_fork(after_in_child=turns.__init__)  # whoever had the turn is not there any more
