"""What the three kinds of tokenizer share: named tokens, BOS and EOS, decoding as the fold of a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from jaxserve.text.tokenizers.special import Affixes
from jaxserve.text.tokenizers.streams import TokenStream

T = TypeVar("T")


class IdTable(dict[int, T], Generic[T]):
    """Values by token id, computed on first use; `table[id]` then costs one dictionary look-up."""

    def __init__(self, compute: Callable[[int], T]) -> None:
        super().__init__()
        self._compute = compute

    def __missing__(self, token_id: int) -> T:
        value = self[token_id] = self._compute(token_id)
        return value


class BaseTokenizer(ABC):
    """Implements `jaxserve.text.tokenizers.tokenizer.Tokenizer` upon a few methods of the concrete vocabulary."""

    def __init__(self, *, size: int, special_ids: Iterable[int], names: Mapping[str, str], affixes: Affixes) -> None:
        self._size = size
        self._special_ids = frozenset(special_ids)
        self._names = MappingProxyType(dict(names))
        self._affixes = affixes

    @property
    def vocab_size(self) -> int:
        """Highest token id + 1."""
        return self._size

    @property
    def bos_id(self) -> int | None:
        """Token that begins a text."""
        return self._affixes.bos_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a generation, ascending."""
        return self._affixes.eos_ids

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """Named special tokens."""
        return self._names

    def encode(self, text: str, *, add_special_tokens: bool, parse_special: bool = True) -> list[int]:
        """Token ids of a text; see `jaxserve.text.tokenizers.tokenizer.Tokenizer.encode`."""
        ids = self._encode(mend_surrogates(text), parse_special)
        return self._affixes.wrap(ids) if add_special_tokens else ids

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool) -> str:
        """Text of token ids."""
        stream = self.stream(skip_special_tokens=skip_special_tokens)
        text = "".join(map(stream.push, ids))
        return text + stream.flush()

    def token_text(self, token_id: int) -> str:
        """`token_bytes` as UTF-8, broken bytes as U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def is_special(self, token_id: int) -> bool:
        """Whether `skip_special_tokens` leaves this token out."""
        return token_id in self._special_ids

    @abstractmethod
    def _encode(self, text: str, parse_special: bool) -> list[int]:
        """Ids of a text without anything around them."""

    @abstractmethod
    def stream(self, *, skip_special_tokens: bool) -> TokenStream:
        """A fresh incremental decoder."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """The bytes this token stands for inside a text."""

    @abstractmethod
    def id_of(self, text: str) -> int | None:
        """Id of a token by its text."""


def mend_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates (possible in JSON, impossible in UTF-8) as U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
