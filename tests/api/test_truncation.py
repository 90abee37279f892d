"""prompt_truncate_len: who goes first, and what is never cut silently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from api_client import Api
from api_fakes import BOS, ByteTokenizer, PlainTemplate

from jaxserve.api.conversation import Conversation, truncate
from jaxserve.errors import ContextLengthExceeded

MakeApi = Callable[..., Api]
SYSTEM = {"role": "system", "content": "Be very brief."}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


HISTORY = [turn("user", "u1" * 5), turn("assistant", "a1" * 5), turn("user", "u2" * 5), turn("assistant", "a2" * 5)]
LAST = turn("user", "the question")
CONVERSATION = Conversation(PlainTemplate(), ByteTokenizer())


def size(messages: list[dict[str, Any]]) -> int:
    return len(CONVERSATION.encode(messages, 10_000)[1])


@pytest.mark.proves("prompt_truncate_len")
@pytest.mark.parametrize(
    ("kept", "spare"),
    [
        ([SYSTEM, *HISTORY, LAST], 0),
        ([SYSTEM, *HISTORY[2:], LAST], 15),
        ([SYSTEM, *HISTORY[2:], LAST], 0),
        ([SYSTEM, LAST], 15),
        ([SYSTEM, LAST], 0),
        ([turn("system", "Be very"), LAST], 0),
        ([LAST], 0),
    ],
)
def test_the_earliest_go_first_and_the_system_prompt_is_cut_last(
    api: Api, kept: list[dict[str, str]], spare: int
) -> None:
    limit = size(kept) + spare
    response = api.chat(messages=[SYSTEM, *HISTORY, LAST], prompt_truncate_len=limit, raw_output=True)
    assert list(api.last().prompt) == CONVERSATION.encode(kept, 10_000)[1]
    assert response["usage"]["prompt_tokens"] <= limit
    fragments = response["choices"][0]["raw_output"]["prompt_fragments"]
    assert "".join(fragments) == PlainTemplate().render(kept)
    assert len(fragments) == len(kept)


def test_a_last_message_that_is_too_long_is_refused(api: Api) -> None:
    error = api.refuse("chat", 400, messages=[SYSTEM, *HISTORY, LAST], prompt_truncate_len=size([LAST]) - 1)["error"]
    assert error["param"] == "prompt_truncate_len"
    with pytest.raises(ContextLengthExceeded):
        truncate(CONVERSATION, [SYSTEM], 3)


def test_every_limit_is_kept() -> None:
    messages = [SYSTEM, turn("system", "And kind, às vezes."), *HISTORY, LAST]
    before = 0
    for limit in range(size([LAST]), size(messages) + 2):
        kept = truncate(CONVERSATION, messages, limit)
        assert size(kept) <= limit
        assert kept[-1] == LAST
        assert size(kept) >= before, "more room never keeps less"
        before = size(kept)
    assert kept == messages


@pytest.mark.parametrize(("prompt", "kept"), [("abcdef", [BOS, 101, 102]), ([1, 2, 3, 4], [2, 3, 4]), ("a", [BOS, 97])])
def test_completions_keep_the_end_of_the_prompt(api: Api, prompt: Any, kept: list[int]) -> None:
    api.complete(prompt, prompt_truncate_len=3)
    assert list(api.last().prompt) == kept


def test_truncation_makes_room_in_the_context(api: Api) -> None:
    long = [turn("user", "x" * 3000), turn("assistant", "y"), LAST]
    assert api.refuse("chat", 400, messages=long)["error"]["param"] == "messages"
    api.chat(messages=long, prompt_truncate_len=100)
    assert list(api.last().prompt) == CONVERSATION.encode([LAST], 10_000)[1]


def call(name: str) -> dict[str, Any]:
    function = {"name": name, "arguments": "{}"}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}


def test_results_of_tools_stay_with_their_call() -> None:
    result = {"role": "tool", "content": "r" * 9, "tool_call_id": "c1"}
    messages = [SYSTEM, *HISTORY, LAST, call("f"), result, result]
    wanted = [SYSTEM, LAST, call("f"), result, result]
    assert truncate(CONVERSATION, messages, size(wanted)) == wanted

    class AnyFirst(PlainTemplate):
        """A template that lets a conversation begin with an answer."""

        def render(self, messages: Any, **options: Any) -> str:
            return super().render([{"role": "user", "content": ""}, *messages], **options)

    lenient = Conversation(AnyFirst(), ByteTokenizer())
    alone = [SYSTEM, call("f"), result, result]
    assert truncate(lenient, messages, len(lenient.encode(alone, 10_000)[1])) == alone
    with pytest.raises(ContextLengthExceeded, match="the last call with its results alone takes"):
        truncate(lenient, messages, 30)
    with pytest.raises(ContextLengthExceeded, match="can't stand without the question"):
        truncate(CONVERSATION, messages, size(wanted) - 1)
