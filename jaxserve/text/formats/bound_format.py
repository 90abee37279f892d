"""A format together with the tokenizer and template of the model that is served."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxserve.errors import InvalidRequest
from jaxserve.text.chat import ChatTemplate, Renderer
from jaxserve.text.formats.calls_named import NamedCalls
from jaxserve.text.formats.deepseek_encoder import DeepseekV32Encoder
from jaxserve.text.formats.history import arguments_form, prepare
from jaxserve.text.formats.neutral_forms import NeutralForms
from jaxserve.text.formats.reasoning import ReasoningPlan, ThinkingSetting, plan_reasoning
from jaxserve.text.formats.spec import Format
from jaxserve.text.formats.tools_in_system import ToolsExplained, ToolsInSystem
from jaxserve.text.reading.reader import Markers
from jaxserve.text.tokenizers.tokenizer import Tokenizer

_OWN_VARIABLES = frozenset({"messages", "tools", "add_generation_prompt", "functions", "datetime"})
"""What templates are given in any case."""
_TOKEN_LIKE = re.compile(r"(<\S+>|\[\S+\]|｜\S+｜)\Z")


@dataclass(frozen=True, eq=False)
class BoundFormat:
    """What the parser, the grammar and the API need to know. Immutable; made by `bind`."""

    format: Format
    tokenizer: Tokenizer
    renderer: Renderer | None
    """Writes the prompt; None when the model has no template and the format brings no encoder."""
    marker_ids: Mapping[str, int]
    """Markers that are single tokens."""
    stop_ids: frozenset[int]
    """Tokens that end the model's turn, beside the tokenizer's EOS."""
    specials: Mapping[bool, Markers]
    """Special tokens' texts that mean nothing to the parser, by whether calls are looked for."""
    control: Markers
    """What steers the model when it stands in a prompt as a token: special tokens and the format's markers."""
    arguments: str
    """"object" or "text": how the template wants a call's arguments."""
    accepts: Callable[[str], bool] = field(default=lambda name: False)
    """Whether the template reads a variable of this name."""

    @property
    def name(self) -> str:
        """The format's name."""
        return self.format.name

    @property
    def open_reasoning_id(self) -> int | None:
        """The token that opens the reasoning, if it is one."""
        return self.marker_ids.get(self.format.thinking.open) if self.format.thinking else None

    def prompt_opens_reasoning(self, prompt: str) -> bool:
        """Whether a rendered prompt ends inside the reasoning."""
        thinking = self.format.thinking
        return thinking is not None and bool(thinking.open) and prompt.rstrip().endswith(thinking.open)

    def plan_reasoning(
        self,
        effort: str | int | bool | None,
        thinking: ThinkingSetting = None,
        history: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> ReasoningPlan:
        """See `reasoning.plan_reasoning`.

        Raises:
            InvalidRequest: see there; or the template reads no variable of a name, or it is not the caller's to set.
        """
        for name in arguments or ():
            self._check_argument(name)
        return plan_reasoning(self.format, effort, thinking, history, arguments)

    def _check_argument(self, name: str) -> None:
        effort = self.format.effort
        if name in _OWN_VARIABLES or name in self.tokenizer.special_tokens:
            raise InvalidRequest("chat_template_kwargs", f"chat_template_kwargs: {name!r} is set by the server")
        if name not in (*effort.switch, effort.level_argument) and not self.accepts(name):
            raise InvalidRequest(
                "chat_template_kwargs",
                f"chat_template_kwargs: the model's chat template reads no variable {name[:64]!r}",
            )

    def prepare(self, messages: Sequence[Mapping[str, Any]], plan: ReasoningPlan) -> list[dict[str, Any]]:
        """See `history.prepare`."""
        return prepare(self.format, messages, plan.history, as_objects=self.arguments == "object")


def bind(format: Format, tokenizer: Tokenizer, template: ChatTemplate | None) -> BoundFormat:  # noqa: A002
    """Binds a format to a model. Takes some 50 ms: every token of the vocabulary is looked at once."""
    thinking = (format.thinking.open, format.thinking.close) if format.thinking else ()
    candidates = {text for text in (*format.calls.markers, *thinking, *format.stops) if _TOKEN_LIKE.match(text)}
    marker_ids = {text: id_ for text in candidates if (id_ := _single_token(text, tokenizer)) is not None}
    special = {tokenizer.token_text(i) for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)} - {""}
    special |= set(format.stops)
    kept = {*thinking, *format.calls.frame}
    with_calls = kept | set(format.calls.markers)
    return BoundFormat(
        format,
        tokenizer,
        _renderer(format, tokenizer, template),
        marker_ids,
        frozenset(marker_ids[text] for text in format.stops if text in marker_ids),
        {False: Markers(special - kept), True: Markers(special - with_calls)},
        Markers(special | set(marker_ids)),
        arguments_form(format, template.source if template is not None else None),
        template.accepts if template is not None else lambda name: False,
    )


def _single_token(text: str, tokenizer: Tokenizer) -> int | None:
    found = tokenizer.id_of(text)
    if found is None or tokenizer.encode(text, add_special_tokens=False) != [found]:
        return None
    return found


def _renderer(format: Format, tokenizer: Tokenizer, template: ChatTemplate | None) -> Renderer | None:  # noqa: A002
    if template is None:
        wanted = format.renderer == "deepseek_v32"
        return DeepseekV32Encoder(tokenizer.special_tokens.get("bos_token", "")) if wanted else None
    renderer = NeutralForms(template)
    if template.accepts("tools"):
        return renderer
    if format.renderer == "tools_in_system":
        return ToolsInSystem(renderer)
    return ToolsExplained(renderer, format.calls.example) if isinstance(format.calls, NamedCalls) else renderer
