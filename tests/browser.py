"""The Chromium that tests of pages run in: looked for, else installed.

python tests/browser.py        # looks for one, installs one if need be, prints where it is
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright, sync_playwright

VARIABLE = "VISCIRCUITS_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip
MISSING = (
    "no Chromium could be started or installed; install one (apt-get install chromium, or playwright install chromium) "
    f"or give the path of one in {VARIABLE}"
)


def launched(playwright: Playwright) -> Browser | None:
    """Returns a started Chromium, installed first where there is none; None where that fails too."""
    for file in _files(playwright):
        try:
            return playwright.chromium.launch(executable_path=file, args=[*QUIET])
        except Error as error:
            print(f"{file} does not start: {error}", file=sys.stderr)  # noqa: T201
    return None


def _files(playwright: Playwright) -> Iterator[str]:
    """What may be a Chromium, the likeliest first; where all before it failed, what an installation gave."""
    if VARIABLE in os.environ:
        yield os.environ[VARIABLE]
        return
    yield from filter(None, map(shutil.which, NAMES))
    own = playwright.chromium.executable_path
    if Path(own).is_file():
        yield own
    if _run("apt-get", "update", "-q") and _run("apt-get", "install", "-qy", "--no-install-recommends", "chromium"):
        yield from filter(None, [shutil.which("chromium")])
    if _run(sys.executable, "-m", "playwright", "install", "chromium"):
        yield own


def _run(*command: str) -> bool:
    """Whether a command is there, allowed, and succeeds."""
    if command[0] == "apt-get" and (shutil.which("apt-get") is None or os.geteuid() != 0):
        return False
    patient = ("-o", "DPkg::Lock::Timeout=300") if command[0] == "apt-get" else ()
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run([*command, *patient], env=quiet, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    with sync_playwright() as started:
        found = launched(started)
        print(f"Chromium {found.version}" if found else MISSING)  # noqa: T201
        sys.exit(found is None)
