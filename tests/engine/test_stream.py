"""One committed step of several tokens: what becomes text, and what a stop text takes away."""

from __future__ import annotations

import pytest
from test_engine import Letters, request

from jaxserve.engine.plan import Advance, SampledToken
from jaxserve.engine.requests import TokenLogprob
from jaxserve.engine.sequence import Sequence
from jaxserve.engine.stream import RequestStream


def pushed(ids, reason=None, **wishes):
    """The delta of one step that yields these tokens ('a' is 0), and whether a stop text ended the choice."""
    deltas = []
    one = request(**wishes)
    sequence = Sequence(one, 0, 0, finish_reason=reason)
    tokens = tuple(SampledToken(token, TokenLogprob(token, -1.0, -1.0), activation=bytes([token])) for token in ids)
    stopped = RequestStream(one, deltas.append, Letters(), 0.0).push(Advance(sequence, tokens), running=1)
    (delta,) = deltas
    return delta, stopped


def test_all_tokens_come_in_one_delta():
    delta, stopped = pushed([1, 2, 3], logprobs=0)
    assert (delta.token_ids, delta.text, delta.finish_reason, stopped) == ((1, 2, 3), "bcd", None, False)
    assert [entry.token for entry in delta.logprobs] == [1, 2, 3]
    assert delta.activations == (b"\1", b"\2", b"\3")


@pytest.mark.parametrize(
    ("stop", "ids", "text"),
    [("b", (1,), ""), ("cd", (1, 2, 3), "b"), ("e", (1, 2, 3, 4), "bcd")],
)
@pytest.mark.parametrize("reason", [None, "length"])
def test_a_stop_text_takes_the_tokens_behind_it(stop, ids, text, reason):
    delta, stopped = pushed([1, 2, 3, 4], reason, stop=(stop,), logprobs=0)
    assert (delta.token_ids, delta.text, delta.stop_text) == (ids, text, stop)
    assert (delta.finish_reason, stopped) == ("stop", True)
    assert len(delta.logprobs) == len(delta.activations) == len(ids)


def test_a_stop_token_is_the_last_and_has_no_text():
    delta, _ = pushed([1, 2, 9], "stop", stop_token_ids=(9,))
    assert (delta.token_ids, delta.text, delta.finish_reason) == ((1, 2, 9), "bc", "stop")


def test_what_might_have_become_a_stop_text_is_shown_at_the_end():
    assert pushed([1, 2], stop=("cz",))[0].text == "b"
    assert pushed([1, 2], "length", stop=("cz",))[0].text == "bc"
