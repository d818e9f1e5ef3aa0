"""Warnings and logs that one thread does not want to hear; those of others, and the process's filters, stay."""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _OfThread:
    """Stands where a filter has a pattern for texts, and matches whatever is said in one thread."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    def match(self, text: str) -> bool:
        return threading.get_ident() == self.thread


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which warnings of this thread are not shown.

    `warnings.catch_warnings` would exchange the filters of all threads, and undo what these change meanwhile.
    """
    own = ("ignore", _OfThread(), Warning, None, 0)
    try:
        _filters().insert(0, own)
        yield
    finally:
        if own in _filters():  # another thread may have exchanged them
            _filters().remove(own)


def _filters() -> list[Any]:
    """The filters of the process, a list whatever their declared type says."""
    filters = warnings.filters
    assert isinstance(filters, list)
    return filters


@contextmanager
def unheard(library: str) -> Iterator[None]:
    """A block in which nothing is heard of what a library logs in this thread."""
    thread = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    names = [name for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] == library]
    handlers = {id(handler): handler for name in names for handler in logging.getLogger(name).handlers}
    try:
        for handler in handlers.values():
            handler.addFilter(of_others)
        yield
    finally:
        for handler in handlers.values():
            handler.removeFilter(of_others)
