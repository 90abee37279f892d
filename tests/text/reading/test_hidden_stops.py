"""Stop texts over a text that leaves special tokens out: found as if these were written, shown without them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxserve.text import load_tokenizer
from jaxserve.text.reading.detokenizer import IncrementalDetokenizer
from jaxserve.text.reading.hidden_stops import TokenStops

SPECIALS = {100: "<|a|>", 101: "<|b|>"}


class Tokens:
    """Tokens 0 to 99 are characters, 100 and 101 are special."""

    def encode(self, text: str, *, add_special_tokens: bool, parse_special: bool = True) -> list[int]:
        ids = []
        while text:
            special = next((token for token, spelled in SPECIALS.items() if text.startswith(spelled)), None)
            ids.append(special if special is not None else ord(text[0]) % 100)
            text = text[len(SPECIALS[special]) if special is not None else 1 :]
        return ids

    def token_text(self, token: int) -> str:
        return SPECIALS.get(token, "x")

    def is_special(self, token: int) -> bool:
        return token in SPECIALS


TOKENIZER: Any = Tokens()
piece = st.one_of(st.sampled_from(sorted(SPECIALS)), st.text(alphabet="xy<|a>", min_size=1, max_size=3))
stop = st.lists(st.sampled_from(["<|a|>", "<|b|>", "x", "y"]), min_size=1, max_size=4).map("".join)


def run(stops: list[str], pieces: list[Any], *, hides: bool) -> tuple[str, str | None]:
    matcher, out = TokenStops(stops, TOKENIZER, hides=hides), ""
    for one in pieces:
        token = one if isinstance(one, int) else 0
        text = one if isinstance(one, str) else "" if hides else SPECIALS[one]
        shown, matched = matcher.push(token, text)
        out += shown
        if matched is not None:
            return out, matched
    shown, matched = matcher.end("")
    return out + shown, matched


@settings(max_examples=150, deadline=None)
@given(st.lists(stop, max_size=3), st.lists(piece, max_size=12), st.booleans())
def test_by_definition(stops: list[str], pieces: list[Any], hides: bool) -> None:
    """The first token after which a stop text is in the text, with or without special tokens, ends it."""
    whole = shown = ""
    for count, one in enumerate(pieces):
        whole += one if isinstance(one, str) else SPECIALS[one]
        shown += one if isinstance(one, str) else "" if hides else SPECIALS[one]
        if any(text in (shown, whole)[kind] for text in stops for kind in (0, 1)):
            out, matched = run(stops, pieces, hides=hides)
            assert matched in stops
            assert out == run(stops, pieces[: count + 1], hides=hides)[0]
            assert shown.startswith(out)
            assert not any(text in out for text in stops)
            return
    assert run(stops, pieces, hides=hides) == (shown, None)


@pytest.mark.parametrize("stop", ["<|im_end|>\n", "a<|im_end|>", "<|im_end|><|im_start|>", "<|im_end|>"])
def test_with_a_real_tokenizer(shared_dir: Any, stop: str) -> None:
    tokenizer = load_tokenizer(shared_dir / "real" / "tokenizers" / "qwen")
    ids = tokenizer.encode("b a" + stop + "c", add_special_tokens=False)
    assert any(map(tokenizer.is_special, ids))
    matcher, detokenizer = (
        TokenStops([stop], tokenizer, hides=True),
        IncrementalDetokenizer(tokenizer, skip_special_tokens=True),
    )
    shown = ""
    for token in ids:
        text, matched = matcher.push(token, detokenizer.push(token))
        shown += text
        if matched is not None:
            break
    assert (shown, matched) == ("b a", stop)
