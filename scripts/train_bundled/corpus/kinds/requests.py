"""How people ask for a story that is then told: requests are derived from the facts of the finished story."""

from __future__ import annotations

import random

from train_bundled.corpus.cast import Character
from train_bundled.corpus.grammar import expand, polish
from train_bundled.corpus.teller import Facts

_ASK = (
    "[Tell me|Please tell me|Can you tell me|Could you tell me|Write|Please write|Can you write|Write me|Make up|I want to hear|"
    "I would like|Give me|Tell] a [|short|little|nice|new|bedtime|children's|simple|sweet] story"
)


def _mention(rng: random.Random, who: Character) -> str:
    """A character as a request names it."""
    options = [f"a {who.noun}", f"a {who.noun}", f"a {who.adj} {who.noun}"]
    if who.named:
        options.append(f"a {who.noun} named {who.name}")
        options.append(f"a {who.noun} called {who.name}")
    return rng.choice(options)


def _ingredients(rng: random.Random, facts: Facts) -> list[str]:
    """What the story is about, the hero first; some of it is left out."""
    parts = [_mention(rng, facts.hero)]
    if facts.thing and rng.random() < 0.75:
        parts.append(f"a {rng.choice((facts.thing.full, facts.thing.full, str(facts.thing)))}")
    if facts.friend and rng.random() < 0.4:
        parts.append(_mention(rng, facts.friend))
    if len(parts) > 1 and rng.random() < 0.2:
        parts[0], parts[1] = parts[1], parts[0]
    return parts


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def request(rng: random.Random, facts: Facts) -> str:
    """A user's message that the story of these facts answers."""
    x = rng.random()
    about = _join(_ingredients(rng, facts))
    if x < 0.06:
        text = f"{_ASK}."
    elif x < 0.16:
        text = f"{_ASK} about {facts.theme}."
    elif x < 0.24:
        hero = _mention(rng, facts.hero)
        text = f"{_ASK} about {hero} who {facts.problem}."
    elif x < 0.30:
        words = (
            [facts.hero.noun]
            + ([str(facts.thing)] if facts.thing else [])
            + ([str(facts.place)] if facts.place else [])
        )
        rng.shuffle(words)
        text = f"{_ASK} [with the words|that uses the words|with these words:] {', '.join(words)}."
    elif x < 0.45 and facts.place:
        text = rng.choice((f"{_ASK} about {about}[,|] set {facts.place.at}.", f"{_ASK} about {about} {facts.place.at}.",
                           f"{_ASK} set {facts.place.at} about {about}."))  # fmt: skip
    else:
        text = f"{_ASK} [about|about|about|with] {about}."
    text = polish(expand(rng, text))
    return _casual(rng, text)


def another(rng: random.Random, facts: Facts) -> str:
    """A follow-up that asks for a different story."""
    about = _join(_ingredients(rng, facts))
    text = expand(
        rng,
        f"[Now tell me one|Tell me another story|Another one, please, this time|Now a story|Can you tell one] about {about}.",
    )
    return _casual(rng, polish(text))


def _casual(rng: random.Random, text: str) -> str:
    """Questions get a question mark; some people write without capitals or full stop."""
    if text.startswith(("Can you", "Could you")):
        text = text[:-1] + "?"
    x = rng.random()
    if x < 0.08:
        return text[:-1]
    if x < 0.15:
        return text[:1].lower() + text[1:-1]
    if x < 0.2:
        return text[:-1] + "!"
    return text
