"""The whole engine in this process, on the bundled model: same tokens alone, together, cached, preempted."""

from __future__ import annotations

import pytest

from jaxserve import LLM, SamplingParams
from jaxserve.errors import ContextLengthExceeded, InvalidRequest

GREEDY = SamplingParams(temperature=0)
PROMPTS = [
    "Once upon a time",
    "Tom had a red ball. He",
    "The cat and the dog went to the river because they wanted to swim. " * 3,
    "One day",
    "Lily said hello. " * 12,
    "It was",
]


@pytest.fixture(scope="module")
def llm():
    with LLM(max_num_seqs=4, max_model_len=320, token_buckets=(4, 32), kv_memory=64 << 20) as made:
        yield made


@pytest.fixture(scope="module")
def scarce():
    """The same with pages for one long sequence only."""
    page_bytes = 5 * 16 * 2 * 2 * 32 * 4  # layers, positions, keys and values, heads, dimensions, float32
    memory = 21 * page_bytes
    with LLM(max_num_seqs=4, max_model_len=320, token_buckets=(4, 32), kv_memory=memory, prefix_caching=False) as made:
        yield made


def everything(llm, sampling=GREEDY, max_tokens=40, **more):
    done = llm.generate(PROMPTS, sampling, max_tokens=max_tokens, ignore_eos=True, **more)
    return [(c.token_ids, c.text) for c in done]


def test_together_equals_alone_and_again(llm):
    for sampling in (GREEDY, SamplingParams(temperature=1.1, top_p=0.95, seed=9)):
        together = everything(llm, sampling)
        alone = [llm.generate(p, sampling, max_tokens=40, ignore_eos=True)[0] for p in PROMPTS]
        assert together == [(c.token_ids, c.text) for c in alone]
        assert together == everything(llm, sampling)
        assert all(len(ids) == 40 for ids, _ in together)


def test_a_context_of_its_own_programs_changes_no_token(llm):
    """Steps of short sequences run in programs with narrow page tables, then in wider ones as they grow."""
    with LLM(
        max_num_seqs=4, max_model_len=320, token_buckets=(4, 32), kv_memory=64 << 20, context_buckets=(32, 96)
    ) as narrow:
        layouts, before = narrow._started.runner.programs.layouts, narrow.stats().compilations
        assert [(one.tokens, one.columns) for one in layouts if one.tokens > 1] == [
            (tokens, (columns,)) for tokens in (4, 32) for columns in (2, 6, 20)
        ]
        assert layouts[-3].size < layouts[-1].size
        for sampling in (GREEDY, SamplingParams(temperature=1.1, top_p=0.95, seed=9)):
            assert everything(narrow, sampling) == everything(llm, sampling)
        assert narrow.stats().compilations == before


def test_text_is_the_tokens_text(llm):
    for prompt, (ids, text) in zip(PROMPTS, everything(llm), strict=True):
        prompt_ids = llm.tokenizer.encode(prompt, add_special_tokens=True)
        whole = llm.tokenizer.decode([*prompt_ids, *ids], skip_special_tokens=True)
        assert whole == llm.tokenizer.decode(prompt_ids, skip_special_tokens=True) + text


def test_stream_is_the_text_and_leaving_aborts(llm):
    (whole,) = llm.generate(PROMPTS[0], GREEDY, max_tokens=30)
    assert "".join(llm.stream(PROMPTS[0], GREEDY, max_tokens=30)) == whole.text
    stream = llm.stream(PROMPTS[0], GREEDY, max_tokens=250)
    assert next(stream)
    stream.close()
    assert llm.generate(PROMPTS[3], GREEDY, max_tokens=3)[0].token_ids


def test_nothing_compiles_whatever_is_asked(llm):
    before = llm.stats().compilations
    everything(llm, SamplingParams(temperature=0.7, top_k=5, min_p=0.02, typical_p=0.9, seed=1))
    everything(llm, SamplingParams(repetition_penalty=1.2, presence_penalty=0.5, logit_bias=((5, 2.0),), seed=2))
    everything(llm, SamplingParams(mirostat_target=8.0, seed=3), logprobs=5)
    assert llm.stats().compilations == before


def test_knobs_reach_the_device(llm):
    banned = llm.generate(PROMPTS[0], GREEDY, max_tokens=1)[0].token_ids[0]
    biased = SamplingParams(temperature=0, logit_bias=((banned, -100.0),))
    assert llm.generate(PROMPTS[0], biased, max_tokens=1)[0].token_ids[0] != banned
    plain = everything(llm, SamplingParams(seed=5))
    for change in ({"seed": 6}, {"top_k": 2}, {"top_p": 0.3}, {"min_p": 0.5}, {"repetition_penalty": 2.0}):
        assert everything(llm, SamplingParams(**({"seed": 5} | change))) != plain, change
    repeated = llm.generate("the the the the", SamplingParams(temperature=0, repetition_penalty=2.0), max_tokens=20)
    assert repeated[0].token_ids != llm.generate("the the the the", GREEDY, max_tokens=20)[0].token_ids


def test_log_probabilities(llm):
    (completion,) = llm.generate(PROMPTS[1], GREEDY, max_tokens=10, logprobs=3)
    assert len(completion.logprobs) == 10
    for token, entry in zip(completion.token_ids, completion.logprobs, strict=True):
        assert entry.token == token == entry.top[0][0]
        assert entry.logprob == entry.top[0][1] <= 0
        assert entry.sampling_logprob == 0
        assert len(entry.top) == 3
        assert entry.top[0][1] >= entry.top[1][1] >= entry.top[2][1]


def test_scarce_pages_change_nothing(llm, scarce):
    """Sequences that lose their pages and are computed again give the same tokens, penalties and mirostat included."""
    for sampling in (
        GREEDY,
        SamplingParams(seed=3, frequency_penalty=0.5),
        SamplingParams(seed=4, mirostat_target=9.0),
    ):
        expected = everything(llm, sampling, max_tokens=120)
        before = scarce.stats().preemptions
        assert everything(scarce, sampling, max_tokens=120) == expected
        assert scarce.stats().preemptions > before
    stats = scarce.stats()
    assert stats.free_pages == stats.total_pages


def test_bad_prompts(llm):
    with pytest.raises(ContextLengthExceeded):
        llm.generate([5] * 320, GREEDY)
    with pytest.raises(InvalidRequest):
        llm.generate([[]], GREEDY)
    assert len(llm.generate([5] * 319, GREEDY, max_tokens=9, ignore_eos=True)[0].token_ids) == 1


def test_tokens_that_the_model_does_not_have_are_refused(llm):
    size = llm._started.model_config.vocab_size
    assert llm.generate([size - 1], SamplingParams(logit_bias=((size - 1, 1.0),)), max_tokens=1)
    for prompt, bias in (([5, size], 5), ([-1, 5], 5), ([5], size)):
        with pytest.raises(InvalidRequest, match=f"{size} tokens"):
            llm.generate(prompt, SamplingParams(logit_bias=((bias, 1.0),)))
        with pytest.raises(InvalidRequest, match=f"{size} tokens"):
            next(llm.stream(prompt, SamplingParams(logit_bias=((bias, 1.0),))))
