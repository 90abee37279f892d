"""What the workers of these tests do; imported by them by name."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any


class Acts:
    def prepare(self) -> Callable[..., Any]:
        return act


class BrokenTask:
    def prepare(self) -> Callable[..., Any]:
        raise RuntimeError("can't be prepared")


def act(what: str, argument: Any = None) -> Any:
    return _ACTS[what](argument)


def _spin(_: Any) -> None:
    while True:
        pass


def _native(_: Any) -> int:
    return 9 ** (9**9)  # one instruction of Python: no signal handler of its own could end it


def _fail(message: str) -> None:
    raise ValueError(message)


_ACTS: dict[str, Callable[[Any], Any]] = {
    "echo": lambda argument: argument,
    "pid": lambda _: os.getpid(),
    "spin": _spin,
    "native": _native,
    "sleep": time.sleep,
    "allocate": lambda size: len(bytearray(size)),
    "abort": lambda _: os.abort(),
    "fail": _fail,
}
