"""The fireworks package's own sampler for reinforcement learning: tokens in, tokens and their scores out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest
from api_fakes import CONTEXT, EOS, FakeEngine, model_info

sampling = pytest.importorskip("fireworks.training.sdk.sampling")

PROMPT = [256, *b"Hello", 257, *b"?"]
OUTPUT = [*b"Hello "]


@pytest.fixture
def sample(make_live: Callable[..., Any]) -> Callable[..., Any]:
    server = make_live(FakeEngine(), model=model_info(context_length=CONTEXT, routed_experts=(2, 2)))

    def run(**fields: Any) -> Any:
        async def one() -> Any:
            sampler = sampling.DeploymentSampler(server.url, "accounts/test/models/fake", "key")
            return await sampler.sample_with_prompt_tokens(
                PROMPT, n=2, max_tokens=6, temperature=1.0, hotload_max_retries=0, **fields
            )

        found = asyncio.run(one())
        assert len(found) == 2
        return found[0]

    return run


def test_plain(sample: Callable[..., Any]) -> None:
    found = sample()
    assert found.full_tokens == PROMPT + OUTPUT
    assert (found.prompt_len, found.completion_len, found.finish_reason) == (len(PROMPT), 6, "length")
    assert found.inference_logprobs is None


@pytest.mark.parametrize("more", [{}, {"prompt_cache_key": "x"}, {"prompt_cache_max_len": 0}])
def test_scores(sample: Callable[..., Any], more: dict[str, Any]) -> None:
    found = sample(logprobs=True, **more)
    assert len(found.inference_logprobs) == len(found.sampling_logprobs) == 6
    assert [2 * score for score in found.sampling_logprobs] == found.inference_logprobs


def test_alternatives(sample: Callable[..., Any]) -> None:
    found = sample(logprobs=True, top_logprobs=5)
    assert [len(ids) for ids in found.inference_topk_token_ids] == [5] * 6
    assert [ids[0] for ids in found.inference_topk_token_ids] == OUTPUT


def test_stop(sample: Callable[..., Any]) -> None:
    found = sample(logprobs=True, stop=["lo"])
    assert (found.text, found.finish_reason) == ("Hel", "stop")
    assert len(found.inference_logprobs) == found.completion_len == 5


@pytest.mark.parametrize(
    ("fields", "scored"), [({"echo": True}, len(PROMPT) - 1), ({"echo_last": 2}, 2), ({"echo_last": 0}, 0)]
)
def test_echo(sample: Callable[..., Any], fields: dict[str, Any], scored: int) -> None:
    """A prompt's first token has no score; every other echoed one has one, and a routing matrix."""
    found = sample(logprobs=True, include_routing_matrix=True, **fields)
    assert found.full_tokens == PROMPT + OUTPUT
    assert (found.completion_len, found.echoed_prompt_logprob_count) == (6, scored)
    assert len(found.inference_logprobs) == len(found.routing_matrices) == scored + 6
    matrices = [list(base64.b64decode(matrix)) for matrix in found.routing_matrices]
    assert matrices[scored:] == [[1, 2, 3, position] for position in range(6)]
    assert matrices[:scored] == [[9, 8, 7, p] for p in range(len(PROMPT) - scored, len(PROMPT))]


def test_routing(sample: Callable[..., Any]) -> None:
    found = sample(logprobs=True, include_routing_matrix=True)
    assert len(found.routing_matrices) == 6
    assert EOS not in found.full_tokens[len(PROMPT) :]
