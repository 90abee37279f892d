"""A conversation around a story: a request, the story, questions about it, what happened next."""

from __future__ import annotations

import random
from collections.abc import Callable

from train_bundled.corpus.chat import Turn, render
from train_bundled.corpus.grammar import expand, polish
from train_bundled.corpus.kinds.requests import another, request
from train_bundled.corpus.kinds.story import tell_story
from train_bundled.corpus.teller import Facts

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a storyteller.",
    "You are a friendly storyteller for children.",
    "You tell short stories.",
    "You are a kind assistant who tells little stories.",
    "You are JaxServe, a small story model.",
    "Answer in simple words.",
    "You write stories for small children. Be gentle and clear.",
    "You are a helpful, honest assistant.",
)

_COLORS = frozenset(
    ["red", "blue", "green", "yellow", "purple", "orange", "pink", "white", "golden", "silver", "brown", "black"]
)

Pair = tuple[str, str]


def _slots(facts: Facts) -> dict[str, object]:
    return {"h": facts.hero, "f": facts.friend, "e": facts.elder, "t": facts.thing, "p": facts.place,
            "problem": facts.problem, "solution": facts.solution, "feeling": facts.feeling, "lesson": facts.lesson}  # fmt: skip


def _questions(facts: Facts) -> list[Pair]:
    """Question and answer templates that these facts can answer."""
    pairs = [
        ("[Who is the story about|Who is the main character]?", "[The story|It] is about {h.intro}."),
        ("[What was the problem|What went wrong|What was the trouble]?", "{h} {problem}."),
        (
            "[How did it end|How did the story end|How was the problem solved]?",
            "[In the end, {h} {solution}.|{h} {solution}.]",
        ),
        ("How did {h} feel [at the end|in the end]?", "[At the end, {h} felt {feeling}.|{h} felt {feeling}.]"),
    ]
    if facts.hero.named:
        name = "The {h.noun}'s name was {h}."
        pairs += [
            ("What [was|is] the {h.noun}'s name?", name),
            ("What was the {h.noun} called?", f"[{name}|{{h.he}} was called {{h}}.]"),
        ]
        pairs.append(("[Who|What kind of character] was {h}?", "{h} was a {h.adj} {h.noun}."))
    if facts.place:
        pairs.append(
            ("[Where did it happen|Where was {h}|Where does the story take place]?", "[It happened|{h} was] {p.at}.")
        )
    if facts.friend:
        pairs.append(
            (
                "[Who did {h} meet|Who else is in the story|Who was {h.his} friend]?",
                "[{h} met {f.intro}.|It was {f.intro}.]",
            )
        )
    if facts.friend and "help" in facts.solution:
        pairs.append(("Who helped {h}?", "{f} helped {h.him}."))
    if facts.elder and "help" in facts.solution:
        pairs.append(("Who helped {h}?", "{e} helped {h.him}."))
    if facts.thing and facts.thing.adj in _COLORS:
        pairs.append(("What color was the {t}?", "The {t} was {t.adj}."))
    if facts.lesson:
        pairs.append(
            (
                "[What can we learn from it|What is the lesson|What is the moral of the story]?",
                "[We learn that {lesson}.|The story says that {lesson}.]",
            )
        )
    if facts.thing:
        pairs.append(
            (
                "[Give it a title|Can you give the story a title|What is a good title]?",
                "[The {title}|{h} and the {title}]",
            )
        )
    return pairs


def _follow_up(rng: random.Random, facts: Facts) -> Pair:
    question, answer = rng.choice(_questions(facts))
    slots = _slots(facts)
    if facts.thing:
        slots["title"] = facts.thing.full.title()
    return polish(expand(rng, question, slots)), polish(expand(rng, answer, slots))


def _sequel(rng: random.Random, facts: Facts) -> Pair:
    """What happened next."""
    ask = "[Continue the story|What happened next|Go on|Tell me more|And then]"
    ask += "?" if rng.random() < 0.3 else "."
    companion = facts.friend or facts.elder
    lines = [
        "The next [day|morning], {h} [woke up early|was still {feeling}|told the story to everyone|got up and had {h.food} for breakfast]."
    ]
    if companion:
        lines.append(
            'Then {c} came [by|to visit]. "[Do you want to play again|Shall we go out|What shall we do today]?" asked {c}.'
        )
        lines.append('"[Yes, let us go|Yes, please|Oh yes]!" [said|cried] {h}.')
    if facts.place:
        lines.append(
            "[They|Together they] went {p.to} and saw {p.sight}."
            if companion
            else "{h.he} went {p.to} and saw {p.sight}."
        )
    if facts.thing:
        lines.append(
            "[This time, {h} took good care of the {t}.|{h} {t.used} and laughed.|The {t.full} was safe and sound.]"
        )
    lines.append(
        "[It was a lovely day.|In the evening, {h} was tired and {feeling}.|And so {h} had one more happy day.]"
    )
    text = expand(rng, " ".join(lines), {**_slots(facts), "c": companion})
    return polish(expand(rng, ask)).replace("next.", "next?"), polish(text)


_THANKS: tuple[Pair, ...] = (
    (
        "[Thank you|Thanks|That was nice|I liked it|What a lovely story]!",
        "[You are welcome!|I am glad you liked it!|It was a pleasure.] [Would you like another story?|]",
    ),
    ("[Good night|Bye|Goodbye]!", "[Good night! Sleep well.|Goodbye! Come back soon.|Bye! See you next time.]"),
)


def _closing(rng: random.Random, facts: Facts) -> Pair:
    ask, answer = rng.choice(_THANKS)
    return polish(expand(rng, ask)), polish(expand(rng, answer))


_TURNS: tuple[Callable[[random.Random, Facts], Pair], ...] = (_follow_up, _follow_up, _follow_up, _sequel, _closing)


def document(rng: random.Random) -> str:
    """A conversation of one to four exchanges."""
    turns = [Turn("system", rng.choice(SYSTEM_PROMPTS))] if rng.random() < 0.3 else []
    story = tell_story(rng)
    turns += [Turn("user", request(rng, story.facts)), Turn("assistant", story.text)]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
        if rng.random() < 0.12:
            story = tell_story(rng)
            pair = another(rng, story.facts), story.text
        else:
            pair = rng.choice(_TURNS)(rng, story.facts)
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return render(turns)
