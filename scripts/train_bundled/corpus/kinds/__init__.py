"""Kinds of documents, one file each: `KINDS` maps a name to its share and its function.

Such a function takes a random generator and returns the text of one document, chat marks included.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from train_bundled.corpus.kinds import conversation, smalltalk, story

KINDS: dict[str, tuple[float, Callable[[random.Random], str]]] = {
    "story": (0.35, story.document),
    "conversation": (0.6, conversation.document),
    "smalltalk": (0.05, smalltalk.document),
}


def draw_document(rng: random.Random) -> str:
    """A document of a kind drawn by the shares."""
    kind = rng.choices(tuple(KINDS), weights=[share for share, _ in KINDS.values()])[0]
    return KINDS[kind][1](rng)
