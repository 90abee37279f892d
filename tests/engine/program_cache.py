"""jax's cache of programs in a directory of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxserve.startup import use_compilation_cache

_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@contextmanager
def cached_programs(directory: Path) -> Iterator[Path]:
    """jax keeps every program there, as `serve` has it do; the engine in the directory that is given."""
    before = {name: jax.config.values[name] for name in _SETTINGS}
    use_compilation_cache(directory)
    compilation_cache.reset_cache()
    try:
        yield directory / "programs"
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
