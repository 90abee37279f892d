"""How byte-level BPE cuts a text into words before it merges, by the name that GGUF files have for it.

Each expression is the one in the tokenizer.json, or the tiktoken encoding, of the models named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _cl100k(digits: str) -> str:
    """GPT-4's expression, with numbers cut as given."""
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}|{_TAIL}"


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Words:
    """One way to cut."""

    expressions: tuple[str, ...] = ()
    """Each cuts what the ones before left, at its matches and between them."""
    gpt2: bool = False
    """GPT-2's own expression comes last."""
    single_digits: bool = False
    """Digits are words of their own."""
    nfc: bool = False
    """Texts are normalised to Unicode's NFC first."""
    whole_words: bool = False
    """A word that is a token is not put together of merges."""

    def steps(self) -> list[dict[str, Any]]:
        """The pre-tokenizers of a tokenizer.json."""
        digits = [{"type": "Digits", "individual_digits": True}] if self.single_digits else []
        cuts = [
            {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
            for expression in self.expressions
        ]
        return [*digits, *cuts]


_GPT2 = Words(gpt2=True)
_DIGITS = Words(gpt2=True, single_digits=True)
_LLAMA3 = Words((_cl100k(r"\p{N}{1,3}"),), whole_words=True)
_QWEN2 = Words((_cl100k(r"\p{N}"),), nfc=True)
PRE_TOKENIZERS: dict[str, Words] = {
    "gpt-2": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "glm4": Words((_cl100k(r"\p{N}{1,3}"),)),
    "chatglm-bpe": Words((_cl100k(r"\p{N}{1,3}"),)),
    "gpt-4o": Words((_O200K,)),
    "tekken": Words((_TEKKEN,), whole_words=True),
    "deepseek-v3": Words((r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK_V3)),
}
"""`tokenizer.ggml.pre` -> how it cuts."""
