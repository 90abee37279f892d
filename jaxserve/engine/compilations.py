"""Counts XLA compilations of this process, so that `/metrics` shows and a test forbids any after start-up."""

from __future__ import annotations

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
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
