"""Stop texts that spell tokens which the text leaves out: `<|im_end|>` followed by a newline, for instance."""

from __future__ import annotations

from collections.abc import Sequence

from jaxserve.text.reading.stop import StopMatcher
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_HIDDEN = "\ud800"
"""Half surrogate pairs, which no decoded text holds, stand for hidden tokens: this one for any, those behind it for
tokens that stop texts spell."""


class TokenStops:
    """A `StopMatcher` over the tokens of one sequence whose text may hide special tokens.

    The shown text holds no stop text; nor does the text hold one that hides nothing.

    Args:
        stops: stop texts, none of them empty.
        tokenizer: of the model.
        hides: whether special tokens are left out of the text.
    """

    __slots__ = ("_hidden", "_shown")

    def __init__(self, stops: Sequence[str], tokenizer: Tokenizer, *, hides: bool) -> None:
        self._shown = StopMatcher(stops)
        hidden = _HiddenStops(stops, tokenizer) if hides and stops else None
        self._hidden = hidden if hidden is not None and hidden.any else None

    def push(self, token: int, text: str) -> tuple[str, str | None]:
        """Takes a token and the text that it completed; see `StopMatcher.push`."""
        return self._shown.push(text) if self._hidden is None else self._hidden.push(self._shown, token, text)

    def end(self, text: str) -> tuple[str, str | None]:
        """Takes the text that comes without a token at the sequence's end, and lets go of what was held back."""
        if self._hidden is not None:
            return self._hidden.end(self._shown, text)
        shown, matched = self._shown.push(text)
        return (shown, matched) if matched is not None else (shown + self._shown.flush(), None)


class _HiddenStops:
    """The stop texts that spell special tokens, beside the matcher of the shown text."""

    def __init__(self, stops: Sequence[str], tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._marks: dict[int, str] = {}
        marked = {self._marked(stop): stop for stop in stops}
        self._stops = {text: stop for text, stop in marked.items() if text != stop}
        self._matcher = StopMatcher(tuple(self._stops))
        self._text = ""
        """Shown text that one of the two matchers holds back."""
        self._released = [0, 0]
        """Of this, what each has let go."""

    @property
    def any(self) -> bool:
        """Whether there are such stop texts."""
        return bool(self._stops)

    def _marked(self, stop: str) -> str:
        """The stop text with marks in place of special tokens."""
        for token in dict.fromkeys(self._tokenizer.encode(stop, add_special_tokens=False)):
            text = self._tokenizer.token_text(token)
            if text and self._tokenizer.is_special(token) and text in stop:
                mark = self._marks.setdefault(token, chr(ord(_HIDDEN) + 1 + len(self._marks)))
                stop = stop.replace(text, mark)
        return stop

    def push(self, shown: StopMatcher, token: int, text: str) -> tuple[str, str | None]:
        """Takes a token; `shown` looks for the same stop texts where they are spelled out."""
        mark = self._marks.get(token) or (_HIDDEN if self._tokenizer.is_special(token) else "")
        return self._read(text, shown.push(text), self._matcher.push(text + mark))

    def end(self, shown: StopMatcher, text: str) -> tuple[str, str | None]:
        """See `TokenStops.end`."""
        out, matched = self._read(text, shown.push(text), self._matcher.push(text))
        return (out, matched) if matched is not None else (out + self._text, None)

    def _read(
        self, text: str, spelled: tuple[str, str | None], hidden: tuple[str, str | None]
    ) -> tuple[str, str | None]:
        self._text += text
        self._released[0] += len(spelled[0])
        self._released[1] += self._visible(hidden[0])
        found = []
        if spelled[1] is not None:
            found.append((self._released[0] + len(spelled[1]), self._released[0], spelled[1]))
        if hidden[1] is not None:
            end = self._released[1] + self._visible(hidden[1])
            found.append((end, self._released[1], self._stops[hidden[1]]))
        if found:  # the one that is complete first; of several, the longest
            _, start, stop = min(found)
            return self._text[:start], stop
        return self._let_go(), None

    def _let_go(self) -> str:
        count = min(self._released)
        out, self._text = self._text[:count], self._text[count:]
        self._released = [released - count for released in self._released]
        return out

    @staticmethod
    def _visible(text: str) -> int:
        """Characters of a text that are no marks."""
        return sum(not _HIDDEN <= char <= "\udbff" for char in text)
