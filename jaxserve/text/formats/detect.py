"""Which format a model has."""

from __future__ import annotations

import logging

from jaxserve.text.formats.families import FORMATS
from jaxserve.text.formats.spec import Format
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)


def choose_format(
    model_type: str | None, template: str | None, tokenizer: Tokenizer, *, name: str | None = None
) -> Format:
    """The format of a model: the one named, else what its template writes, else its architecture's usual one.

    Args:
        model_type: of config.json.
        template: text of the chat template; one without tools rules the architecture's usual format out.
        tokenizer: the model's; tells Llama 3 from other models of type `llama` without a template.
        name: chooses by name.

    Raises:
        ValueError: there is no format of that name; the message lists them.
    """
    if name is not None:
        if name not in FORMATS:
            raise ValueError(f"there is no chat format {name!r}; known: {', '.join(sorted(FORMATS))}")
        return FORMATS[name]
    # A template that knows no tools says that the model wasn't trained on its architecture's usual format.
    usual = _by_type(model_type) if not template or "tools" in template else None
    chosen = _by_template(template or "") or usual or FORMATS["generic"]
    if chosen.note and template:
        _log.warning("chat format %s: %s", chosen.name, chosen.note)
    return chosen


def _by_template(template: str) -> Format | None:
    matching = [
        each
        for each in FORMATS.values()
        if each.template_marks and all(mark in template for mark in each.template_marks)
    ]
    return max(matching, key=lambda each: (each.priority, len(each.template_marks)), default=None)


def _by_type(model_type: str | None) -> Format | None:
    return next((each for each in FORMATS.values() if model_type in each.model_types), None)
