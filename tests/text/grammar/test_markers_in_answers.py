"""An answer that speaks of the reasoning's markers is no reasoning, to grammars and budgets as to the parser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jaxserve.text.formats import FORMATS, Tool
from jaxserve.text.grammar.constraint import ConstraintBuilder
from jaxserve.text.grammar.wish import OutputWish

THINKING = [name for name, each in FORMATS.items() if each.thinking is not None]
SAID = "Put it in `{open}` tags, and {close} ends them. "


def said(bound: Any, before: str = "") -> list[int]:
    thinking = bound.format.thinking
    text = before + SAID.format(open=thinking.open, close=thinking.close)
    return list(bound.tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", THINKING)
@pytest.mark.parametrize("reasoned", [True, False])
def test_a_budget_counts_reasoning_only(name: str, tokens: bool, reasoned: bool, bound: Any) -> None:
    the = bound(name, tokens=tokens)
    thinking = the.format.thinking
    builder = ConstraintBuilder(the, vocab_size=the.tokenizer.vocab_size)
    built = builder.build(OutputWish(budget=30, reasoning=True), "<user>")
    assert built is not None
    constraint = built.make()
    row = np.zeros(-(-the.tokenizer.vocab_size // 32), np.int32)
    for token in said(the, f"\n{thinking.open}why{thinking.close}\n" if reasoned else " ") * 3:
        assert not constraint.constrains
        assert constraint.prepare(row) is None
        assert (row == -1).all()
        constraint.advance(token)


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "plain"])
@pytest.mark.parametrize("name", THINKING)
def test_a_call_after_such_an_answer_is_constrained(name: str, tokens: bool, bound: Any, weather_tools: Any) -> None:
    the, tools = bound(name, tokens=tokens), Tool.parse(weather_tools)
    thinking = the.format.thinking
    builder = ConstraintBuilder(the, vocab_size=the.tokenizer.vocab_size)
    built = builder.build(OutputWish(tools=tools, reasoning=True), "<user>")
    assert built is not None
    for before in ("", f"{thinking.open}why{thinking.close}\n"):
        constraint = built.make()
        for token in said(the, before):
            constraint.advance(token)
            assert not constraint.constrains
        [trigger] = the.format.calls.triggers(tools)
        for token in the.tokenizer.encode(trigger, add_special_tokens=False):
            constraint.advance(token)
        assert constraint.constrains
