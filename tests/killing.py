"""Runs commands in processes that start at once and can be killed at any moment: forks of one that has all imported.

Reads a JSON line a command, ``{"arguments": [...], "after": seconds or null, "room": bytes or null, "log": path}``, and
answers each with one: ``[exit status, seconds]``, where a status below 0 is the signal that ended it. ``room`` is the
most that a file may hold, as on a disk that is full.
"""

import atexit
import json
import os
import resource
import signal
import sys
import time
from importlib import import_module
from pathlib import Path


def serve() -> None:
    warm_up()
    tell("ready")
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        process = os.fork() or run(asked["arguments"], asked["room"], asked["log"])
        if asked["after"] is not None:
            time.sleep(asked["after"])
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        tell(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - began]))


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def warm_up() -> None:
    for name in ("numba", "torch._dynamo"):
        import_module(name)
    import viscircuits as vc
    import viscircuits.cli.findings
    import viscircuits.cli.main
    import viscircuits.runs.job
    import viscircuits.runs.opened
    import viscircuits.runs.subject
    from viscircuits.data.shapes import generate
    from viscircuits.model.trace import trace

    model, prepare = vc.zoo.load("shapesnet")
    images = vc.ImageSet.from_tensors(prepare(generate(4, seed=0).images))
    trace(model, images[0].shape)  # which computes no gradient: a fork could not, after that


def run(arguments: list[str], room: int | None, log: str) -> int:
    from viscircuits.cli.main import run

    if room is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["viscircuits", *arguments]
    try:
        run()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 99
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    serve()
