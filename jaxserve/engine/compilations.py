"""Counts XLA compilations of this process, so that `/metrics` shows and a test forbids any after start-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax.experimental.compilation_cache import compilation_cache

_EVENT = "/jax/core/compile/backend_compile_duration"
_CACHE = "jax_enable_compilation_cache"
_count = 0
_listening = False


def count() -> int:
    """Programs compiled (or read from the compilation cache) since `listen` was first called."""
    return _count


def listen() -> None:
    """Starts counting; later calls change nothing."""
    global _listening
    if not _listening:
        _listening = True
        jax.monitoring.register_event_duration_secs_listener(_on_event)


def _on_event(event: str, duration_secs: float, **kwargs: str | int) -> None:
    global _count
    if event == _EVENT:
        _count += 1


@contextmanager
def afresh() -> Iterator[None]:
    """Compiles without jax's cache of programs, for programs that are to be stored.

    On a CPU a program that was read from the cache runs, but stored again it lacks the functions it calls, which shows
    when it runs. What other platforms do is not known.
    """
    enabled = getattr(jax.config, _CACHE)
    _use_cache(False)
    try:
        yield
    finally:
        _use_cache(enabled)


def _use_cache(enabled: bool) -> None:
    jax.config.update(_CACHE, enabled)
    compilation_cache.reset_cache()  # jax asks the setting once, at its first compilation
