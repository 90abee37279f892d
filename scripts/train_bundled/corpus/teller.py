"""Collects the sentences of one story and remembers what happened in it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from train_bundled.corpus import cast
from train_bundled.corpus.cast import Character, Place, Thing
from train_bundled.corpus.grammar import expand, polish

PHRASES = {
    "day": "[One [sunny|warm|bright|cold|windy|quiet|foggy|fine] [morning|afternoon|day]|One day|"
    "On [Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday]|After [breakfast|lunch|a long nap]|"
    "Early in the morning|Late in the afternoon|One [spring|summer|autumn|winter] [morning|day]|Then one day]",
    "sad": "[sad|unhappy|very sad|so sad|miserable|upset|heartbroken]",
    "glad": "[happy|glad|so happy|very happy|delighted|full of joy|overjoyed|as happy as could be]",
    "said": "[said|said|answered|replied]",
    "cried": "[cried|shouted|called|exclaimed]",
}
"""Slots every story has: a time (a comma follows), feelings, ways to speak."""


@dataclass
class Facts:
    """What is true in a story: requests, questions and sequels are derived from it."""

    hero: Character
    theme: str = "friendship"
    friend: Character | None = None
    elder: Character | None = None
    thing: Thing | None = None
    place: Place | None = None
    problem: str = ""
    """A clause in the past tense with the hero as subject: "lost her red ball"."""
    solution: str = ""
    """A clause in the past tense that says how it ended: "found it under a bench"."""
    feeling: str = "happy"
    """How the hero felt at the end."""
    lesson: str = ""


@dataclass
class Story:
    """A finished story and its facts."""

    text: str
    facts: Facts
    title: str


@dataclass
class Teller:
    """Draws the cast on demand and writes paragraphs of templates about it."""

    rng: random.Random
    facts: Facts
    paragraphs: list[list[str]] = field(default_factory=lambda: [[]])
    extra: dict[str, object] = field(default_factory=dict)
    """Slots of this plot."""
    detail: float = 0.5
    """How likely an optional sentence is told: the length of the story."""

    @property
    def hero(self) -> Character:
        """The main character."""
        return self.facts.hero

    def friend(self) -> Character:
        """Draws the second character."""
        self.facts.friend = cast.draw_friend(self.rng, self.hero)
        self.let(c=self.facts.friend)
        return self.facts.friend

    def elder(self) -> Character:
        """Draws the grown-up."""
        self.facts.elder = cast.draw_elder(self.rng, self.hero)
        self.let(c=self.facts.elder)
        return self.facts.elder

    def thing(self, *tags: str) -> Thing:
        """Draws the thing of the story."""
        self.facts.thing = cast.draw_thing(self.rng, *tags)
        return self.facts.thing

    def place(self, *tags: str) -> Place:
        """Draws the place of the story."""
        self.facts.place = cast.draw_place(self.rng, *tags)
        return self.facts.place

    def let(self, **slots: object) -> None:
        """Adds slots for the rest of the story; `c`, the companion, is the friend or elder drawn last."""
        self.extra |= slots

    def words(self, template: str, **extra: object) -> str:
        """The template with this story's cast filled in, not yet told."""
        facts = self.facts
        slots = {
            **PHRASES,
            **self.extra,
            "h": facts.hero,
            "f": facts.friend,
            "e": facts.elder,
            "t": facts.thing,
            "p": facts.place,
            **extra,
        }
        return expand(self.rng, template, slots)

    def tell(self, *templates: str, **extra: object) -> None:
        """Adds sentences to the current paragraph."""
        for template in templates:
            text = self.words(template, **extra)
            if text.strip():
                self.paragraphs[-1].append(text)

    def perhaps(self, *templates: str, **extra: object) -> None:
        """Adds each sentence only if the story is told in detail."""
        for template in templates:
            if self.rng.random() < self.detail:
                self.tell(template, **extra)

    def chance(self, probability: float) -> bool:
        """A coin toss, for turns of the plot."""
        return self.rng.random() < probability

    def paragraph(self) -> None:
        """Starts a new paragraph."""
        if self.paragraphs[-1]:
            self.paragraphs.append([])

    def ending(self, problem: str, solution: str, feeling: str = "[happy|glad|proud]", lesson: str = "") -> None:
        """Notes what happened; the templates are told by questions and sequels, not in the story."""
        self.facts.problem = polish_clause(self.words(problem))
        self.facts.solution = polish_clause(self.words(solution))
        self.facts.feeling = self.words(feeling)
        self.facts.lesson = polish_clause(self.words(lesson))

    def text(self) -> str:
        """The story so far."""
        separator = "\n\n" if self.chance(0.75) else " "
        return separator.join(polish(" ".join(sentences)) for sentences in self.paragraphs if sentences)


def polish_clause(text: str) -> str:
    """Repairs articles and spaces of a clause and leaves its first letter small."""
    return polish("x " + text)[2:]


_FAMILY = (
    "[{h.he} lived with {h.his} [mother|father|grandmother|grandfather|two brothers|three sisters|big family|parents and a baby sister].|"
    "{h.he} had [a twin|four cousins|seven brothers|a very old grandmother|a noisy family].]"
)

_LOOKS = {
    "child": "[{h.he} had [curly hair|brown eyes|freckles on {h.his} nose|a missing tooth|long black hair|a loud laugh|short red hair|round glasses].|"
    "{h.he} [always wore|liked to wear] [red boots|a green sweater|a yellow raincoat|odd socks|a cap|striped trousers].|"
    "{h.he} was [five|six|seven|eight] years old.]",
    "creature": "[{h.he} had [bright eyes|very soft ears|a funny nose|a white spot on {h.his} back|tiny feet|a crooked smile].|"
    "{h.he} was [smaller|bigger|slower|faster|louder] than all the others.|"
    "{h.he} loved {h.food} more than anything.]",
    "fantasy": "[Nobody knew how old {h.he} was.|{h.he} had [a silver belt|shiny eyes|a long shadow|a deep voice|strange shoes].|"
    "{h.he} was not like the others at all.|Some people were afraid of {h.him}, but {h.he} was friendly.]",
}

_PLACES_TO_LIVE = (
    "[Far away|Far, far away|Behind seven hills|In the middle of a green valley|At the edge of the world|Near a quiet village|"
    "Not far from the sea|On the other side of the river|In a faraway land|Where the road ends]"
)

_UNNAMED_OR_NAMED = (
    "[Once upon a time, there [was|lived]|Once there was|Long ago, there [was|lived]|There once was|Many years ago, there lived|"
    "Not so long ago, there was|{lives}, there lived|{far}, there lived|{far} lived|This is the story of] {h.intro}."
)
_NAMED = (
    "[{h} was a {h.adj} {h.noun}.|{h} was a {h.adj} {h.noun} who lived {h.lives}.|{h} the {h.noun} lived {h.lives}.|"
    "{h}, a {h.adj} {h.noun}, lived {h.lives}.|Everyone [loved|knew] {h}, the {h.adj} {h.noun}.|"
    "{lives} lived a {h.noun}. {h.his} name was {h}.]"
)


def openings(teller: Teller) -> None:
    """Introduces the hero: who, where, and in detailed stories a habit, a look, a family."""
    t = teller
    template = _NAMED if t.hero.named and t.chance(0.4) else _UNNAMED_OR_NAMED
    t.tell(template, far=_PLACES_TO_LIVE, lives=t.hero.lives)
    t.perhaps(
        "[{h.he} was [very|so|always] {h.trait} and {h.habit}.|{h} was [very|quite|always] {h.trait}. {h.he} {h.habit}.|"
        "Everyone knew that {h} {h.habit2}.|{h.he} {h.habit} and {h.habit2}.|{h} {h.habit}.]"
    )
    if t.chance(t.detail / 3):
        t.tell(_LOOKS[t.hero.sort])
    if t.chance(t.detail / 4):
        t.tell(_FAMILY)
