"""A plain story, as a completion model tells it."""

from __future__ import annotations

import random

from train_bundled.corpus.cast import draw_hero
from train_bundled.corpus.plots import PLOTS
from train_bundled.corpus.teller import Facts, Story, Teller

_NAMES = tuple(PLOTS)


def tell_story(rng: random.Random, plot: str | None = None) -> Story:
    """A new story with its facts."""
    teller = Teller(rng, Facts(draw_hero(rng)), detail=rng.choice((0.2, 0.5, 0.8)))
    PLOTS[plot or rng.choice(_NAMES)](teller)
    return Story(teller.text(), teller.facts, "")


def document(rng: random.Random) -> str:
    """A story alone."""
    return tell_story(rng).text
