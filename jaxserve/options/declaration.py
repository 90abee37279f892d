"""How an option is declared: a field of a frozen dataclass, with what people are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxserve.errors import ModelLoadError

_Chosen = TypeVar("_Chosen", bound="Options")


@dataclass(frozen=True)
class Option:
    """What people are told of an option, and what is checked of its value."""

    help: str
    group: str
    commands: tuple[str, ...] = ("serve",)
    """Commands that take it; none: an argument of `LLM` alone."""
    default_text: str | None = None
    """What happens without it, where the default is None."""
    least: float | None = None
    most: float | None = None
    parse: Callable[[str], Any] | None = None
    """Reads the text of a flag, where the type alone doesn't say how; raises ValueError."""
    show: Callable[[Any], str] = str
    """Writes such a value."""
    metavar: str | None = None
    """What stands for such a value in help texts."""
    also: tuple[str, ...] = ()
    """Further environment variables that are read."""
    positional: bool = False
    """The command's argument instead of a flag."""


def option(default: Any, help_text: str, group: str, **more: Any) -> Any:
    """A dataclass field that is an option; `more` are further fields of `Option`."""
    return field(default=default, metadata={"option": Option(help_text, group, **more)})


class Options:
    """Base of option classes: a value out of its range is refused wherever it comes from."""

    def __post_init__(self) -> None:
        for each in declared(type(self), nested=False):
            each.check(getattr(self, each.name))


@dataclass(frozen=True)
class Declared:
    """An option and the field that declares it."""

    name: str
    """Of the field, of the key in a file and of the argument of `LLM`."""
    kind: Any
    """Type of the value, or of each value where `repeatable`; a Literal where there are choices."""
    repeatable: bool
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """`--max-waiting`. The flag of a list is named for one of its values: `--api-key` adds to `api_keys`."""
        return "--" + (self.name.removesuffix("s") if self.repeatable else self.name).replace("_", "-")

    @property
    def variables(self) -> list[str]:
        """`JAXSERVE_MAX_WAITING`, and others that are read where it isn't set."""
        return [f"JAXSERVE_{self.name.upper()}", *self.option.also]

    @property
    def default_words(self) -> str:
        """What stands without it, for people."""
        if self.option.default_text is not None:
            return self.option.default_text
        if self.kind is bool:
            return "on" if self.default else "off"
        return self.option.show(self.default)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it may have, where they are few."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    def check(self, value: Any) -> None:
        """Refuses a value outside the range or the choices.

        Raises:
            ModelLoadError: names the flag.
        """
        least, most = self.option.least, self.option.most
        if value is None or self.repeatable:
            return
        if self.choices and value not in self.choices:
            raise ModelLoadError(f"{self.flag} must be one of {', '.join(self.choices)}, not {value!r}")
        if (least is not None and value < least) or (most is not None and value > most):
            raise ModelLoadError(f"{self.flag} must be {self.range}, not {value}")

    @property
    def range(self) -> str:
        """Bounds in words, empty without any."""
        least, most = self.option.least, self.option.most
        parts = [f"at least {least}"] if least is not None else []
        return " and ".join(parts + ([f"at most {most}"] if most is not None else []))


def declared(*classes: type[Any], nested: bool = True) -> Iterator[Declared]:
    """The options of option classes in their order, with those of option classes that are fields of them."""
    for cls in classes:
        hints = get_type_hints(cls)
        for each in fields(cls):
            if "option" in each.metadata:
                kind, repeatable = _kind(hints[each.name])
                yield Declared(each.name, kind, repeatable, each.default, each.metadata["option"])
            elif nested and _is_nested(hints[each.name]):
                yield from declared(hints[each.name])


def build(cls: type[_Chosen], values: Mapping[str, Any], **more: Any) -> _Chosen:
    """An option class from values by name; fields without a value keep their default, `more` are further fields."""
    hints = get_type_hints(cls)
    chosen: dict[str, Any] = {}
    for each in fields(cls):  # type: ignore[arg-type]
        if (
            "option" not in each.metadata
            and isinstance(hints[each.name], type)
            and issubclass(hints[each.name], Options)
        ):
            chosen[each.name] = build(hints[each.name], values)
        elif (value := values.get(each.name)) is not None:
            chosen[each.name] = tuple(value) if isinstance(value, list) else value
    return cls(**(chosen | more))


def _is_nested(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Options)


def _kind(hint: Any) -> tuple[Any, bool]:
    """The type behind `X | None` and `tuple[X, ...]`, and whether it was the latter."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not NoneType)
    if get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis:
        return get_args(hint)[0], True
    return hint, False
