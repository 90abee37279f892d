"""Templates in worker processes: the same prompts, and an end to every template, whatever it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from jaxserve.errors import TemplateError
from jaxserve.text import ChatTemplate
from jaxserve.text.isolation import Workers
from jaxserve.text.rendering import LIMITS

USER: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
SHARED = "{% set ns = namespace(x=['ab']) %}{% for i in range(45) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
"""2^45 texts, in lists that hold each other."""
TUPLES = SHARED.replace("['ab']", "('ab',)").replace("[ns.x, ns.x]", "(ns.x, ns.x)")
READS = {
    "written": SHARED + "{{ ns.x }}",
    "as text": SHARED + "{{ ns.x | string | length }}",
    "as JSON": SHARED + "{{ ns.x | tojson | length }}",
    "joined": SHARED + "{{ [ns.x] | join }}",
    "concatenated": SHARED + "{{ 'a' ~ ns.x }}",
    "formatted": SHARED + "{{ '%s' % [ns.x] }}",
    "compared": SHARED + SHARED.replace("ns", "other") + "{{ ns.x == other.x }}",
    "looked for": SHARED + SHARED.replace("ns", "other") + "{{ other.x in [ns.x] }}",
    "counted": SHARED + SHARED.replace("ns", "other") + "{{ [ns.x].count(other.x) }}",
    "sorted": SHARED + SHARED.replace("ns", "other") + "{{ [ns.x, other.x] | sort | length }}",
    "a key": TUPLES + "{{ {ns.x: 1} | length }}",
    "summed": "{% set ns = namespace(x=[0]) %}{% for i in range(16) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
    "{{ (ns.x | batch(1) | list) | sum(start=[]) | length }}{% for i in range(1000) %}"
    "{{ (ns.x | batch(1) | list) | sum(start=[]) | length }}{% endfor %}",
    "many values": "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}"
    "{% set ns.x = ns.x + ['a' * 900000 ~ i] %}{% endfor %}",
}


@contextmanager
def isolated(source: str, **limits: Any) -> Iterator[ChatTemplate]:
    template = ChatTemplate({"default": source}, {"bos_token": "<s>"})
    workers = Workers(template._task, replace(LIMITS, **limits))
    yield template.isolated(workers)
    workers.close()


@pytest.mark.parametrize("read", READS)
def test_values_that_hold_each_other_end_in_a_refusal(longest_silence: Any, read: str) -> None:
    with isolated(READS[read], cpu_seconds=0.5, wall_seconds=5, memory_bytes=128 * 2**20) as template:
        begun = time.monotonic()
        with longest_silence() as silence, pytest.raises(TemplateError, match="template was stopped"):
            template.render(USER)
        assert time.monotonic() - begun < 10
        assert silence[0] < 2, "the process stood still"
        with pytest.raises(TemplateError):
            template.render(USER)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ raise_exception('Only users, please.') }}", "refused: Only users, please."),
        ("{{ 1 + 'a' }}", "failed: TypeError"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "was stopped"),
    ],
)
def test_refusals_and_failures_come_through(source: str, says: str) -> None:
    with isolated(source, cpu_seconds=1) as template, pytest.raises(TemplateError, match=says) as caught:
        template.render(USER)
    assert caught.value.field == "messages"


def test_prompts_are_the_same_as_without_workers() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ tools | tojson }}{{ x }}"
    )
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    with isolated(source) as template:
        for messages in (USER, [*USER, {"role": "assistant", "content": "Hello \ud83d"}], USER * 3000):
            expected = ChatTemplate({"default": source}, {"bos_token": "<s>"}).render(messages, tools=tools, x=1)
            assert template.render(messages, tools=tools, x=1) == expected
        assert template.accepts("x")
        assert template.source == source
