"""llguidance's view of a tokenizer, built once from ours, whatever kind of file that came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from jaxserve.text.tokenizers.tokenizer import Tokenizer

LIMITS = LLParserLimits(
    max_items_in_row=10_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=200_000,
    max_lexer_states=250_000,
    max_grammar_size=500_000,
)
"""Bounds on the time and memory of one grammar. Not all work is counted: what is compiled has been tried in a worker
process before (`jaxserve.text.grammar.trial`)."""

Encode = Callable[[bytes], list[int]]


@dataclass(frozen=True)
class Vocabulary:
    """What llguidance knows of a tokenizer. Plain values: it can be sent to another process."""

    tokens: tuple[bytes, ...]
    """By id; empty where the model has an id that the tokenizer doesn't know: never allowed."""
    special: tuple[int, ...]
    ends: tuple[int, ...]
    """Tokens that may end a constrained answer."""
    bos: int | None

    def build(self, encode: Encode) -> LLTokenizer:
        """The tokenizer. Takes up to a second (150,000 tokens)."""
        return LLTokenizer(TokenizerWrapper(_Source(self, encode)), n_vocab=len(self.tokens), eos_token=list(self.ends))


class _Source:
    """What llguidance asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary, encode: Encode) -> None:
        self._encode = encode
        self.eos_token_id = vocabulary.ends[0]
        self.bos_token_id = vocabulary.bos
        self.tokens = vocabulary.tokens
        self.special_token_ids = list(vocabulary.special)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._encode(text.encode() if isinstance(text, str) else text)


def vocabulary_of(tokenizer: Tokenizer, vocab_size: int, *, markers: Iterable[int], stops: Iterable[int]) -> Vocabulary:
    """The vocabulary of grammars over `vocab_size` ids (the model's: bitmasks have that many bits).

    Markers count as special tokens even where the model's files don't say so: no text in a constrained answer can then
    contain one by accident.

    Args:
        tokenizer: ours.
        vocab_size: of the model; ids the tokenizer doesn't know are never allowed.
        markers: ids of the format's markers.
        stops: tokens that may end a constrained answer.

    Raises:
        ValueError: no stop token.
    """
    ends = sorted(index for index in set(stops) if index < vocab_size)
    if not ends:
        raise ValueError("a model without an end-of-sequence token can't be constrained")
    special = {index for index in range(min(vocab_size, tokenizer.vocab_size)) if tokenizer.is_special(index)}
    special |= {index for index in {*markers, *ends} if index < vocab_size}
    tokens = tuple(tokenizer.token_bytes(index) for index in range(vocab_size))
    return Vocabulary(tokens, tuple(sorted(special)), tuple(ends), tokenizer.bos_id)


def compile_lark(tokenizer: LLTokenizer, source: str) -> LLMatcher:
    """A matcher at the beginning of an output; `is_error` tells whether the grammar could be compiled."""
    return LLMatcher(tokenizer, source, log_level=0, limits=LIMITS)
