"""What people type, checked at the border: plain values come out, or one sentence that names the argument."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypeAlias

from jaxserve.errors import InvalidRequest
from jaxserve.text.tokenizers.tokenizer import Tokenizer

Prompt: TypeAlias = str | Sequence[int]
"""A text or its token ids; NumPy and JAX arrays are sequences of ids, too."""
Prompts: TypeAlias = Prompt | Sequence[Prompt]


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number of a range; NumPy's count as well, floats and booleans don't.

    Raises:
        InvalidRequest: it is something else.
    """
    if not isinstance(value, bool) and isinstance(value, Integral):
        number = int(value)
        if number >= least and (most is None or number <= most):
            return number
    bounds = f"of at least {least}" if most is None else f"between {least} and {most}"
    raise InvalidRequest(name, f"{name} must be a whole number {bounds}, got {reprlib.repr(value)}")


def texts(name: str, value: Any) -> tuple[str, ...]:
    """One text or several, none of them empty.

    Raises:
        InvalidRequest: it is something else.
    """
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, Sequence) or not all(isinstance(text, str) and text for text in found):
        raise InvalidRequest(name, f"{name} must be a text or a list of texts, none empty, got {reprlib.repr(value)}")
    return tuple(found)


def whole_text(name: str, value: Any) -> str:
    """A text that has an encoding.

    Raises:
        InvalidRequest: it is something else, or holds half of a character.
    """
    if not isinstance(value, str):
        raise InvalidRequest(name, f"{name} must be a text, got {reprlib.repr(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(name, f"{name} holds half of a character at {error.start}: a lone surrogate") from None
    return value


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    """Token ids from a list or an array of one dimension.

    Raises:
        InvalidRequest: it is something else.
    """
    return tuple(whole(name, token, 0) for token in _listed(name, value))


def prompts(value: Any, tokenizer: Tokenizer, vocab_size: int) -> list[tuple[int, ...]]:
    """Token ids of each prompt: of one text, of one list or array of ids, or of a list of these.

    Raises:
        InvalidRequest: a prompt is empty, of another type, or holds a token that the model lacks.
    """
    value = _unwrapped("prompts", value)
    return [_checked(_ids(each, tokenizer), vocab_size) for each in (value if _several(value) else [value])]


def _several(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and not all(isinstance(item, Integral) for item in value)
    )


def _ids(prompt: Any, tokenizer: Tokenizer) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return tuple(tokenizer.encode(whole_text("prompts", prompt), add_special_tokens=True))
    if isinstance(prompt, Mapping):
        raise InvalidRequest("prompts", "prompts: this is a message of a conversation; llm.chat(messages) takes those")
    return tuple(_token(token) for token in _listed("prompts", prompt))


def _token(token: Any) -> int:
    if not isinstance(token, bool) and isinstance(token, Integral):
        return int(token)
    raise InvalidRequest("prompts", f"prompts: token ids are whole numbers, got {reprlib.repr(token)}")


def check_vocabulary(name: str, ids: Sequence[int], vocab_size: int) -> None:
    """Refuses ids that the model lacks.

    Raises:
        InvalidRequest: there is one.
    """
    unknown = next((token for token in ids if not 0 <= token < vocab_size), None)
    if unknown is not None:
        raise InvalidRequest(name, f"{name}: token {unknown}, but the vocabulary has {vocab_size} tokens")


def _checked(ids: tuple[int, ...], vocab_size: int) -> tuple[int, ...]:
    if not ids:
        raise InvalidRequest("prompts", "a prompt holds no tokens")
    check_vocabulary("prompts", (min(ids), max(ids)), vocab_size)
    return ids


def _listed(name: str, value: Any) -> Sequence[Any]:
    found = _unwrapped(name, value)
    if isinstance(found, Sequence) and not isinstance(found, str):
        return found
    raise InvalidRequest(name, f"{name}: {reprlib.repr(value)} is neither a text nor token ids")


def _unwrapped(name: str, value: Any) -> Any:
    """Arrays as lists; bytes are refused, being a sequence of numbers that nobody means as token ids."""
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidRequest(name, f"{name}: bytes are no text; decode them first")
    if isinstance(value, range):
        return list(value)
    return value.tolist() if hasattr(value, "tolist") else value
