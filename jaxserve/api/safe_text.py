"""Special tokens that callers spell out in their texts, told from those that the chat template writes.

Every special token in a caller's text is broken by a character that occurs nowhere else; what the template then writes
whole is its own. Where no text holds one, nothing changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jaxserve.api.ports import Tokenizer
from jaxserve.errors import InvalidRequest
from jaxserve.text.reading.reader import Markers

_KEPT_KEYS = ("role", "type")
"""Fields that templates compare with words of their own, and that the request's schema restricts to those."""


class SafeText:
    """Breaks special tokens in texts, and reads what a template made of the texts.

    Args:
        tokenizer: of the model.
        texts: everything the caller wrote (any JSON).

    Raises:
        InvalidRequest: the texts use up all the characters that could break a token.
    """

    def __init__(self, tokenizer: Tokenizer, texts: Any) -> None:
        self._tokenizer = tokenizer
        written = json.dumps(texts, ensure_ascii=False)
        breakers = (chr(code) for code in range(0xE000, 0xF900) if chr(code) not in written)
        breaker = next(breakers, None)
        if breaker is None:
            raise InvalidRequest("safe_tokenization", "safe_tokenization: the texts hold every private-use character")
        self._breaker = breaker
        self._broken = False

    def break_all(self, value: Any) -> Any:
        """The same JSON with every special token in its texts broken."""
        if isinstance(value, str):
            return self._break(value)
        if isinstance(value, Mapping):
            return {
                self._break(key): part if key in _KEPT_KEYS else self.break_all(part) for key, part in value.items()
            }
        return [self.break_all(part) for part in value] if isinstance(value, Sequence) else value

    def encode(self, rendered: str) -> tuple[str, list[int]]:
        """What a template wrote of broken texts: the text with the tokens whole again, and its token ids."""
        if not self._broken:
            return rendered, self._encode(rendered, parse_special=True)
        ids: list[int] = []
        specials = self._specials(rendered)
        for number, part in enumerate(_split(rendered, specials)):
            plain = self._mended(part)
            ids += self._encode(plain, parse_special=number % 2 == 1)
        return self._mended(rendered), ids

    def _break(self, text: str) -> str:
        while specials := {special for special in self._specials(text) if len(special) > 1}:
            self._broken = True
            parts = _split(text, specials)
            parts[1::2] = [f"{part[0]}{self._breaker}{part[1:]}" for part in parts[1::2]]
            text = "".join(parts)
        return text

    def _mended(self, text: str) -> str:
        escaped = f"\\u{ord(self._breaker):04x}"  # a template may have written the text as ASCII JSON
        return text.replace(self._breaker, "").replace(escaped, "")

    def _specials(self, text: str) -> set[str]:
        """Texts of the special and added tokens that the tokenizer would find."""
        found = set()
        for token in set(self._encode(text, parse_special=True)):
            spelled = self._tokenizer.token_text(token)
            if spelled and spelled in text and self._encode(spelled, parse_special=False) != [token]:
                found.add(spelled)
        return {special for special in found if self._is_special(special)}

    def _is_special(self, text: str) -> bool:
        whole = self._encode(text, parse_special=True)
        return len(whole) == 1 and whole != self._encode(text, parse_special=False)

    def _encode(self, text: str, *, parse_special: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False, parse_special=parse_special)


def _split(text: str, texts: set[str]) -> list[str]:
    """Parts of a text; those at odd places are the given texts."""
    if not texts:
        return [text]
    return re.split("(" + "|".join(map(re.escape, sorted(texts, key=len, reverse=True))) + ")", text)


def spells_control(texts: Any, control: Markers) -> bool:
    """Whether a text somewhere in this JSON holds a control token; linear, without tokenizing."""
    if isinstance(texts, str):
        return control.find(texts, 0, ended=True)[1] is not None
    if isinstance(texts, Mapping):
        texts = [*texts, *texts.values()]
    return isinstance(texts, Sequence) and any(spells_control(part, control) for part in texts)


def encode_safely(
    tokenizer: Tokenizer,
    messages: Sequence[Any],
    tools: Sequence[Any],
    render: Callable[[Any, Any], str],
    guarded: Collection[str],
) -> tuple[str, list[int]]:
    """The prompt of messages and tools in which no special token comes from guarded texts; (text, token ids).

    Args:
        tokenizer: of the model.
        messages: for the template.
        tools: for the template.
        render: (messages, tools) to the prompt's text.
        guarded: roles of messages; "tools" stands for the tools.

    Raises:
        InvalidRequest: see `SafeText`.
        TemplateError: the template refused the messages.
    """
    safe = SafeText(tokenizer, [messages, tools])
    broken = [safe.break_all(message) if message["role"] in guarded else message for message in messages]
    return safe.encode(render(broken, safe.break_all(tools) if "tools" in guarded else tools))
