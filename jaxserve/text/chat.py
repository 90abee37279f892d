"""Chat templates: messages to the prompt text that the model was trained on.

A model without a template is not given one: any guess would quietly harm its answers. `load_chat_template` then returns
None and chat requests are refused; `--chat-template FILE` supplies one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import jinja2
from jinja2 import meta

from jaxserve.errors import ModelLoadError, TemplateError
from jaxserve.text.bounded_jinja import BoundedEnvironment, Budget, TemplateLimit, render_bounded, to_json
from jaxserve.text.tokenizers.model_files import read_json_object
from jaxserve.text.tokenizers.tokenizer import Tokenizer

NO_TEMPLATE_MESSAGE = "This model has no chat template, so it can't take messages; use /v1/completions with a prompt."
"""What a chat request is told when `load_chat_template` returned None."""

RENDER_SECONDS = 10.0
MAX_CHARS = 16_000_000

Message = Mapping[str, Any]
"""A message as chat templates read it, in OpenAI's form."""


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
        self._seconds = seconds
        self._max_chars = max_chars
        environment = BoundedEnvironment()
        self._templates = {name: _compile(environment, source) for name, source in sources.items()}
        trees = (environment.parse(source) for source in sources.values())
        self._variables = frozenset().union(*(meta.find_undeclared_variables(tree) for tree in trees))

    def accepts(self, name: str) -> bool:
        """Whether the template reads a variable of this name."""
        return name in self._variables

    def _firefunction(self, tools: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
        """Variables of Fireworks' function-calling models, as their cards give them: tools as text, and the time."""
        texts = {
            "functions": to_json(list(tools or ()), indent=4),
            "datetime": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S %Z"),
        }
        return {name: text for name, text in texts.items() if self.accepts(name)}

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
            messages: OpenAI-style messages (role, content, tool_calls ...), as the template expects them.
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
            "messages": list(messages),
            "tools": list(tools) if tools else None,
            "add_generation_prompt": add_generation_prompt,
        }
        name = "tool_use" if tools and "tool_use" in self._templates else "default"
        try:
            return render_bounded(self._templates[name], variables, Budget(self._seconds, self._max_chars))
        except jinja2.TemplateError as error:
            raise TemplateError("messages", f"The model's chat template refused: {error.message}") from error
        except TemplateLimit as error:
            raise TemplateStopped("messages", f"The model's chat template was stopped: {error}.") from error
        except Exception as error:  # a template can raise whatever its expressions raise
            reason = f"{type(error).__name__}: {error}"
            raise TemplateError("messages", f"The model's chat template failed: {reason}") from error


def load_chat_template(model_dir: Path, tokenizer: Tokenizer, *, path: Path | None = None) -> ChatTemplate | None:
    """The chat template of a model directory, or None when it has none.

    Looks at `path` if given; else chat_template.jinja (with additional_chat_templates/*.jinja), then
    chat_template.json, then tokenizer_config.json's `chat_template` (a string, or a list of named templates).

    Raises:
        ModelLoadError: a file can't be read, or its template's syntax is wrong.
    """
    sources = {"default": _read(path)} if path is not None else _find(model_dir)
    return ChatTemplate(sources, tokenizer.special_tokens) if sources else None


def _compile(environment: BoundedEnvironment, source: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ModelLoadError(f"The chat template has an error in line {error.lineno}: {error.message}") from error


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
