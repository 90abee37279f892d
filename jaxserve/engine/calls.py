"""How many calls of clients may wait: one client's requests of one call count once, and no client fills the queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from jaxserve.engine.requests import Request
from jaxserve.errors import Overloaded


class Calls:
    """Unfinished calls, and which of them have not begun.

    Args:
        max_waiting: calls that may wait for their first step, beyond those that find a free slot.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._requests: Counter[str] = Counter()
        """Unfinished requests of each call."""
        self._waiting: dict[str, str] = {}
        """The client of each call none of whose choices has ever run."""

    def enter(self, request: Request, free_slots: int) -> None:
        """Counts a request in.

        Raises:
            Overloaded: as many wait already, and this request belongs to another call. A client of whom none waits
                still finds a place, until twice as many wait.
        """
        if request.call not in self._requests:
            if self._is_full(request.client, len(self._waiting) - free_slots):
                raise Overloaded(f"{self._max_waiting} requests are waiting already; try again later")
            self._waiting[request.call] = request.client
        self._requests[request.call] += 1

    def begin(self, call: str) -> None:
        """One of its choices comes in."""
        self._waiting.pop(call, None)

    def leave(self, call: str) -> None:
        """One of its requests is over."""
        self._requests[call] -= 1
        if not self._requests[call]:
            del self._requests[call]
            self._waiting.pop(call, None)

    def check(self, requests: Iterable[Request]) -> None:
        """Verify that these are the unfinished requests.

        Raises:
            RuntimeError: they are not.
        """
        if self._requests != Counter(request.call for request in requests):
            raise RuntimeError("the calls are not those of the unfinished requests")
        if not self._waiting.keys() <= self._requests.keys():
            raise RuntimeError("a request that is over counts as waiting")

    def _is_full(self, client: str, beyond: int) -> bool:
        if beyond < self._max_waiting:
            return False
        return beyond >= 2 * self._max_waiting or client in self._waiting.values()
