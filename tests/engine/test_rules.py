"""`LLM.use`: a rule of one's own in the sampling programs, compiled once and reproducible."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve import LLM, SamplingParams
from jaxserve.errors import EngineStopped, InvalidRequest
from jaxserve.llm import Rows

PROMPTS = ["Once upon a time", "Tom had a red ball. He", "One day", "Lily said hello. " * 6]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
SEEDED = SamplingParams(temperature=0.9, top_p=0.95, max_tokens=16, ignore_eos=True)


def unchanged(logits, rows):
    return logits


def negated(logits, rows):
    return -logits


def sharpened(logits, rows):
    """With sums over the vocabulary, which compilers may order as they like."""
    p = jax.nn.softmax(logits)
    entropy = -jnp.sum(jnp.where(p > 0, p * jnp.log(p), 0), axis=-1, keepdims=True)
    return logits * (1 + entropy / 4)


def once_only(logits, rows):
    return jnp.where(rows.counts > 0, -jnp.inf, logits)


def from_the_prompt(logits, rows):
    return jnp.where(rows.in_prompt, logits, -jnp.inf)


def spelled(logits, rows):
    """The token says what the rule was told."""
    told = 100 + rows.position + 20 * rows.choice + 50 * (rows.temperature > 0.4)
    return jnp.where(jnp.arange(logits.shape[1]) == told[:, None], 0.0, -jnp.inf)


def by_the_row_above(logits, rows):
    """Each row takes the logits of the one above: of itself, since it sees no other."""
    return jnp.roll(logits, 1, axis=0) * (1 + jnp.arange(logits.shape[0])[:, None])


MODES = (unchanged, negated, sharpened, once_only, from_the_prompt, spelled, by_the_row_above)


def all_of_them(logits, rows):
    """Compiled once: the seed says which of them a row follows."""
    mode = (rows.seed[:, 1] % 8)[:, None]
    for index, rule in enumerate(MODES):
        logits = jnp.where(mode == index, rule(logits, rows), logits)
    return logits


def under(rule, sampling, seed=0):
    return replace(sampling, seed=MODES.index(rule) + 8 * seed)


@pytest.fixture(scope="module")
def llm():
    with LLM(max_num_seqs=4, max_model_len=256, token_buckets=(4, 32), kv_memory=32 << 20) as made:
        made.plain = [tokens(made, PROMPTS, under(unchanged, params, 3)) for params in (GREEDY, SEEDED)]
        made.use(all_of_them)
        made.at_use = made.stats().compilations
        yield made


def tokens(llm, prompts, sampling):
    return [completion.token_ids for completion in llm.generate(prompts, sampling)]


def test_a_rule_that_changes_nothing_changes_nothing(llm):
    for plain, params in zip(llm.plain, (GREEDY, SEEDED), strict=True):
        assert tokens(llm, PROMPTS, under(unchanged, params, 3)) == plain


def test_nothing_compiles_after_it(llm):
    for mode in MODES[:4]:
        for more in ({}, {"frequency_penalty": 0.5}, {"mirostat_target": 5.0}, {"temperature": 0}):
            llm.generate(PROMPTS, replace(under(mode, SEEDED), **more, max_tokens=3))
    llm.chat("A cat", max_tokens=4)
    assert llm.stats().compilations == llm.at_use


def test_the_likeliest_token_becomes_the_least_likely(llm):
    ids = llm.tokenize(PROMPTS[1])
    least = int(np.argmin(llm.logits(ids)[-1]))
    assert llm.generate(ids, under(negated, GREEDY), max_tokens=1)[0].token_ids == [least]


@pytest.mark.parametrize("mode", [sharpened, by_the_row_above])
def test_together_equals_alone_and_again(llm, mode):
    for params in (under(mode, GREEDY), under(mode, SEEDED, 7)):
        together = tokens(llm, PROMPTS, params)
        assert tokens(llm, PROMPTS, params) == together
        assert [tokens(llm, prompt, params)[0] for prompt in PROMPTS] == together


def test_a_rule_knows_what_was_written(llm):
    for params in (under(once_only, GREEDY), under(once_only, SEEDED, 2)):
        assert all(len(set(ids)) == len(ids) for ids in tokens(llm, PROMPTS, params))
    for prompt, ids in zip(PROMPTS, tokens(llm, PROMPTS, under(from_the_prompt, SEEDED)), strict=True):
        assert set(ids) <= set(llm.tokenize(prompt))


def test_a_rule_knows_position_choice_and_temperature(llm):
    for temperature, base in ((0, 100), (0.3, 100), (0.5, 150)):
        wish = replace(under(spelled, SEEDED), temperature=temperature, n=2, max_tokens=4)
        assert tokens(llm, PROMPTS[0], wish) == [[base + i for i in range(4)], [base + 20 + i for i in range(4)]]


def test_all_else_comes_after_it(llm):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}
    wish = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    seed = under(negated, GREEDY).seed
    assert llm.chat("A ball", response_format=wish, max_tokens=60, seed=seed).json["colour"] in ("red", "green")
    (scored,) = llm.generate(PROMPTS[0], under(negated, GREEDY), logprobs=1, max_tokens=1)
    assert scored.logprobs[0].logprob < scored.logprobs[0].top[0][1], "log-probabilities stay the model's"


@pytest.mark.parametrize(
    "rule",
    [
        3,
        "max",
        lambda logits, rows: logits[0],
        lambda logits, rows: logits[:, 1:],
        lambda logits, rows: jnp.argmax(logits, -1),
        lambda logits, rows: (logits, rows),
        lambda logits, rows: None,
        lambda logits, rows: logits > 0,
    ],
    ids=["number", "text", "one row", "short", "tokens", "tuple", "nothing", "flags"],
)
def test_what_is_no_rule_is_refused_and_the_old_one_stays(llm, rule):
    with pytest.raises(InvalidRequest) as caught:
        llm.use(rule)
    assert caught.value.field == "rule"
    assert tokens(llm, PROMPTS[0], under(spelled, GREEDY))[0][0] == 100


def test_a_rule_that_fails_while_it_is_traced_harms_nothing(llm):
    def broken(logits, rows: Rows):
        return logits if logits[0, 0] > 0 else -logits

    with pytest.raises(jax.errors.TracerBoolConversionError):
        llm.use(broken)
    assert tokens(llm, PROMPTS[0], under(spelled, GREEDY))[0][0] == 100


def test_none_restores_the_plain_programs_and_running_calls_forbid_it(llm):
    stream = llm.stream(PROMPTS[0], max_tokens=100)
    next(stream)
    with pytest.raises(InvalidRequest, match="while requests run"):
        llm.use(None)
    stream.close()
    before = llm.stats().compilations
    llm.use(None)
    assert tokens(llm, PROMPTS, under(negated, GREEDY)) == llm.plain[0]
    assert llm.stats().compilations == before
    llm.close()
    with pytest.raises(EngineStopped):
        llm.use(None)
