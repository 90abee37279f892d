"""How model families write reasoning and tool calls, and what their templates want of earlier messages.

One small file declares each family (`qwen3.py`, ...); `calls_*.py` are the ways of writing calls that they choose from,
each of which reads text and writes a grammar. In: messages, or the model's text. Out: messages for the template, or
events. Imports nothing of this package but `errors` and its neighbours in `text`.
"""

from jaxserve.text.chat import Renderer
from jaxserve.text.formats.bound_format import BoundFormat, bind
from jaxserve.text.formats.detect import choose_format
from jaxserve.text.formats.families import FORMATS
from jaxserve.text.formats.reasoning import ReasoningPlan
from jaxserve.text.formats.spec import Format
from jaxserve.text.formats.tools import Tool

__all__ = [
    "FORMATS",
    "BoundFormat",
    "Format",
    "ReasoningPlan",
    "Renderer",
    "Tool",
    "bind",
    "choose_format",
]
