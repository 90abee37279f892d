"""Text of a wished number of tokens, for a server whose tokenizer is unknown."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from jaxserve.bench.load import Block

_TEXT = """
time year people way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work number night point home water room mother area money story fact
month lot right study book eye job word business issue side kind head house service friend father power hour game line
end member law car city name team minute idea body back parent face level office door health person art war history
party result change morning reason research girl moment air teacher force
"""
"""Common words, which most vocabularies hold as one token each."""
_WORDS = _TEXT.split()


@dataclass(frozen=True)
class Words:
    """Makes the texts of blocks."""

    seed: int
    tokens_per_word: float = 1.0
    """Of the server's tokenizer, measured."""

    def prompt(self, blocks: Iterable[Block]) -> str:
        """The text of a prompt."""
        return " ".join(self._text(block) for block in blocks)

    def _text(self, block: Block) -> str:
        count = max(1, round(block.tokens / self.tokens_per_word))
        return " ".join(random.Random(f"{self.seed} {block.name}").choices(_WORDS, k=count))
