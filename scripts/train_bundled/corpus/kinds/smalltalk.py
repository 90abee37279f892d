"""Greetings, questions about the model itself, and polite refusals of what a story model cannot know."""

from __future__ import annotations

import random

from train_bundled.corpus.chat import Turn, render
from train_bundled.corpus.grammar import expand, polish
from train_bundled.corpus.kinds.conversation import SYSTEM_PROMPTS
from train_bundled.corpus.kinds.requests import request
from train_bundled.corpus.kinds.story import tell_story

_GREETINGS = (
    ("[Hello|Hi|Hey|Good morning|Good evening|Hello there|hi|hello][!|.|]", "[Hello|Hi]! [Would you like to hear a story?|What story would you like to hear?|Shall I tell you a story?]"),
    ("[How are you|How are you today|how are you]?", "[I am fine, thank you!|I am very well, thank you.] [Would you like to hear a story?|And you?]"),
    ("[Who are you|What are you|What is your name|who are you]?", "I am a [very small|tiny|little] story model. [I can tell you short stories.|My job is to tell stories.]"),
    ("[What can you do|Can you help me|How can you help me|What do you know]?", "I can tell you [little|short] stories. [Just tell me who and what they should be about.|Tell me an animal and a thing, and I will begin.]"),
    ("[Are you a robot|Are you a person|Are you real|Are you human]?", "[No, |]I am [a small computer program|a little program] that tells stories."),
    ("[Do you like stories|What do you like|Do you have a favorite story]?", "[I love stories about animals.|I like stories with a happy ending.|I like stories about friends.]"),
)  # fmt: skip

_UNKNOWN = (
    "[What is|Tell me] the capital of [France|Spain|Japan|Italy]?", "[What is|How much is] [two plus two|seven times eight|ten minus three|12 + 30]?",
    "[Write|Can you write] [some code|a program|a Python function|an email]?", "[What is the weather today|What time is it|What day is it]?",
    "[Who is the president|Who won the game|Who wrote this book]?", "[Explain|What is] [gravity|physics|the sun|history|a computer|math]?",
    "[How do I cook rice|How do I get to the station|How do planes fly]?",
)  # fmt: skip

_SORRY = "[I am sorry, but |I am afraid ]I do not know that. I [only know|can only tell] little stories. [Would you like to hear one?|Shall I tell you one?]"


def document(rng: random.Random) -> str:
    """One or two exchanges, sometimes followed by a story."""
    turns = [Turn("system", rng.choice(SYSTEM_PROMPTS))] if rng.random() < 0.3 else []
    if rng.random() < 0.65:
        pairs = rng.sample(_GREETINGS, k=rng.choice((1, 1, 2)))
        for ask, answer in sorted(pairs, key=_GREETINGS.index):
            turns += [Turn("user", expand(rng, ask)), Turn("assistant", polish(expand(rng, answer)))]
    else:
        turns += [
            Turn("user", polish(expand(rng, rng.choice(_UNKNOWN)))),
            Turn("assistant", polish(expand(rng, _SORRY))),
        ]
    if rng.random() < 0.3:
        story = tell_story(rng)
        turns += [Turn("user", request(rng, story.facts)), Turn("assistant", story.text)]
    return render(turns)
