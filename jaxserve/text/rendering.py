"""Runs a chat template, here or in a worker process.

`bounded_jinja` ends almost every template that runs or grows without end, with a message that says what it did. Almost:
lists that hold each other make a value of terabytes out of fifty assignments, and whatever reads such a value
(`|string`, `|tojson`, `==`, `in`, a dictionary's key ...) does so in one instruction of Python that checks no clock. So
a server runs templates, which come with model files, in processes that the kernel ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jinja2

from jaxserve.errors import ModelLoadError
from jaxserve.text.bounded_jinja import BoundedEnvironment, Budget, TemplateLimit, render_bounded
from jaxserve.text.isolation import Limits

LIMITS = Limits(cpu_seconds=5.0, wall_seconds=20.0, memory_bytes=768 * 2**20)
"""Of one render. A conversation of 16 million characters takes 0.2 s and 100 MiB."""

Render = Callable[[str, dict[str, Any]], "Rendered"]
"""(name of the template, variables) to what came of it."""


@dataclass(frozen=True)
class Rendered:
    """What came of a render. Plain values: it can be sent to another process."""

    text: str | None
    problem: str = ""
    """What the template did instead, as the end of a sentence."""
    stopped: bool = False
    """It passed its limits."""


@dataclass(frozen=True)
class TemplateTask:
    """What the workers do."""

    sources: Mapping[str, str]
    seconds: float
    max_chars: int

    def prepare(self) -> Render:
        """See `Task`.

        Raises:
            ModelLoadError: a template's syntax is wrong.
        """
        environment = BoundedEnvironment()
        templates = {name: _compile(environment, source) for name, source in self.sources.items()}
        return partial(_render, templates, self.seconds, self.max_chars)


def _compile(environment: BoundedEnvironment, source: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ModelLoadError(f"The chat template has an error in line {error.lineno}: {error.message}") from error


def _render(
    templates: Mapping[str, jinja2.Template], seconds: float, max_chars: int, name: str, variables: dict[str, Any]
) -> Rendered:
    try:
        return Rendered(render_bounded(templates[name], variables, Budget(seconds, max_chars)))
    except jinja2.TemplateError as error:
        return Rendered(None, f"refused: {error.message}")
    except TemplateLimit as error:
        return Rendered(None, f"was stopped: {error}.", stopped=True)
    except MemoryError:
        raise  # ends the worker, as every allocation that fails does
    except Exception as error:  # noqa: BLE001 - a template can raise whatever its expressions raise
        return Rendered(None, f"failed: {type(error).__name__}: {error}")
