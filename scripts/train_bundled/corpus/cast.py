"""The people, things and places of one story, drawn so that they fit together."""

from __future__ import annotations

import random
from dataclasses import dataclass

from train_bundled.corpus import lexicon
from train_bundled.corpus.grammar import expand


@dataclass(frozen=True)
class Character:
    """Someone in a story; pronouns are attributes so that templates agree by themselves."""

    name: str
    """How the story refers to them: "Mia", "the fox", "his mother"."""
    noun: str
    """What they are: "girl", "fox", "grandmother"."""
    he: str
    """The pronoun: "he" or "she"."""
    adj: str = "little"
    home: str = "small house"
    food: str = "cookies"
    motion: str = "smiled"
    """A small characteristic movement, past tense."""
    trait: str = "kind"
    habits: tuple[str, str] = ("smiled a lot", "liked everyone")
    address: str = ""
    """How others speak to them."""
    sort: str = "child"
    """child, creature, fantasy, family or town."""

    def __str__(self) -> str:
        return self.name

    @property
    def him(self) -> str:
        """Object pronoun."""
        return "him" if self.he == "he" else "her"

    @property
    def his(self) -> str:
        """Possessive pronoun."""
        return "his" if self.he == "he" else "her"

    @property
    def himself(self) -> str:
        """Reflexive pronoun."""
        return "himself" if self.he == "he" else "herself"

    @property
    def lives(self) -> str:
        """Home with preposition: "in a hollow tree"."""
        return f"{'on' if self.home in lexicon.ON_HOMES else 'in'} a {self.home}"

    @property
    def habit(self) -> str:
        """What they often did, past tense."""
        return self.habits[0]

    @property
    def habit2(self) -> str:
        """Another such thing."""
        return self.habits[1]

    @property
    def named(self) -> bool:
        """Whether they have a name of their own."""
        return self.name[0].isupper()

    @property
    def call(self) -> str:
        """The word used when spoken to."""
        return self.address or (self.name if self.named else f"little {self.noun}")

    @property
    def intro(self) -> str:
        """First mention: "a little girl named Mia"; grown-ups are just named."""
        if self.sort in {"family", "town", "elder"}:
            return self.name
        named = f" named {self.name}" if self.named else ""
        return f"a {self.adj} {self.noun}{named}"


@dataclass(frozen=True)
class Thing:
    """The thing a story turns on."""

    entry: lexicon.ThingEntry
    adj: str

    def __str__(self) -> str:
        return self.entry.noun

    @property
    def full(self) -> str:
        """With its adjective: "red ball"."""
        return f"{self.adj} {self.entry.noun}"

    @property
    def use(self) -> str:
        """What one does with it, base form."""
        return self.entry.use

    @property
    def used(self) -> str:
        """What was done with it, past tense."""
        return self.entry.used


@dataclass(frozen=True)
class Place:
    """Where the story happens."""

    entry: lexicon.PlaceEntry
    spot: str
    sight: str

    def __str__(self) -> str:
        return self.entry.noun

    @property
    def at(self) -> str:
        """With preposition: "in the park"."""
        return self.entry.at

    @property
    def to(self) -> str:
        """As a direction: "to the park"."""
        return self.entry.to


def _gender(rng: random.Random, noun: str) -> str:
    if noun in lexicon.FEMALE_ONLY:
        return "she"
    if noun in lexicon.MALE_ONLY:
        return "he"
    return rng.choice(("he", "she"))


def draw_child(rng: random.Random, avoid: frozenset[str] = frozenset()) -> Character:
    """A boy or a girl."""
    he = rng.choice(("he", "she"))
    name = rng.choice([n for n in (lexicon.BOYS if he == "he" else lexicon.GIRLS) if n not in avoid])
    trait, *habits = rng.choice(lexicon.TRAITS)
    home = rng.choice(
        ("small house near the park", "tall house with a blue door", "flat above the bakery", "red house by the river",
         "little cottage at the edge of the forest", "house on a hill", "white house in the village", "farmhouse",
         "yellow house on a quiet street", "big house with a garden", "house by the sea")
    )  # fmt: skip
    return Character(
        name=name, noun="boy" if he == "he" else "girl", he=he, home=home, trait=trait,
        adj=rng.choice(("little", "little", "small", "young", trait)),
        habits=_habits(habits, he), food=rng.choice(lexicon.FOODS),
        motion=rng.choice(("smiled", "laughed", "clapped {his} hands", "jumped up and down", "nodded", "giggled")).replace(
            "{his}", "his" if he == "he" else "her"),
    )  # fmt: skip


def _habits(habits: list[str], he: str) -> tuple[str, str]:
    first, second = (habit.replace("{he}", he).replace("{his}", "his" if he == "he" else "her") for habit in habits)
    return first, second


def draw_creature(rng: random.Random, avoid: frozenset[str] = frozenset(), *, fantasy: bool = False) -> Character:
    """An animal, or someone from a fairy tale."""
    if fantasy:
        noun, home, adjectives, motion = rng.choice([row for row in lexicon.FANTASY if row[0] not in avoid])
        food = rng.choice(lexicon.FOODS)
    else:
        noun, home, food, adjectives, motion = rng.choice([row for row in lexicon.CREATURES if row[0] not in avoid])
    he = _gender(rng, noun)
    names = [n for n in lexicon.PET_NAMES if n not in avoid]
    if fantasy and rng.random() < 0.5:
        names = [n for n in (lexicon.BOYS if he == "he" else lexicon.GIRLS) if n not in avoid]
    name = rng.choice(names) if rng.random() < 0.75 else f"the {noun}"
    trait, *habits = rng.choice(lexicon.TRAITS)
    adj = rng.choice([a.strip() for a in adjectives.split(";")] + ["little", "young", trait])
    return Character(
        name=name, noun=noun, he=he, adj=adj, home=home, food=food, trait=trait, habits=_habits(habits, he),
        motion=motion.replace("{his}", "his" if he == "he" else "her"), sort="fantasy" if fantasy else "creature",
    )  # fmt: skip


def draw_hero(rng: random.Random) -> Character:
    """The main character."""
    x = rng.random()
    return draw_child(rng) if x < 0.42 else draw_creature(rng, fantasy=x > 0.87)


def draw_friend(rng: random.Random, hero: Character) -> Character:
    """A second character of about the hero's age; never the same name, noun or (for clarity) pronoun as the hero's."""
    avoid = frozenset({hero.name, hero.noun})
    while True:
        if hero.sort == "child" and rng.random() < 0.6:
            friend = draw_child(rng, avoid)
        else:
            friend = draw_creature(rng, avoid, fantasy=rng.random() < 0.1)
        if friend.he != hero.he:
            return friend


def draw_elder(rng: random.Random, hero: Character) -> Character:
    """A grown-up whose pronoun differs from the hero's, so that "he" and "she" are never in doubt."""
    pronoun = "she" if hero.he == "he" else "he"
    rows = [row for row in lexicon.ELDERS if row[2] == pronoun]
    if hero.sort != "child":
        rows = [row for row in rows if "{his}" in row[0]]
    if hero.sort == "child" or rng.random() < 0.7:
        name, address, he, sort = rng.choice(rows)
        name = expand(rng, name, {"his": hero.his})
        return Character(name=name, noun=name.split()[-1].lower(), he=he, address=address, sort=sort)
    noun = rng.choice(("owl", "turtle", "badger", "goose", "bear", "crow", "goat", "swan"))
    noun = "toad" if noun == hero.noun else noun
    name = f"the old {noun}"
    return Character(name=name, noun=noun, he=pronoun, address=f"wise {noun}", sort="elder")


def draw_thing(rng: random.Random, *tags: str) -> Thing:
    """A thing that has all the tags."""
    entry = rng.choice([e for e in lexicon.THINGS if e.tags.issuperset(tags)])
    return Thing(entry, rng.choice(entry.adjectives))


def draw_place(rng: random.Random, *tags: str) -> Place:
    """A place that has all the tags."""
    entry = rng.choice([e for e in lexicon.PLACES if e.tags.issuperset(tags)])
    return Place(entry, rng.choice(entry.spots), rng.choice(entry.sights))
