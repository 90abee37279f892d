"""Tokens to meaning and back: tokenizers, incremental detokenizer, stop strings, chat templates. No jax here.

In: a model directory's tokenizer and template files, then text or token ids. Out: token ids or text. Imports nothing of
this package but `errors`.
"""

from jaxserve.text.chat import NO_TEMPLATE_MESSAGE, ChatTemplate, load_chat_template
from jaxserve.text.reading.detokenizer import IncrementalDetokenizer
from jaxserve.text.reading.stop import StopMatcher
from jaxserve.text.tokenizers.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "NO_TEMPLATE_MESSAGE",
    "ChatTemplate",
    "IncrementalDetokenizer",
    "StopMatcher",
    "Tokenizer",
    "load_chat_template",
    "load_tokenizer",
]
