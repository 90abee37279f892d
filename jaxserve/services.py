"""What requests need beside the engine: the chat format, grammars, and the model as clients see it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from jaxserve.api.settings import ModelInfo
from jaxserve.errors import ModelLoadError
from jaxserve.text.chat import load_chat_template
from jaxserve.text.formats import BoundFormat, choose_format
from jaxserve.text.formats import bind as bind_format

if TYPE_CHECKING:
    from jaxserve.api.ports import TextServices
    from jaxserve.described import Described
    from jaxserve.images.processor import ImageServices
    from jaxserve.startup import Started

_log = logging.getLogger(__name__)


def chat_format(
    described: Described, closing: ExitStack, *, template_file: Path | None = None, name: str | None = None
) -> BoundFormat:
    """The model's template and format.

    Args:
        described: the model.
        closing: learns how to end the processes that render.
        template_file: template to use instead of the model's.
        name: of the format; None = found out.

    Raises:
        ModelLoadError: the template can't be used, or there is no format of the wanted name.
    """
    tokenizer = described.tokenizer
    template = load_chat_template(described.options.model_dir, tokenizer, path=template_file)
    source = template.source if template is not None else None
    if template is not None:
        workers = template.workers()
        template = template.isolated(workers)
        closing.callback(workers.close)
        workers.start()
    try:
        chosen = choose_format(described.model_config.model_type, source, tokenizer, name=name)
    except ValueError as error:
        raise ModelLoadError(str(error)) from None
    return bind_format(chosen, tokenizer, template)


def text_services(
    described: Described, bound: BoundFormat, closing: ExitStack, images: ImageServices | None
) -> TextServices:
    """The format, images, and grammars where the tokenizer allows; `closing` learns how to end their processes."""
    # Imported late: what the options get wrong is told without them.
    from jaxserve.api.ports import TextServices
    from jaxserve.text.grammar.constraint import ConstraintBuilder

    try:
        constraints = ConstraintBuilder(bound, vocab_size=described.model_config.vocab_size)
    except ValueError as error:
        _log.warning("structured output and tools are off: %s", error)
        return TextServices(described.tokenizer, bound, images=images)
    closing.callback(constraints.close)
    constraints.start()
    return TextServices(described.tokenizer, bound, constraints, images)


def model_info(started: Started, names: tuple[str, ...], sampling_defaults: Mapping[str, float]) -> ModelInfo:
    """The model as clients see it."""
    return ModelInfo(
        names=names,
        context_length=started.config.max_model_len,
        vocab_size=started.model_config.vocab_size,
        created=int(time.time()),
        returns_activations=True,
        reads_images=started.images is not None,
        routed_experts=started.model_config.routed_experts,
        sampling_defaults=sampling_defaults,
    )
