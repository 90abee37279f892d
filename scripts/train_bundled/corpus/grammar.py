"""The template language of the generator.

    [one|two|three]   one alternative, drawn uniformly; alternatives nest and may be empty
    {hero.his}        a slot, looked up by name and then by attributes; its value is a template, too
    ^                 the next letter becomes a capital

Sentence starts (also after speech, unless a verb of speech follows), the starts of quotations, and "a"/"an" are put right after expansion, so templates need not care.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

_TOKEN = re.compile(r"[\[\]|]|\{[^}]*\}|[^\[\]|{]+")
_SENTENCE_START = re.compile(r'(^"?|(?<=[.!?] )|(?<=\n)|(?<=\s)")([a-z])')
_CARET = re.compile(r'\^("?)([A-Za-z])')
_ARTICLE = re.compile(r"\b([Aa]) (?=(?!one\b|once\b|use|uni|eu)[aeiou]|hour|honest)")
_SPACES = re.compile(r"[ \t]+")
_AFTER_SPEECH = re.compile(
    r'([.!?]" )(?!(?:said|asked|answered|replied|cried|shouted|called|exclaimed|whispered|sobbed|thought|wondered|'
    r"grumbled|sighed|complained|laughed)\b)([a-z])"
)
_SPACE_BEFORE = re.compile(r" +([.,!?;:])")


class TemplateError(ValueError):
    """A template has unbalanced brackets or names an unknown slot."""


@dataclass(frozen=True)
class _Slot:
    path: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    options: tuple[tuple[object, ...], ...]


@cache
def _parse(template: str) -> tuple[object, ...]:
    stack: list[list[list[object]]] = [[[]]]
    for token in _TOKEN.findall(template):
        if token == "[":
            stack.append([[]])
        elif token == "|" and len(stack) > 1:
            stack[-1].append([])
        elif token == "]":
            if len(stack) == 1:
                raise TemplateError(f"unbalanced ']' in {template!r}")
            options = stack.pop()
            stack[-1][-1].append(_Choice(tuple(tuple(option) for option in options)))
        elif token.startswith("{"):
            stack[-1][-1].append(_Slot(tuple(token[1:-1].split("."))))
        else:
            stack[-1][-1].append(token)
    if len(stack) != 1:
        raise TemplateError(f"unbalanced '[' in {template!r}")
    return tuple(stack[0][0])


def _realise(rng: random.Random, nodes: tuple[object, ...], slots: Mapping[str, object], out: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, _Slot):
            _realise(rng, _parse(_lookup(node.path, slots)), slots, out)
        elif isinstance(node, _Choice):
            _realise(rng, node.options[int(rng.random() * len(node.options))], slots, out)


def _lookup(path: tuple[str, ...], slots: Mapping[str, object]) -> str:
    try:
        value = slots[path[0]]
        for attribute in path[1:]:
            value = getattr(value, attribute)
    except (KeyError, AttributeError):
        raise TemplateError(f"unknown slot {{{'.'.join(path)}}}") from None
    return str(value)


def expand(rng: random.Random, template: str, slots: Mapping[str, object] | None = None) -> str:
    """One drawn realisation of a template, without the repairs of `polish`."""
    out: list[str] = []
    _realise(rng, _parse(template), slots or {}, out)
    return "".join(out)


def polish(text: str) -> str:
    """Spacing, articles and capitals of expanded text."""
    text = _SPACE_BEFORE.sub(r"\1", _SPACES.sub(" ", text)).strip()
    text = _ARTICLE.sub(r"\1n ", text)
    text = _SENTENCE_START.sub(lambda m: m.group(1) + m.group(2).upper(), text)
    text = _AFTER_SPEECH.sub(lambda m: m.group(1) + m.group(2).upper(), text)
    return _CARET.sub(lambda m: m.group(1) + m.group(2).upper(), text)
