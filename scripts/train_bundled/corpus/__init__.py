"""Our own text: little stories and chats about them, written by a planner and a grammar, seeded and deterministic.

`grammar` turns templates into sentences, `lexicon` holds the words, `cast` the people, things and places of one
story, `teller` collects the sentences. `plots` has one file per family of plots and `kinds` one file per kind of
document; a new kind of text is one new file in `kinds` and one line in its registry.
"""

from __future__ import annotations

import random
from collections.abc import Iterator


def documents(seed: int, count: int, first: int = 0) -> Iterator[str]:
    """`count` documents of the stream that a seed names; each depends on the seed and its index only."""
    from train_bundled.corpus.kinds import draw_document

    for index in range(first, first + count):
        yield draw_document(random.Random(f"{seed}/{index}"))
