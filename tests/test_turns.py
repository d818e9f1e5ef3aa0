"""Short calls of several threads run one after the other; long ones hold up nobody, and a lost turn is found again."""

import os
import signal
import time
from threading import Event, Thread, main_thread

import pytest

from viscircuits.bounds import turns as module
from viscircuits.bounds.turns import Turns


def test_short_calls_run_one_after_the_other_in_the_order_in_which_they_came():
    turns, inside, most, order = Turns(), [0], [0], []

    def call(number: int) -> None:
        with turns.turn(), turns.turn():  # a call that makes another does not wait for itself
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            order.append(number)
            time.sleep(0.002)
            inside[0] -= 1

    threads = [Thread(target=call, args=[number]) for number in range(8)]
    with turns.turn():
        for thread in threads:
            thread.start()
            time.sleep(0.003)
    for thread in threads:
        thread.join()
    assert most == [1]
    assert order == list(range(8))
    assert not turns._queue


def test_a_long_call_does_not_hold_up_the_others(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.02)
    turns, done, waits = Turns(), Event(), []

    def long() -> None:
        with turns.turn():
            assert done.wait(10)

    def short() -> None:
        start = time.monotonic()
        with turns.turn():
            waits.append(time.monotonic() - start)

    first = Thread(target=long)
    first.start()
    time.sleep(0.005)
    others = [Thread(target=short) for _ in range(4)]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join(5)
    assert len(waits) == 4  # while the long one still runs
    done.set()
    first.join()
    assert not turns._queue


@pytest.mark.parametrize("seed", range(6))
def test_a_turn_that_was_lost_is_found_again(monkeypatch, seed):
    """Ctrl-C at any time in the main thread, while others ask too: nobody waits for ever afterwards."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    turns, stop, calls = Turns(), Event(), [0] * 3

    def ask(number: int) -> None:
        while not stop.is_set():
            with turns.turn():
                calls[number] += 1
                time.sleep(0.0005)

    threads = [Thread(target=ask, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    stopper = Thread(target=lambda: [_interrupt(0.0013 * (1 + (seed + i) % 5)) for i in range(12)])
    stopper.start()
    while stopper.is_alive():
        try:
            while stopper.is_alive():
                with turns.turn():
                    time.sleep(0.0002)
        except KeyboardInterrupt:
            pass
    before = list(calls)
    time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert all(now > then for now, then in zip(calls, before, strict=True))
    with turns.turn():
        assert len(turns._queue) == 1


def _interrupt(after: float) -> None:
    time.sleep(after)
    assert main_thread().ident is not None
    signal.pthread_kill(main_thread().ident, signal.SIGINT)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads is the point
def test_a_forked_process_does_not_wait_for_the_threads_that_it_lacks():
    begun, done = Event(), Event()

    def hold() -> None:
        with module.turns.turn():
            begun.set()
            done.wait(10)

    thread = Thread(target=hold)
    thread.start()
    assert begun.wait(5)
    child = os.fork()
    if child == 0:  # pragma: no cover
        start = time.monotonic()
        with module.turns.turn():
            os._exit(0 if time.monotonic() - start < module.PATIENCE / 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()
