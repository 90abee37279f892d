"""Tokens coloured by their probability, as HTML that needs no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from jaxserve.engine.requests import TokenLogprob
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_BOX = "white-space:pre-wrap;font-family:monospace;line-height:1.6"


def tokens_html(text: str, scores: Sequence[TokenLogprob | None], tokenizer: Tokenizer | None) -> str:
    """The tokens with their probabilities, or the text alone where there are none.

    Args:
        text: what the tokens wrote.
        scores: of each token; None = not known.
        tokenizer: spells them.
    """
    if tokenizer is None or not any(scores):
        return f'<div style="{_BOX}">{escape(text)}</div>'
    spans = "".join(_span(score, tokenizer) for score in scores if score is not None)
    return f'<div style="{_BOX}">{spans}</div>'


def _span(score: TokenLogprob, tokenizer: Tokenizer) -> str:
    probability = math.exp(score.logprob)
    rivals = "".join(f"\n{math.exp(logprob):7.2%}  {tokenizer.token_text(token)!r}" for token, logprob in score.top)
    title = escape(f"{tokenizer.token_text(score.token)!r} ({score.token}): {probability:.2%}{rivals}", quote=True)
    # From red (unlikely) over yellow to green; half transparent, so that it reads on light and dark pages.
    colour = f"hsla({120 * probability:.0f},80%,45%,0.35)"
    return f'<span style="background:{colour}" title="{title}">{escape(tokenizer.token_text(score.token))}</span>'
