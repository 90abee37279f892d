"""The command line: `jaxserve serve`, `generate` and `convert`. Wires the rooms together and owns the process.

What each command takes is declared in `jaxserve.options`; flags, environment variables and the configuration file are
made from that in `parameters.py`.
"""

from jaxserve.cli.commands import app, main

__all__ = ["app", "main"]
