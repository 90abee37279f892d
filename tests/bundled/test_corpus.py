"""The text generator: deterministic, varied, and free of the slips that templates make."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest


@pytest.fixture(scope="module")
def texts() -> list[str]:
    from train_bundled.corpus import documents

    return list(documents(seed=5, count=1500))


def test_same_seed_same_text(texts: list[str]) -> None:
    from train_bundled.corpus import documents

    assert list(documents(seed=5, count=3, first=100)) == texts[100:103]
    assert list(documents(seed=6, count=3)) != texts[:3]


def test_text_is_varied(texts: list[str]) -> None:
    words = Counter(re.findall(r"[a-z]+", " ".join(texts).lower()))
    assert len(set(texts)) > 0.97 * len(texts)
    assert len(words) > 1700
    openings = Counter(text[:60] for text in texts if not text.startswith("<|im_start|>"))
    assert openings.most_common(1)[0][1] < 10


def test_no_template_marks_and_no_slips(texts: list[str]) -> None:
    plain = re.sub(r"<\|im_(start|end)\|>", "", "\n".join(texts))
    assert not re.search(r"[\[\]{}^|]", plain)
    assert not re.search(r"  ", plain)
    assert not re.search(r"\b(?!had\b|that\b)([a-z]+) \1\b", plain), "doubled word"
    assert not re.search(r"[.!?] [a-z]", plain), "a sentence starts small"
    assert not re.search(r" [.,!?]", plain)
    assert not re.search(r"\b[Aa] [aeio]", plain), "a before a vowel"
    assert not re.search(r"\b[Aa]n [b-df-gj-np-tv-z]", plain), "an before a consonant"
    assert plain.count('"') % 2 == 0


def test_conversations_have_the_form_of_the_template(texts: list[str]) -> None:
    chats = [text for text in texts if text.startswith("<|im_start|>")]
    assert len(chats) > 0.5 * len(texts)
    turn = r"<\|im_start\|>%s\n[^<]+<\|im_end\|>\n"
    form = re.compile(f"(?:{turn % 'system'})?(?:{turn % 'user'}{turn % 'assistant'})+")
    assert all(form.fullmatch(text) for text in chats)


def test_story_is_about_its_facts() -> None:
    from train_bundled.corpus.kinds.story import tell_story
    from train_bundled.corpus.plots import PLOTS

    for index, plot in enumerate(PLOTS):
        for seed in range(8):
            story = tell_story(random.Random(f"{index}/{seed}"), plot)
            assert story.facts.hero.noun in story.text
            assert story.facts.hero.name.lower() in story.text.lower()
            assert story.facts.thing is None or str(story.facts.thing) in story.text
            assert story.facts.friend is None or story.facts.friend.noun in story.text
            assert story.facts.problem
            assert story.facts.solution


def test_pronouns_agree() -> None:
    from train_bundled.corpus.cast import Character

    girl = Character(name="Mia", noun="girl", he="she")
    boy = Character(name="Tom", noun="boy", he="he")
    assert (girl.him, girl.his, girl.himself) == ("her", "her", "herself")
    assert (boy.him, boy.his, boy.himself) == ("him", "his", "himself")


@pytest.mark.parametrize(
    ("raw", "polished"),
    [
        ("a old owl .", "An old owl."),
        ('he ran. "stop!" cried Tom. it was a apple.', 'He ran. "Stop!" cried Tom. It was an apple.'),
        (
            '"good," said Mia. "you can have a unicorn." the end.',
            '"Good," said Mia. "You can have a unicorn." The end.',
        ),
    ],
)
def test_polish(raw: str, polished: str) -> None:
    from train_bundled.corpus.grammar import polish

    assert polish(raw) == polished


@pytest.mark.parametrize("template", ["[one|two", "one]", "{nobody}", "{h.shoe}"])
def test_broken_templates_are_refused(template: str) -> None:
    from train_bundled.corpus.grammar import TemplateError, expand

    with pytest.raises(TemplateError):
        expand(random.Random(0), template, {"h": object()})
