"""Conversations as text: ChatML-like turns, the same that the model's chat template renders."""

from __future__ import annotations

from typing import NamedTuple

TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    """system, user or assistant."""
    content: str


def render(turns: list[Turn]) -> str:
    """The conversation as the chat template of the model writes it."""
    return "".join(f"{TURN_START}{turn.role}\n{turn.content}{TURN_END}\n" for turn in turns)
