"""The notebook face: a model as an object, without a server."""

from __future__ import annotations

from jaxserve.llm.chat import ChatAnswer, ChatPiece
from jaxserve.llm.completion import Completion
from jaxserve.llm.inspection import Score
from jaxserve.llm.model import LLM
from jaxserve.llm.params import SamplingParams
from jaxserve.sampling.rule import Rows, Rule

__all__ = ["LLM", "ChatAnswer", "ChatPiece", "Completion", "Rows", "Rule", "SamplingParams", "Score"]
