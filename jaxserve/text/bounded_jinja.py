"""A jinja2 sandbox whose templates can't run or grow without end.

Templates come with model files and run inside the server, so besides jinja2's sandbox (no access to Python's internals)
a render has a `Budget`: a deadline, and the largest value it may build. It works on copies of its arguments, so that a
template may change lists (Kimi K2's appends to one of its own) without harming anybody.

The deadline needs no signal, tracing or extra thread, so it holds in any worker thread: a template can only run long by
looping or by calling, so every loop step and every call checks the clock. The syntax tree is rewritten before
compilation to pass each loop's values through a filter that does so; calls go through the sandbox's own hook. Sizes are
checked wherever text grows faster than the template is long: operators, filters, calls, set blocks, the output.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_RANGE = 100_000
"""Longest `range()` of a template."""
MAX_WIDTH = 100
"""Largest number that a text-widening filter or method (`indent`, `center`, `%10d`) takes."""
_MAX_BITS = 4096

_WIDENING = frozenset(
    {"center", "expandtabs", "indent", "ljust", "rjust", "slice", "batch", "tojson", "wordwrap", "zfill"}
)
_WIDE_FORMAT = re.compile(r"%(\([^)]*\))?[-+ #0]*(\d*\.)?(\d{3}|\*)|\{[^{}]*:[^{}]*(\d{3}|\{)")
"""A width or precision of three digits or more, or one that is itself an argument, in `%` and in `{}` notation."""


class TemplateLimit(Exception):
    """A template ran too long or built too large a value."""


class Budget:
    """What one render may use.

    Args:
        seconds: wall-clock time.
        max_chars: size of the output and of every value on the way.
    """

    def __init__(self, seconds: float, max_chars: int) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._max_chars = max_chars

    def tick(self) -> None:
        """Raise TemplateLimit when the time is over."""
        if time.monotonic() > self._deadline:
            raise TemplateLimit(f"it ran longer than {self._seconds:g} seconds")

    def check_size(self, size: int) -> None:
        """Raise TemplateLimit when a value is too large."""
        if size > self._max_chars:
            raise TemplateLimit(f"it built a value larger than {self._max_chars} characters")


_budget: ContextVar[Budget] = ContextVar("template_budget")


def render_bounded(template: jinja2.Template, variables: dict[str, Any], budget: Budget) -> str:
    """The template's output. `variables` are JSON-like values; the template gets copies.

    Raises:
        TemplateLimit: the budget is used up.
        jinja2.TemplateError: the template refuses these variables.
        Exception: whatever else its expressions raise.
    """
    token = _budget.set(budget)
    try:
        pieces: list[str] = []
        size = 0
        for piece in template.generate(_copy(variables)):
            size += len(piece)
            budget.check_size(size)
            budget.tick()
            pieces.append(piece)
        return "".join(pieces)
    finally:
        _budget.reset(token)


def _copy(value: Any) -> Any:
    """A private copy of JSON-like data."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(item) for item in value]
    return value


def _steps(values: Any) -> Iterator[Any]:
    """Filter around every loop's values: checks the clock at each step. None (`tools` when there are none) is empty."""
    tick = _budget.get().tick
    for value in () if values is None else values:
        tick()
        yield value


def _checked(value: Any) -> Any:
    """Filter around every growing value: checks its size."""
    budget = _budget.get()
    if isinstance(value, str | bytes | list | tuple | dict):
        budget.check_size(len(value))
    return value


def _check_growth(name: str, value: Any, args: Iterable[Any]) -> None:
    """Refuse a filter or method that would allocate far more than it was given, before it does."""
    args = list(args)
    if name in _WIDENING:
        for arg in args:
            if isinstance(arg, int) and abs(arg) > MAX_WIDTH:
                raise TemplateLimit(f"{name} was asked for a width of {arg}, more than {MAX_WIDTH}")
    elif name == "replace" and isinstance(value, str) and len(args) > 1:
        growth = len(str(args[1])) * (value.count(str(args[0])) if args[0] else len(value) + 1)
        _budget.get().check_size(len(value) + growth)
    elif name == "format" and isinstance(value, str):
        _check_format(value)


def _check_join(separator: str, items: Iterable[Any]) -> list[Any]:
    budget, size, listed = _budget.get(), 0, []
    for item in items:
        size += len(separator) + (len(item) if isinstance(item, str) else 1)
        budget.check_size(size)
        listed.append(item)
    return listed


def _check_format(template: str) -> None:
    if _WIDE_FORMAT.search(template):
        raise TemplateLimit("a format string asks for a width of three digits or a computed one")


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter with its growth checked before and its result after. Jinja2's markers on the function are kept."""
    passes_first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        _budget.get().tick()
        value, rest = args[passes_first], [*args[passes_first + 1 :], *kwargs.values()]
        _check_growth(name, value, rest)
        if name == "join" and not isinstance(value, str):
            listed = _check_join(str(rest[0]) if rest else "", value)
            args = (*args[:passes_first], listed, *args[passes_first + 1 :])
        return _checked(function(*args, **kwargs))

    return bounded


class _Bounds(NodeTransformer):
    """Puts `_steps` around loops' values and `_checked` around `~` and set blocks."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  (jinja2's name)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_steps")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "_checked")

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = _filtered(node.filter, "_checked")
        return node


def _filtered(node: nodes.Node | None, name: str) -> nodes.Filter:
    line = None if node is None else node.lineno
    return nodes.Filter(cast("nodes.Expr | None", node), name, [], [], None, None, lineno=line or 1)


class GenerationBlock(Extension):
    """`{% generation %}...{% endgeneration %}`, marks the assistant's text for training: here just its content."""

    tags = {"generation"}  # noqa: RUF012  (declared so by jinja2)

    def parse(self, parser: Parser) -> nodes.Node:
        """The block's body in a scope of its own."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


class BoundedEnvironment(SandboxedEnvironment):
    """Compiles and runs chat templates with the globals and filters that they expect."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationBlock], cache_size=0
        )
        self.filters["tojson"] = to_json
        self.filters.pop("pprint", None)
        self.filters = {name: _bounded_filter(name, function) for name, function in self.filters.items()}
        self.filters |= {"_steps": _steps, "_checked": _checked}
        self.globals.pop("lipsum", None)
        self.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now, "range": _range}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bounds().visit(super()._parse(source, name, filename))
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Every call of a template: macros, methods, globals."""
        _budget.get().tick()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            if name == "join" and args:
                args = (_check_join(owner, args[0]), *args[1:])
            _check_growth(name, owner, [*args, *kwargs.values()])
        result = super().call(__context, __obj, *args, **kwargs)
        _checked(owner)
        return _checked(result)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format`, which the sandbox replaces by its own when it is looked up: checked at the same moment."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators that can make large values."""
        if operator == "%" and isinstance(left, str):
            _check_format(left)
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**" and not (_bits(left) * abs(right) < _MAX_BITS):
            raise TemplateLimit("it raised a number to a very large power")
        return _checked(super().call_binop(context, operator, left, right))


def _check_product(left: Any, right: Any) -> None:
    for text, count in ((left, right), (right, left)):
        if isinstance(text, str | bytes | list | tuple) and isinstance(count, int):
            _budget.get().check_size(len(text) * count)
    if _bits(left) + _bits(right) > _MAX_BITS:
        raise TemplateLimit("it computed a very large number")


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 64


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The `tojson` of chat templates: plain JSON, unlike jinja2's own, which escapes for HTML and sorts keys."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_listed
    )


def _listed(value: Any) -> list[Any]:
    """The results of filters such as `map` are iterators."""
    if isinstance(value, Iterator):
        return list(_steps(value))
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _raise(message: Any) -> NoReturn:
    raise jinja2.TemplateError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _range(*args: int) -> range:
    values = range(*args)
    if len(values) > MAX_RANGE:
        raise TemplateLimit(f"range() of more than {MAX_RANGE} numbers")
    return values
