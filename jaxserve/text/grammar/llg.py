"""llguidance's view of a tokenizer, built once from ours, whatever kind of file that came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llguidance import LLParserLimits, LLTokenizer, TokenizerWrapper

from jaxserve.text.tokenizers.tokenizer import Tokenizer

LIMITS = LLParserLimits(
    max_items_in_row=10_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=200_000,
    max_lexer_states=250_000,
    max_grammar_size=500_000,
)
"""Bounds on the time and memory of one grammar; passing one is an error, not a stall."""


class _Source:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, special: Iterable[int], eos: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = eos
        self.bos_token_id = tokenizer.bos_id
        self.tokens: Sequence[bytes] = [tokenizer.token_bytes(index) for index in range(vocab_size)]
        self.special_token_ids = sorted(special)

    def __call__(self, text: bytes | str) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._tokenizer.encode(text, add_special_tokens=False, parse_special=False)


def build_tokenizer(
    tokenizer: Tokenizer, vocab_size: int, *, markers: Iterable[int], stops: Iterable[int]
) -> LLTokenizer:
    """A tokenizer for grammars over `vocab_size` ids (the model's: bitmasks have that many bits).

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
    source = _Source(tokenizer, vocab_size, special, ends[0])
    return LLTokenizer(TokenizerWrapper(source), n_vocab=vocab_size, eos_token=ends)
