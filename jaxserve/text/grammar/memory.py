"""Remembers what was worked out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class NotReady(Exception):
    """The answer has yet to be worked out, which may take seconds: ask again where that is no harm."""


class Memory(Generic[T]):
    """Results by key. What several threads ask for at the same time is worked out once. Thread-safe.

    Args:
        most: results to keep.
        most_bytes: memory that they may take together; the least recently used go first.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._results: OrderedDict[str, Future[T]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def get(self, key: str, make: Callable[[], tuple[T, int]], *, wait: bool = True) -> T:
        """The result of a key.

        Args:
            key: equal keys have equal results.
            make: works it out; returns it and its size in bytes.
            wait: False: only if it is known.

        Raises:
            NotReady: it isn't known, and `wait` is false.
            Exception: what `make` raised; that is not remembered.
        """
        with self._lock:
            known = self._results.get(key)
            if not wait and (known is None or not known.done()):
                raise NotReady
            if known is not None:
                self._results.move_to_end(key)
            else:
                future = self._results[key] = Future()
        return known.result() if known is not None else self._make(key, future, make)

    def _make(self, key: str, future: Future[T], make: Callable[[], tuple[T, int]]) -> T:
        try:
            result, size = make()
        except BaseException as error:
            with self._lock:
                self._results.pop(key, None)
            future.set_exception(error)
            raise
        future.set_result(result)
        with self._lock:
            self._sizes[key] = size
            self._evict()
        return result

    def _evict(self) -> None:
        while len(self._results) > self._most or sum(self._sizes.values()) > self._most_bytes:
            oldest, _ = self._results.popitem(last=False)
            self._sizes.pop(oldest, None)
