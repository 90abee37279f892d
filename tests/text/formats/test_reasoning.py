"""reasoning_effort, thinking and reasoning_history, by model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats import FORMATS
from jaxserve.text.formats.reasoning import plan_reasoning
from jaxserve.text.grammar.constraint import ConstraintBuilder
from jaxserve.text.grammar.wish import OutputWish

GIVEN = (None, "none", "low", "medium", "high", True, False, 500)
LEVELS = ("low", "medium", "high", True)
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "qwen3": (None, "none", False, *LEVELS, 500),
    "deepseek_v31": (None, "none", False, *LEVELS, 500),
    "deepseek_v32": (None, "none", False, *LEVELS, 500),
    "glm45": (None, "none", False, *LEVELS, 500),
    "glm47": (None, "none", False, *LEVELS, 500),
    "minimax_m2": (None, "low", "medium", "high"),
    "gpt_oss": (None, *LEVELS),
    "hermes": (None, "none", False),
    "llama3": (None, "none", False),
    "kimi_k2": (None, "none", False),
}


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("effort", GIVEN, ids=str)
def test_what_each_model_supports(name: str, effort: Any) -> None:
    supported = any(effort is value or (effort == value and type(effort) is type(value)) for value in SUPPORTED[name])
    if supported:
        plan_reasoning(FORMATS[name], effort)
        return
    with pytest.raises(InvalidRequest, match=r"Invalid reasoning effort: .*supports '") as caught:
        plan_reasoning(FORMATS[name], effort)
    assert caught.value.field == "reasoning_effort"


def test_harmony_says_what_the_contract_says() -> None:
    with pytest.raises(InvalidRequest, match=r"^Invalid reasoning effort: none"):
        plan_reasoning(FORMATS["gpt_oss"], False)


@pytest.mark.parametrize(
    ("name", "effort", "enabled", "budget", "arguments"),
    [
        ("qwen3", None, True, None, {"enable_thinking": True}),
        ("qwen3", "none", False, None, {"enable_thinking": False}),
        ("qwen3", False, False, None, {"enable_thinking": False}),
        ("qwen3", "low", True, 3000, {"enable_thinking": True}),
        ("qwen3", 77, True, 77, {"enable_thinking": True}),
        ("deepseek_v31", None, True, None, {"thinking": True}),
        ("deepseek_v31", "none", False, None, {"thinking": False}),
        ("deepseek_v31", 77, True, None, {"thinking": True}),
        ("glm47", "low", True, None, {"enable_thinking": True}),
        ("minimax_m2", None, True, None, {}),
        ("gpt_oss", None, True, None, {"reasoning_effort": "medium"}),
        ("gpt_oss", "high", True, None, {"reasoning_effort": "high"}),
        ("llama3", None, False, None, {}),
    ],
)
def test_what_comes_of_it(name: str, effort: Any, enabled: bool, budget: int | None, arguments: dict[str, Any]) -> None:
    plan = plan_reasoning(FORMATS[name], effort)
    assert (plan.enabled, plan.budget, plan.template_args) == (enabled, budget, arguments)


def test_thinking_is_another_spelling() -> None:
    for thinking, effort in ((("enabled", None), True), (("disabled", None), "none"), (("enabled", 2048), 2048)):
        assert plan_reasoning(FORMATS["qwen3"], None, thinking) == plan_reasoning(FORMATS["qwen3"], effort)


def test_both_spellings_at_once_are_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan_reasoning(FORMATS["qwen3"], "low", ("enabled", None))
    assert caught.value.field == "thinking"


@pytest.mark.parametrize(
    ("name", "supported"),
    [
        ("kimi_k2", {"disabled", "interleaved", "preserved"}),
        ("minimax_m2", {"disabled", "interleaved"}),
        ("glm45", {"disabled", "interleaved"}),
        ("glm47", {"disabled", "interleaved", "preserved"}),
    ],
)
def test_histories(name: str, supported: set[str]) -> None:
    for mode in ("disabled", "interleaved", "preserved"):
        if mode in supported:
            assert plan_reasoning(FORMATS[name], None, None, mode).history == mode
        else:
            with pytest.raises(InvalidRequest, match="supports 'disabled', 'interleaved'") as caught:
                plan_reasoning(FORMATS[name], None, None, mode)
            assert caught.value.field == "reasoning_history"
    assert plan_reasoning(FORMATS[name], None).history is None


def test_preserved_tells_the_template() -> None:
    assert plan_reasoning(FORMATS["glm47"], None, None, "preserved").template_args["clear_thinking"] is False


def test_prompts_that_open_the_reasoning(bound: Any) -> None:
    the = bound("qwen3")
    assert the.prompt_opens_reasoning("<|im_start|>assistant\n<think>\n")
    assert not the.prompt_opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not bound("llama3").prompt_opens_reasoning("<think>")


def test_a_spent_budget_is_closed_as_the_model_closes(bound: Any) -> None:
    """The layout before the close marker counts; after the forced tokens any token goes."""
    the = bound("qwen3")
    built = ConstraintBuilder(the, vocab_size=the.tokenizer.vocab_size).build(
        OutputWish(reasoning=True, budget=5), prompt="<|im_start|>assistant\n<think>"
    )
    assert built is not None
    constraint, ids = built.make(), []
    while len(ids) < 12:
        row = np.full(-(-the.tokenizer.vocab_size // 32), -1, np.int32)
        assert constraint.prepare(row) is None
        allowed = np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))
        ids.append(int(allowed[0]) if len(allowed) == 1 else ord("x"))
        constraint.advance(ids[-1])
    text = the.tokenizer.decode(ids, skip_special_tokens=False)
    assert text.startswith("xxxx\n</think>\n\nx")
    assert set(text.removeprefix("xxxx\n</think>\n\n")) == {"x"}
