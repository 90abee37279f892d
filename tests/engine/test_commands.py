"""Commands on the device: a row that yields several tokens, and a second device that executes what it receives."""

from __future__ import annotations

from array import array
from copy import copy

import jax
import numpy as np
import pytest

from jaxserve.engine.command import Draw, from_words, to_words
from jaxserve.engine.device import Device
from jaxserve.engine.encode import Encoder
from jaxserve.engine.plan import Plan, PlannedRow
from jaxserve.engine.requests import Request
from jaxserve.engine.results import row_results
from jaxserve.engine.runner import Runner
from jaxserve.engine.sequence import IN_FLIGHT, Sequence
from jaxserve.errors import DeviceLost
from jaxserve.models import load_model, make_mesh
from jaxserve.options import EngineOptions
from jaxserve.resolve import bundled_model_dir
from jaxserve.sampling.params import SamplingParams
from jaxserve.startup import start_loaded
from jaxserve.text.tokenizers.tokenizer import load_tokenizer

GREEDY = SamplingParams(temperature=0)
KNOBS = SamplingParams(seed=5, temperature=1.2, top_p=0.9, repetition_penalty=1.2, logit_bias=((30, 3.0),))
PROMPT = (1, 40, 51, 62, 73, 84, 95)


@pytest.fixture(scope="module")
def started():
    """A compiled model; its own engine is closed."""
    directory = bundled_model_dir()
    model = load_model(directory, mesh=make_mesh((1, 1, 1)), dtype="float32", layer_loop="unroll")
    options = EngineOptions(
        directory, "float32", max_num_seqs=4, max_model_len=128, kv_memory=16 << 20, token_buckets=(4, 32)
    )
    made = start_loaded(model, load_tokenizer(directory), options)
    made.engine.close()
    return made, model


@pytest.fixture
def runner(started):
    """A runner with pages of its own and the compiled programs."""
    made, model = started
    return Runner(made.config, model, made.runner.programs)


def sequence(slot, sampling=GREEDY, **wishes):
    made = Sequence(Request(f"r{slot}", PROMPT, sampling, max_tokens=100, **wishes), 0, slot)
    made.slot = slot
    return made


def row(of, start, tokens, *, samples=1, fresh=False, position=0):
    pages = array("i", range(1 + 8 * of.slot, 9 + 8 * of.slot))
    return PlannedRow(of, start, tuple(tokens), ((0, pages),), samples, fresh, position)


def decode(runner, of, count):
    """Tokens of a sequence, one a step."""
    (first,) = runner.fetch(runner.launch(Plan((row(of, 0, PROMPT, fresh=True),))))
    tokens = [first.sampled[0]]
    for position in range(1, count):
        planned = row(of, len(PROMPT) + position - 1, (IN_FLIGHT,), position=position)
        (result,) = runner.fetch(runner.launch(Plan((planned,))))
        tokens.append(result.sampled[0])
    return tokens


@pytest.mark.parametrize("drafts", [1, 2])
@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(seed=3, temperature=1.0, top_k=20)])
def test_a_row_of_drafts_yields_the_tokens_of_single_steps(runner, drafts, sampling):
    """Prompt and k right drafts in one row give the k + 1 tokens that k + 1 steps give, beside another row."""
    single = decode(runner, sequence(0, sampling, logprobs=2, want_activations=True), drafts + 1)
    ids = [token.token for token in single]
    verified = row(
        sequence(1, sampling, logprobs=2, want_activations=True),
        0,
        (*PROMPT, *ids[:-1]),
        samples=drafts + 1,
        fresh=True,
    )
    neighbour = row(sequence(2), 0, PROMPT, fresh=True)
    result, other = runner.fetch(runner.launch(Plan((verified, neighbour))))
    assert [token.token for token in result.sampled] == ids
    for ours, theirs in zip(result.sampled, single, strict=True):
        assert abs(ours.logprob.logprob - theirs.logprob.logprob) < 1e-5
        np.testing.assert_allclose(
            np.frombuffer(ours.activation, "<f4"), np.frombuffer(theirs.activation, "<f4"), atol=1e-4
        )
    assert len(other.sampled) == 1


def test_the_slot_goes_on_from_the_last_sample(runner):
    """What is in flight after a row of several samples is the last of them."""
    single = [token.token for token in decode(runner, sequence(0), 5)]
    several = sequence(1)
    runner.launch(Plan((row(several, 0, (*PROMPT, *single[:2]), samples=3, fresh=True),)))
    ticket = runner.launch(Plan((row(several, len(PROMPT) + 2, (IN_FLIGHT,), position=3),)))
    assert runner.fetch(ticket)[0].sampled[0].token == single[3]


def test_a_second_device_executes_what_it_receives(started):
    """Words of one process's commands (loads, scores, masks, a second draw) leave another device with equal results."""
    made, model = started
    programs = made.runner.programs
    here, there = Device(made.config, model, programs), Device(made.config, model, programs)
    encoder = Encoder(programs.layouts)
    loud = sequence(0, KNOBS, prompt_logprobs_from=1, logprobs=1)
    plans = [
        Plan((row(loud, 0, PROMPT, fresh=True), row(sequence(1), 0, PROMPT, fresh=True))),
        Plan((row(loud, len(PROMPT), (IN_FLIGHT,), position=1),)),
    ]
    masks = np.full((4, programs.mask_words), -1, np.int32)
    for draw, plan in zip((True, False), plans, strict=True):
        launch = encoder.launch(plan, draw=draw)
        full = np.full((launch.layout.samples, programs.mask_words), -1, np.int32)
        commands = [launch, encoder.redraw(plan, launch.layout, {0}, full)] if draw else [launch, Draw(masks)]
        for command in commands:
            ours, theirs = here.execute(command), there.execute(from_words(to_words(command)))
        outputs = [device.fetch(pending) for device, pending in ((here, ours), (there, theirs))]
        assert np.array_equal(outputs[0].out, outputs[1].out)
        results = [row_results(output, plan, encoder.remember_mu) for output in outputs]
        assert results[0] == results[1]
        assert all(result.sampled for result in results[0])
    assert results[0][0].sampled[0].logprob is not None


def test_what_the_device_reports_ends_it(started):
    """An error of jax's runtime leaves donated arrays undefined."""
    made, model = started

    def broken(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")

    programs = copy(made.runner.programs)
    programs.forward = dict.fromkeys(programs.layouts, broken)
    launch = Encoder(programs.layouts).launch(Plan((row(sequence(0), 0, PROMPT, fresh=True),)), draw=True)
    with pytest.raises(DeviceLost, match="the device failed: INTERNAL"):
        Device(made.config, model, programs).execute(launch)


def test_commands_that_go_on_need_a_step(started):
    made, model = started
    device = Device(made.config, model, made.runner.programs)
    with pytest.raises(RuntimeError, match="no step has been launched"):
        device.execute(Draw(np.zeros((4, made.runner.programs.mask_words), np.int32)))
