"""What every test may use."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# With libtpu installed jax would look for a TPU first; the tests' own devices are CPUs.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

CHECKED = [
    f"jaxserve.sampling.{module}"
    for module in ("chunks", "draw", "knobs", "logprobs", "masses", "pipeline", "records", "state")
] + [
    f"jaxserve.models.kernels.{module}"
    for module in ("blocked", "blocked_loops", "grouped", "products", "softmax", "sparse")
]
"""Modules whose annotations are checked at each call, shapes of arrays among them; mostly while jax traces, so once.

Not `params` and `packing`: the one refuses wrong values itself, the other runs on the host for every sample.
"""
checking = install_import_hook(CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Other people's models, tokenizers and oracles; not part of the repository."""
    directory = Path(__file__).resolve().parents[2] / "shared"
    if not directory.is_dir():
        pytest.skip("the directory of other people's fixtures is not beside the checkout")
    return directory


@contextmanager
def _longest_silence() -> Iterator[list[float]]:
    gc.collect()
    gc.freeze()  # what the tests have made is left alone, as by a server
    found, over = [0.0], threading.Event()

    def watch() -> None:
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            found[0], last = max(found[0], now - last), now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
        gc.unfreeze()


@pytest.fixture
def longest_silence() -> Callable[[], AbstractContextManager[list[float]]]:
    """Measures, while its context runs, the longest time in seconds for which no other thread could: a list of one."""
    return _longest_silence
