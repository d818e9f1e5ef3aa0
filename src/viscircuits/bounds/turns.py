"""Short calls of several threads, one after the other.

Python's lock goes from core to core with every operation of torch, and on a small model that costs as much as the work
itself. So whoever calls us waits for its turn. A call that has run for `PATIENCE` seconds no longer holds up the
others: large models, whose operations do without Python's lock, use all cores, and nobody waits for what hangs.

A turn is advice, not protection. No result depends on it; one that got lost (Ctrl-C fell into these lines) is taken
over by the next in line.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident, local

PATIENCE = 0.05
"""Seconds: many short calls on a small model, and little beside one call on a large one."""


class Turns:
    """Whose turn it is, and who waits, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._holder: int | None = None  # a thread's number
        self._since = 0.0
        self._waiting: list[tuple[int, Lock]] = []  # a thread's number, and what it waits at
        self._inside = local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A block that begins when it is this thread's turn; within another such block it begins at once."""
        if getattr(self._inside, "already", False):
            yield
            return
        try:
            self._inside.already = True
            self._wait(get_ident())
            yield
        finally:
            self._inside.already = False
            self._leave(get_ident())

    def _wait(self, me: int) -> None:
        place = Lock()
        place.acquire()
        with self._lock:
            if self._holder is None:
                self._give(me)
                return
            self._waiting.append((me, place))
        while not place.acquire(timeout=max(0.0, self._since + PATIENCE - time.monotonic())):
            with self._lock:
                late = time.monotonic() - self._since >= PATIENCE
                if late and self._is_next(me):
                    self._give(me)
                    return
            if late:
                time.sleep(PATIENCE / 10)  # the first in line is about to take it

    def _is_next(self, me: int) -> bool:
        """Whether nobody waits before a thread; one that is not in line was called, and did not hear it."""
        line = [thread for thread, _ in self._waiting]
        return me not in line or line[0] == me

    def _leave(self, me: int) -> None:
        with self._lock:
            self._drop(me)
            if self._holder != me:
                return  # it was taken over
            self._holder = None
            if self._waiting:
                heir, place = self._waiting[0]
                self._give(heir)
                place.release()

    def _give(self, thread: int) -> None:
        self._drop(thread)
        self._holder, self._since = thread, time.monotonic()

    def _drop(self, thread: int) -> None:
        self._waiting = [entry for entry in self._waiting if entry[0] != thread]


turns = Turns()
"""Those of this process, as what is shared is Python's lock."""

os.register_at_fork(after_in_child=turns.__init__)  # whoever had the turn is not there any more
