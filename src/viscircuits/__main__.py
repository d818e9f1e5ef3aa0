"""``python -m viscircuits``: the command line."""

from viscircuits.cli.main import run

run()
