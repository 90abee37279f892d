"""What people type into a notebook: every argument is checked, nothing they do harms the engine."""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
import re
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from notebook_mistakes import MISTAKES, ODDITIES

from jaxserve import LLM, SamplingParams
from jaxserve.errors import ContextLengthExceeded, EngineStopped, InvalidRequest, ModelLoadError
from jaxserve.llm.completion import Completion
from jaxserve.sampling.params import KNOBS, NEUTRAL
from jaxserve.sampling.params import SamplingParams as EngineParams

GREEDY = SamplingParams(temperature=0, max_tokens=12)
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def llm():
    with LLM(max_num_seqs=4, max_model_len=320, token_buckets=(4, 32), kv_memory=64 << 20, max_waiting=2) as made:
        yield made


@pytest.fixture(autouse=True)
def unharmed(llm):
    """After whatever a test did, all pages are free and the next call works."""
    yield
    deadline = time.monotonic() + 20
    while (stats := llm.stats()).running or stats.waiting:
        assert time.monotonic() < deadline, stats
        time.sleep(0.01)
    assert stats.free_pages == stats.total_pages
    assert llm.generate(PROMPT, GREEDY, max_tokens=2)[0].token_ids


def test_prompts_of_every_kind_are_the_same(llm):
    ids = llm.tokenize(PROMPT)
    expected = llm.generate(PROMPT, GREEDY)[0].token_ids
    for prompt in (
        ids,
        tuple(ids),
        np.array(ids),
        np.array(ids, np.uint16),
        jnp.array(ids),
        [np.int64(i) for i in ids],
    ):
        assert llm.generate(prompt, GREEDY)[0].token_ids == expected
    for several in ([PROMPT, ids], np.array([ids, ids]), [np.array(ids), PROMPT]):
        assert [each.token_ids for each in llm.generate(several, GREEDY)] == [expected, expected]


@pytest.mark.parametrize(
    "prompt",
    [b"text", bytearray(b"x"), None, 3, 1.5, [], [[]], "", [1.5], [True], ["a", 3], [None], {"role": "user"}, object],
    ids=repr,
)
def test_what_is_no_prompt_is_refused(llm, prompt):
    if prompt == "" and llm.tokenize(""):
        pytest.skip("an empty text has a BOS token")
    for call in (llm.generate, llm.score, lambda p: next(iter(llm.stream(p)))):
        with pytest.raises(InvalidRequest, match="prompt") as caught:
            call(prompt)
        assert caught.value.field in ("prompt", "prompts")


def test_a_conversation_is_pointed_to_chat(llm):
    with pytest.raises(InvalidRequest, match=r"llm\.chat"):
        llm.generate([{"role": "user", "content": "hello"}])


@pytest.mark.parametrize("name", [name for name in KNOBS if name != "logit_bias"])
def test_knobs_take_numbers_of_every_library_and_nothing_else(name):
    value = 1
    for number in (value, np.float32(value), np.int8(value), jnp.float32(value), np.array(value)):
        made = getattr(SamplingParams(**{name: number}), name)
        assert made == value
        assert type(made) in (int, float)
    for wrong in ("1", [1], (1,), True, 1j, np.array([1]), object(), math.nan, math.inf):
        with pytest.raises(InvalidRequest) as caught:
            SamplingParams(**{name: wrong})
        assert caught.value.field == name


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("max_tokens", [-3, 2.5, "5", True, [1]]),
        ("n", [0, -1, 1.5, 1000]),
        ("logprobs", [-1, 6, 2.0, "2"]),
        ("stop", [3, [""], ["a", 3], b"x", {"a": 1}]),
        ("stop_token_ids", ["a", [-1], [1.5], 3]),
        ("ignore_eos", [1, "yes"]),
        ("seed", [1.5, "x", [1]]),
        ("top_k", [1.5, 101, -1]),
        ("logit_bias", [3, [3], {"a": 1}, {1: "x"}, {-1: 1.0}, [(1, 2, 3)], {1: 101}]),
    ],
)
def test_wrong_params_are_refused_by_name(field, wrong):
    for value in wrong:
        with pytest.raises(InvalidRequest) as caught:
            SamplingParams(**{field: value})
        assert caught.value.field == field


def test_all_of_sampling_holds_in_a_conversation(llm, monkeypatch):
    """Neutral values too, whatever the model's own defaults say; without `sampling` these hold."""
    asked = []
    submit = llm._started.engine.submit

    def noted(request, sink):
        asked.append(request)
        submit(request, sink)

    monkeypatch.setattr(llm._started.engine, "submit", noted)
    own = llm._chats._settings.model.sampling_defaults
    assert own, "the bundled model has defaults of its own"
    llm.chat("A cat", max_tokens=1)
    llm.chat("A cat", SamplingParams(max_tokens=1))
    llm.chat("A cat", EngineParams(seed=3), max_tokens=1)
    for name, value in own.items():
        assert [getattr(request.sampling, name) for request in asked] == [value, NEUTRAL[name], NEUTRAL[name]]
    for wrong in (0.7, {"temperature": 1}, "hot"):
        with pytest.raises(InvalidRequest, match="sampling must be"):
            llm.chat("A cat", wrong)


def test_wrong_arguments_of_a_call_are_refused(llm):
    for more in ({"max_tokens": -3}, {"stop": [3]}, {"logprobs": 9}, {"sampling": {"temperature": 1}}, {"sampling": 3}):
        with pytest.raises(InvalidRequest):
            llm.generate(PROMPT, **more)
    with pytest.raises(InvalidRequest, match="2 entries for 1 prompts"):
        llm.generate(PROMPT, [GREEDY, GREEDY])
    with pytest.raises(InvalidRequest):
        next(iter(llm.stream(PROMPT, nonsense=3)))
    with pytest.raises(InvalidRequest):
        next(iter(llm.stream([PROMPT, PROMPT])))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_sentence(llm, mistake):
    with pytest.raises(InvalidRequest) as caught:
        MISTAKES[mistake](llm)
    assert caught.value.field
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("oddity", ODDITIES)
def test_what_is_odd_but_plain_is_done(llm, oddity):
    ODDITIES[oddity](llm)


def test_options_are_refused_by_name(tmp_path):
    for options, message in (
        ({"max_num_seq": 3}, "did you mean max_num_seqs"),
        ({"max_num_seqs": "3"}, "max_num_seqs must be"),
        ({"max_num_seqs": 2.0}, "max_num_seqs must be"),
        ({"prefix_caching": 1}, "prefix_caching must be"),
        ({"dtype": "float16"}, "--dtype must be one of"),
    ):
        with pytest.raises(ModelLoadError, match=message):
            LLM(**options)
    with pytest.raises(ModelLoadError):
        LLM(tmp_path / "nothing")


def test_every_option_is_in_the_signature():
    parameters = inspect.signature(LLM).parameters
    assert {"model", "progress", "compilation_cache", "max_num_seqs", "dtype", "mesh", "quantize"} <= set(parameters)
    assert "Sequences" in (LLM.__init__.__doc__ or "")
    assert not any(name.startswith("_") for name in dir(object.__new__(LLM)))


def test_seeds(llm):
    hot = {"temperature": 1.5, "max_tokens": 12, "ignore_eos": True}
    first, second = (llm.generate(PROMPT, SamplingParams(**hot))[0].token_ids for _ in range(2))
    assert first != second
    first, second = (llm.generate(PROMPT, SamplingParams(seed=7, **hot))[0].token_ids for _ in range(2))
    assert first == second


def test_a_call_of_many_prompts_waits_as_one(llm):
    assert llm.config.max_waiting == 2
    assert len(llm.generate([PROMPT] * 20, GREEDY, max_tokens=1)) == 20
    assert len(llm.score([PROMPT] * 20)) == 20


def test_n_and_params_for_each_prompt(llm):
    params = [SamplingParams(n=3, seed=1, max_tokens=6), SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)]
    done = llm.generate([PROMPT, "One day"], params)
    assert [(each.prompt, each.choice) for each in done] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert len({tuple(each.token_ids) for each in done[:3]}) > 1
    assert len(done[3].token_ids) == 4


def test_stops(llm):
    whole = llm.generate(PROMPT, GREEDY)[0]
    word = whole.text.split()[2]
    assert llm.generate(PROMPT, GREEDY, stop=word)[0].text == whole.text[: whole.text.index(word)]
    token = whole.token_ids[3]
    ended = llm.generate(PROMPT, SamplingParams(temperature=0, stop_token_ids=[token]))[0]
    assert ended.token_ids == whole.token_ids[: whole.token_ids.index(token) + 1]
    assert ended.finish_reason == "stop"


def test_async_faces_in_a_running_loop(llm):
    async def everything():
        several = await asyncio.gather(*(llm.agenerate(PROMPT, GREEDY) for _ in range(6)))
        streamed = "".join([text async for text in llm.astream(PROMPT, GREEDY)])
        answer = await llm.achat("A cat", GREEDY)
        pieces = [piece async for piece in llm.astream_chat("A cat", GREEDY)]
        # The others work inside a running loop as well, as a notebook has one.
        return several, streamed, answer, pieces, llm.generate(PROMPT, GREEDY), llm.chat("A cat", GREEDY)

    several, streamed, answer, pieces, plain, chatted = asyncio.run(everything())
    assert all(each == plain for each in several)
    assert streamed == plain[0].text
    assert answer.content == chatted.content == "".join(map(str, pieces))
    assert pieces[-1].finish_reason == answer.finish_reason


def test_cancelling_aborts(llm):
    async def cancelled():
        task = asyncio.create_task(llm.agenerate(PROMPT, SamplingParams(max_tokens=300, ignore_eos=True)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())


def test_an_interrupt_aborts_at_once(llm):
    # Workers of the test run ignore the signal, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupted(llm)
    finally:
        signal.signal(signal.SIGINT, before)


def interrupted(llm):
    def interrupt():
        while not llm.stats().running:
            time.sleep(0.005)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        llm.generate([PROMPT] * 40, SamplingParams(max_tokens=280, ignore_eos=True))
    thread.join()
    before = time.monotonic()
    while llm.stats().running or llm.stats().waiting:
        assert time.monotonic() - before < 5


def test_chat_reads_fields_as_over_http(llm):
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}
    wish = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert llm.chat("A ball", response_format=wish, max_tokens=60).json["colour"] in ("red", "green")
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    answer = llm.chat("A ball", tools=[tool], tool_choice="required", max_tokens=120)
    ((name, arguments),) = answer.tool_calls
    assert name == "look"
    assert arguments["colour"] in ("red", "green")
    assert answer.response["usage"]["completion_tokens"] > 0
    again = llm.chat([{"role": "user", "content": "A ball"}, answer.message, {"role": "user", "content": "And?"}])
    assert again.finish_reason in ("stop", "length")
    assert "ChatAnswer(" in repr(again)


@pytest.mark.parametrize(
    ("messages", "fields", "field"),
    [
        (5, {}, "messages"),
        ({"role": "user"}, {}, "messages"),
        ([], {}, "messages"),
        ([{"role": "nobody", "content": "x"}], {}, "role"),
        ("x", {"top_k": -5}, "top_k"),
        ("x", {"nonsense": 1}, "nonsense"),
        ("x", {"response_format": {"type": "xml"}}, "type"),
    ],
)
def test_wrong_conversations_are_refused(llm, messages, fields, field):
    with pytest.raises(InvalidRequest) as caught:
        llm.chat(messages, **fields)
    assert caught.value.field == field


def test_scores_and_logits_agree(llm):
    text = "The cat sat on the mat. " * 4
    (score,), logits = llm.score(text), llm.logits(text)
    ids = np.array(llm.tokenize(text))
    assert logits.shape == (len(ids), llm._vocab_size)
    exact = jax.nn.log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]]
    told = [entry.logprob for entry in score.logprobs[1:]]
    assert score.logprobs[0] is None
    np.testing.assert_allclose(told, exact, atol=1e-4)
    assert score.total == pytest.approx(float(exact.sum()), abs=1e-3)
    assert score.perplexity == pytest.approx(math.exp(-float(exact.mean())), rel=1e-3)
    first = llm.generate(text, GREEDY, max_tokens=1)[0].token_ids[0]
    assert logits[-1].argmax() == first
    hidden = llm.hidden(text)
    assert hidden.shape == (len(ids), llm._started.model_config.hidden_size)
    with pytest.raises(ContextLengthExceeded):
        llm.logits([5] * 321)


def test_repr_shows_tokens_and_their_rivals(llm):
    plain, scored = llm.generate([PROMPT] * 2, [GREEDY, SamplingParams(temperature=0, max_tokens=4, logprobs=3)])
    assert "<span" not in plain._repr_html_()
    html = scored._repr_html_()
    assert len(re.findall("<span", html)) == 4
    assert html.count("%") >= 4 * 4, "its own probability and three rivals each"
    hostile = Completion(text="<script>alert(1)</script>")
    assert "<script>" not in hostile._repr_html_()
    assert "LLM(" in repr(llm)
    assert "_repr_html_" in dir(type(llm.score(PROMPT)[0]))


def test_closing_frees_the_device_and_says_so(llm):
    def on_device():
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays())

    small = {"max_num_seqs": 2, "max_model_len": 64, "token_buckets": (16,), "kv_memory": 8 << 20}
    before = on_device()
    with LLM(**small) as closed:
        assert on_device() > before + (4 << 20)
        assert closed.chat("x", GREEDY, max_tokens=2).content is not None
        assert closed.logits("x").size
        # Two models in one process, at once.
        expected = [each.generate(PROMPT, GREEDY)[0].token_ids for each in (llm, closed)]
        with ThreadPoolExecutor() as pool:
            mixed = list(pool.map(lambda each: each.generate(PROMPT, GREEDY)[0].token_ids, [llm, closed] * 4))
        assert mixed == expected * 4
    assert on_device() <= before + 65536
    for call in (closed.stats, lambda: closed.generate("x"), lambda: closed.chat("x"), lambda: closed.logits("x")):
        with pytest.raises(EngineStopped, match="closed"):
            call()
    assert "closed" in repr(closed)
    assert llm.generate(PROMPT, GREEDY)[0].token_ids == expected[0], "the other one goes on"
    closed.close()
    dropped = LLM(**small)
    gone = weakref.ref(dropped._started.engine)
    dropped.generate("x", max_tokens=2)
    del dropped
    gc.collect()
    assert gone() is None
    assert on_device() <= before + 65536
