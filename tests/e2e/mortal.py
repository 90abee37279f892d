"""`jaxserve` whose device is lost once a file exists: `python mortal.py FILE serve ...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from jaxserve.cli import main
from jaxserve.engine.runner import Runner
from jaxserve.errors import DeviceLost

sign = Path(sys.argv.pop(1))
fetch = Runner.fetch


def mortal(self: Any, ticket: Any) -> Any:
    if sign.exists():
        raise DeviceLost("the device is gone")
    return fetch(self, ticket)


Runner.fetch = mortal
main()
