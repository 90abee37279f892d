"""A tokenizer may have tokens that the model lacks: prompts with them are refused, others go on."""

from __future__ import annotations

import pytest
from api_fakes import FakeEngine, model_info, say

SMALL = ord("m") + 1
"""Vocabulary of a model that knows letters up to m, under a tokenizer that knows all bytes."""


@pytest.mark.parametrize(
    ("endpoint", "fields", "where"),
    [
        ("completions", {"prompt": "abz"}, "prompt"),
        ("completions", {"prompt": ["abc", "abz"]}, "prompt.1"),
        ("completions", {"prompt": [97, 122]}, "prompt.1"),
        ("chat", {"messages": [{"role": "user", "content": "z"}]}, "messages"),
    ],
)
def test_tokens_beyond_the_vocabulary_are_refused(make_api, endpoint, fields, where):
    api = make_api(FakeEngine(reply=say("x")), model=model_info(vocab_size=SMALL), bos=False)
    error = api.refuse(endpoint, 422, **fields)["error"]
    assert error["param"] == where
    assert "vocabulary" in error["message"]
