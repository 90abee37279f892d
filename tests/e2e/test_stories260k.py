"""A real trained model over HTTP against its float64 oracle."""

import json

import httpx
import pytest


@pytest.fixture(scope="module")
def cases(shared_dir):
    return json.loads((shared_dir / "real" / "models" / "stories260K" / "golden.json").read_text())["cases"]


def complete(server, **body):
    answer = httpx.post(f"{server.url}/v1/completions", json={"model": "stories260K", **body}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_greedy_continuation_is_exact(stories_server, cases):
    assert len(cases) >= 5
    for case in cases:
        body = complete(
            stories_server,
            prompt=case["prompt_ids"],
            max_tokens=len(case["greedy_ids"]),
            temperature=0,
            return_token_ids=True,
        )
        choice = body["choices"][0]
        assert choice["token_ids"] == case["greedy_ids"], case["prompt"]
        assert choice["finish_reason"] == case["finish"]


def test_text_prompts_give_the_same_ids_and_text(stories_server, cases):
    for case in cases:
        body = complete(
            stories_server,
            prompt=case["prompt"],
            max_tokens=len(case["greedy_ids"]),
            temperature=0,
            return_token_ids=True,
        )
        choice = body["choices"][0]
        assert choice["prompt_token_ids"] == case["prompt_ids"]
        assert choice["text"].strip() == case["greedy_text"].strip()


def test_log_probabilities_of_prompt_and_continuation(stories_server, cases):
    for case in cases:
        body = complete(
            stories_server,
            prompt=case["prompt_ids"],
            max_tokens=len(case["greedy_ids"]),
            temperature=0,
            logprobs=5,
            echo=True,
        )
        given = body["choices"][0]["logprobs"]["token_logprobs"]
        expected = [*case["prompt_logprobs"], *case["greedy_logprobs"]]
        assert len(given) == len(expected)
        for position, (got, want) in enumerate(zip(given, expected, strict=True)):
            value = want["logprob"] if isinstance(want, dict) else want
            if position == 0:
                assert got is None
            else:
                assert got == pytest.approx(value, abs=1e-4), (case["prompt"], position)
