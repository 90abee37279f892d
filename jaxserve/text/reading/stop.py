"""Stop texts in streamed text: found across token borders, never leaked, in linear time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence


class StopMatcher:
    """Watches one sequence's text for its stop texts.

    The stop that is complete first wins, so the result does not depend on how the text is cut into tokens; of stops
    that are complete at the same character the longest wins. Neither the stop nor anything after it is emitted; text
    that may still become a stop is held back until it is decided. The matcher is an Aho-Corasick automaton (1975).

    Args:
        stops: stop texts, none of them empty.

    Raises:
        ValueError: a stop text is empty.
    """

    __slots__ = ("_automaton", "_held", "_matched", "_state")

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise ValueError("a stop text must not be empty")
        self._automaton = _Automaton(stops) if stops else None
        self._state = 0
        self._held = ""
        self._matched = False

    def push(self, text: str) -> tuple[str, str | None]:
        """Take new text. Returns what is now certain to be output, and the stop that is complete, if one is."""
        automaton = self._automaton
        if automaton is None:
            return text, None
        if self._matched:
            return "", None
        state, held = self._state, self._held
        for index, char in enumerate(text):
            state = automaton.advance(state, char)
            stop = automaton.matches[state]
            if stop is not None:
                self._matched, self._held = True, ""
                whole = held + text[: index + 1]
                return whole[: -len(stop)], stop
        self._state = state
        whole = held + text
        keep = len(whole) - automaton.depths[state]
        self._held = whole[keep:]
        return whole[:keep], None

    def flush(self) -> str:
        """Text held back when the sequence ends without a stop; "" after a match."""
        text, self._held = self._held, ""
        self._state = 0
        return text


class _Automaton:
    """States are prefixes of the stops; a state's depth is how much of the text read last may become a stop."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._fail = [0]
        self.depths = [0]
        self.matches: list[str | None] = [None]
        for stop in stops:
            self._insert(stop)
        self._link()

    def advance(self, state: int, char: str) -> int:
        """State after one more character. Each step down undoes an earlier step forward: linear in total."""
        while True:
            following = self._next[state].get(char)
            if following is not None:
                return following
            if state == 0:
                return 0
            state = self._fail[state]

    def _insert(self, stop: str) -> None:
        state = 0
        for char in stop:
            child = self._next[state].get(char)
            if child is None:
                child = len(self._next)
                self._next[state][char] = child
                self._next.append({})
                self._fail.append(0)
                self.depths.append(self.depths[state] + 1)
                self.matches.append(None)
            state = child
        self.matches[state] = stop

    def _link(self) -> None:
        """Fail links, breadth first: a state's longest proper suffix that is a state, whose match it inherits."""
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for char, child in self._next[state].items():
                self._fail[child] = self.advance(self._fail[state], char)
                self.matches[child] = self.matches[child] or self.matches[self._fail[child]]
                queue.append(child)
