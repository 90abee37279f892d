"""Chat templates: messages to the prompt text that the model was trained on.

A model without a template is not given one: any guess would quietly harm its answers. `load_chat_template` then returns
None and chat requests are refused; `--chat-template FILE` supplies one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from jinja2 import meta

from jaxserve.errors import ModelLoadError, TemplateError
from jaxserve.text.bounded_jinja import BoundedEnvironment, to_json
from jaxserve.text.isolation import Overrun, Workers
from jaxserve.text.rendering import LIMITS, Rendered, TemplateTask
from jaxserve.text.tokenizers.model_files import read_json_object
from jaxserve.text.tokenizers.tokenizer import Tokenizer

NO_TEMPLATE_MESSAGE = "This model has no chat template, so it can't take messages; use /v1/completions with a prompt."
"""What a chat request is told when `load_chat_template` returned None."""

RENDER_SECONDS = 10.0
MAX_CHARS = 16_000_000

Message = Mapping[str, Any]
"""A message as chat templates read it, in OpenAI's form."""


_MARK = re.compile("\ufdd0([0-9]{1,4})\ufdd1")
_ASKS_FOR_TEXT = re.compile(r"\bis\s+(not\s+)?(string|iterable|mapping|sequence)\b")


def image_mark(number: int) -> str:
    """What stands in a message's text in place of image `number`: noncharacters of Unicode, which texts don't hold."""
    return f"\ufdd0{number}\ufdd1"


def image_numbers(text: str) -> list[int]:
    """The images that stand in a message's text, in order."""
    return [int(number) for number in _MARK.findall(text)]


class TemplateStopped(TemplateError):
    """A template passed its limits; with other messages it would only take as long again."""


class Renderer(Protocol):
    """Messages to the prompt's text; `ChatTemplate` is one."""

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_args: Any,
    ) -> str:
        """See `ChatTemplate.render`."""


class ChatTemplate:
    """A model's chat template, compiled once. Thread-safe.

    Args:
        sources: template texts by name: "default", and others such as "tool_use", which renders requests with tools.
        special_tokens: named special tokens (`bos_token` ...), variables of the template.
        seconds: a render may take this long.
        max_chars: and produce so many characters.

    Raises:
        ModelLoadError: a template's syntax is wrong, or there is no "default".
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        special_tokens: Mapping[str, str],
        *,
        seconds: float = RENDER_SECONDS,
        max_chars: int = MAX_CHARS,
    ) -> None:
        if "default" not in sources:
            raise ModelLoadError(f"The chat templates {sorted(sources)} have no default among them.")
        self.source = sources["default"]
        self._special_tokens = dict(special_tokens)
        self._task = TemplateTask(dict(sources), seconds, max_chars)
        self._render = self._task.prepare()
        environment = BoundedEnvironment()
        trees = (environment.parse(source) for source in sources.values())
        self._shows_images = any("image" in source for source in sources.values())
        self._takes_text = not self._shows_images or any(map(_ASKS_FOR_TEXT.search, sources.values()))
        self._variables = frozenset().union(*(meta.find_undeclared_variables(tree) for tree in trees))

    def accepts(self, name: str) -> bool:
        """Whether the template reads a variable of this name."""
        return name in self._variables

    def isolated(self, workers: Workers) -> ChatTemplate:
        """The same template, run by these workers; their owner closes them.

        Args:
            workers: made by `workers`.
        """
        template = copy(self)
        template._render = partial(_rendered_by, workers)
        return template

    def workers(self) -> Workers:
        """Processes that can run this template."""
        return Workers(self._task, LIMITS)

    def _firefunction(self, tools: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
        """Variables of Fireworks' function-calling models, as their cards give them: tools as text, and the time."""
        texts = {
            "functions": to_json(list(tools or ()), indent=4),
            "datetime": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S %Z"),
        }
        return {name: text for name, text in texts.items() if self.accepts(name)}

    def _with_parts(self, message: Message) -> Message:
        """The message with a list of parts for its content where it has images, or the template reads nothing else."""
        content = message.get("content")
        if not isinstance(content, str) or (self._takes_text and _MARK.search(content) is None):
            return message
        return {**message, "content": _parts(content)}

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **template_args: Any,
    ) -> str:
        """Prompt text of a conversation. Encode it with `add_special_tokens=False`: the template wrote BOS if any.

        Args:
            messages: OpenAI-style messages (role, content, tool_calls ...), as the template expects them; in texts,
                `image_mark` stands for an image.
            tools: OpenAI-style tool definitions; None or empty = none.
            add_generation_prompt: end with the opening of an assistant turn.
            template_args: further variables of the template (`enable_thinking`, `documents` ...).

        Raises:
            TemplateError: the template refused the messages (its own words are quoted).
            TemplateStopped: it passed its limits.
        """
        variables = {
            **self._special_tokens,
            "documents": None,
            **self._firefunction(tools),
            **template_args,
            "messages": [self._with_parts(message) for message in messages] if self._shows_images else list(messages),
            "tools": list(tools) if tools else None,
            "add_generation_prompt": add_generation_prompt,
        }
        name = "tool_use" if tools and "tool_use" in self._task.sources else "default"
        rendered = self._render(name, variables)
        if rendered.text is None:
            kind = TemplateStopped if rendered.stopped else TemplateError
            raise kind("messages", f"The model's chat template {rendered.problem}")
        return rendered.text


def _parts(content: str) -> list[dict[str, str]]:
    pieces = _MARK.split(content)
    parts = [
        {"type": "image"} if index % 2 else {"type": "text", "text": piece}
        for index, piece in enumerate(pieces)
        if index % 2 or piece
    ]
    return parts or [{"type": "text", "text": ""}]


def _rendered_by(workers: Workers, name: str, variables: dict[str, Any]) -> Rendered:
    try:
        rendered: Rendered = workers.run(name, variables)
    except Overrun as overrun:
        return Rendered(None, f"was stopped: {overrun}.", stopped=True)
    return rendered


def load_chat_template(model_dir: Path, tokenizer: Tokenizer, *, path: Path | None = None) -> ChatTemplate | None:
    """The chat template of a model directory, or None when it has none.

    Looks at `path` if given; else chat_template.jinja (with additional_chat_templates/*.jinja), then
    chat_template.json, then tokenizer_config.json's `chat_template` (a string, or a list of named templates).

    Raises:
        ModelLoadError: a file can't be read, or its template's syntax is wrong.
    """
    sources = {"default": _read(path)} if path is not None else _find(model_dir)
    return ChatTemplate(sources, tokenizer.special_tokens) if sources else None


def _find(model_dir: Path) -> dict[str, str]:
    main = model_dir / "chat_template.jinja"
    if main.is_file():
        others = sorted((model_dir / "additional_chat_templates").glob("*.jinja"))
        return {**{other.stem: _read(other) for other in others}, "default": _read(main)}
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = _named(read_json_object(model_dir / name).get("chat_template"), model_dir / name)
        if found:
            return found
    return {}


def _named(value: Any, where: Path) -> dict[str, str]:
    """Templates by name, from a string, a list of {name, template} or an object."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = {item.get("name"): item.get("template") for item in value}
    if isinstance(value, dict) and all(isinstance(text, str) for item in value.items() for text in item):
        return value
    raise ModelLoadError(f"{where}: chat_template is neither a text nor a list of named texts.")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"The chat template {path} can't be read: {error}") from error
