"""Writing grammars in llguidance's dialect of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.tools import Tool
from jaxserve.text.formats.values import ALL_TYPES, resolve, type_of
from jaxserve.text.schemas.clean import clean_schema
from jaxserve.text.schemas.reading import LAYOUT_KEYWORD

COMPACT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
"""Layout inside the JSON of calls: a blank where models write one, and none elsewhere. Tokens are money."""
DENSE = {"whitespace_flexible": False}
"""No layout at all."""
ROOMY = {"whitespace_pattern": r"\n?[ \t]{0,64}", "whitespace_flexible": True}
"""Layout for schemas that ask for it: bounded, so that no model can write blanks for ever."""
_FORMAT_PATTERNS = {
    "date": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-8])",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
    "uuid": r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
    "ipv4": r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])",
    "email": r"[a-zA-Z0-9_+-]+(\.[a-zA-Z0-9_+-]+)*@[a-zA-Z0-9]([a-zA-Z0-9-]{0,40}[a-zA-Z0-9])?(\.[a-zA-Z]{2,10})+",
}
_FORMAT_PATTERNS["date-time"] = f"{_FORMAT_PATTERNS['date']}T{_FORMAT_PATTERNS['time']}"
_ANY = "(?s:.*)"
_JSON_LIKE = r"\s*([\[{\"\-0-9]|null|true|false|None|True|False|NaN|Infinity)(?s:.*)|\s*"


@dataclass(frozen=True)
class ValueRule:
    """One way to write an unquoted value, with the text that ends it."""

    expression: str
    is_text: bool


@dataclass(frozen=True)
class Tail:
    """What follows an unquoted value."""

    layout: str
    close: str
    """Ends the value wherever it occurs."""
    after: str

    @property
    def text(self) -> str:
        """All of it."""
        return self.layout + self.close + self.after


@dataclass
class Lark:
    """A grammar being written. Methods return expressions that others can hold.

    Args:
        marker_ids: texts that are single tokens.
        relax: leave out what a non-strict tool's schema asks for and the grammar can't enforce.
        open_objects: see `clean_schema`.
    """

    marker_ids: Mapping[str, int]
    relax: bool = False
    open_objects: bool = False
    relaxed: list[tuple[str, str]] = field(default_factory=list)
    """(tool, what was left out)."""
    _lines: list[str] = field(default_factory=list)
    _known: dict[str, str] = field(default_factory=dict)

    def finish(self, start: str) -> str:
        """The whole grammar."""
        head = ['%llguidance {"no_forcing": true}', f"start: {start}"]
        return "\n".join([*head, *self._lines]) + "\n"

    def rule(self, expression: str, attributes: str = "") -> str:
        """Names an expression."""
        return self._name("r", expression, attributes)

    def choice(self, options: Sequence[str]) -> str:
        """One of several expressions."""
        return self.rule(" | ".join(f"({option})" for option in options))

    def text(self, text: str) -> str:
        """A fixed text; markers in it are the tokens they are."""
        parts: list[str] = []
        for part in self._split(text):
            if part in self.marker_ids:
                parts.append(f"<[{self.marker_ids[part]}]>")
            elif part:
                parts.append(json.dumps(part, ensure_ascii=False))
        return " ".join(parts) or '""'

    def pattern(self, regex: str) -> str:
        """A regular expression, as a lexeme of its own."""
        return self._name("T", _regex(regex), "")

    def free(self) -> str:
        """Any text without special tokens."""
        return self.pattern(_ANY)

    def arguments(self, tool: Tool) -> str:
        """A tool's arguments as a JSON object."""
        return self._json(tool.parameters, tool, "")

    def json(self, schema: Any, tool: Tool, key: str) -> str:
        """One argument as JSON."""
        return self._json(self._rooted(schema, tool), tool, key)

    def schema(self, schema: Any, place: str) -> str:
        """Any JSON value of a schema."""
        layout: Mapping[str, Any] = DENSE
        if isinstance(schema, Mapping) and schema.get(LAYOUT_KEYWORD) in ({"whitespace_flexible": True}, DENSE):
            layout = ROOMY if schema[LAYOUT_KEYWORD]["whitespace_flexible"] else DENSE
            schema = {keyword: value for keyword, value in schema.items() if keyword != LAYOUT_KEYWORD}
        cleaned, _ = clean_schema(schema, place, open_objects=self.open_objects)
        return self._embed(cleaned, layout)

    def nested(self, lark: str) -> str:
        """A whole grammar of its own, rule names included."""
        return self._name("r", f"%lark {{\n{lark}\n}}", "")

    def _json(self, schema: Any, tool: Tool, key: str) -> str:
        place = f"{tool.place}.parameters"
        cleaned, dropped = clean_schema(schema, place, relax=self._relaxes(tool))
        self.relaxed += [(tool.name, f"{key}{path}") for path in dropped]
        if not key and isinstance(cleaned, dict):
            cleaned.setdefault("type", "object")
        return self._embed(cleaned, COMPACT)

    def _relaxes(self, tool: Tool) -> bool:
        return self.relax and not tool.strict

    def _embed(self, cleaned: Any, layout: Mapping[str, Any]) -> str:
        if cleaned is True:
            cleaned = {}
        if cleaned is False:
            cleaned = {"enum": []}
        body = json.dumps({**cleaned, LAYOUT_KEYWORD: layout}, ensure_ascii=True)
        return self._name("j", f"%json {body}", "")

    def properties(self, tool: Tool) -> list[tuple[str, Any, bool]]:
        """(key, schema, required) of a tool's parameters, for arguments that are written one by one.

        Raises:
            InvalidRequest: the parameters say something about the object as a whole this way of writing can't keep.
        """
        required = tool.parameters.get("required") or []
        for keyword in ("anyOf", "allOf", "oneOf", "patternProperties", "minProperties", "maxProperties", "$ref"):
            if keyword in tool.parameters:
                self._unsupported(tool, keyword, "")
        missing = [key for key in required if key not in tool.properties]
        listed = [(key, schema, key in required) for key, schema in tool.properties.items()]
        return listed + [(str(key), {}, True) for key in missing]

    def _unsupported(self, tool: Tool, keyword: str, key: str) -> None:
        place = f"{tool.place}.parameters"
        if not self._relaxes(tool):
            raise InvalidRequest(
                place, f"{place}: keyword not supported with this model ({keyword!r} at {key or 'the root'})"
            )
        self.relaxed.append((tool.name, f"{key}/{keyword}"))

    def value(self, schema: Any, types: frozenset[str], tool: Tool, key: str, tail: Tail) -> list[ValueRule]:
        """Ways to write an argument without quotes, each with `tail` after it.

        Text is written as it is, everything else as JSON. Where both are possible, text that reads like JSON is not.
        """
        rules = []
        others = types - {"string"}
        if others:
            expression = self.json(_without_text(schema, others, tool.parameters), tool, key)
            rules.append(ValueRule(f"{expression} {self.text(tail.text)}", is_text=False))
        if "string" in types:
            rules += self._raw(schema, tool, key, tail, mixed=bool(others))
        return rules

    def _raw(self, schema: Any, tool: Tool, key: str, tail: Tail, *, mixed: bool) -> list[ValueRule]:
        schema = _text_part(schema, tool.parameters)
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            texts = [value for value in values if isinstance(value, str)]
            return [ValueRule(f"{self.text(text)} {self.text(tail.text)}", is_text=True) for text in texts]
        return [ValueRule(self._raw_text(self._body(schema, tool, key), tail, mixed=mixed), is_text=True)]

    def _body(self, schema: Mapping[str, Any], tool: Tool, key: str) -> str:
        """Regular expression of a text that a schema allows."""
        given = [name for name in ("pattern", "format", "minLength", "maxLength") if name in schema]
        if not given:
            return _ANY
        if "pattern" in given and len(given) == 1:
            return _unanchored(str(schema["pattern"]))
        if given == ["format"] and schema["format"] in _FORMAT_PATTERNS:
            return _FORMAT_PATTERNS[schema["format"]]
        if not {"pattern", "format"} & set(given):
            return f"(?s:.{{{int(schema.get('minLength', 0))},{schema.get('maxLength', '')}}})"
        for keyword in given:
            self._unsupported(tool, keyword, key)
        return _ANY

    def _raw_text(self, body: str, tail: Tail, *, mixed: bool) -> str:
        """Text matching `body`, then `tail`; what closes the value must not occur in it."""
        parts = self._split(tail.close)
        token = next((index for index, part in enumerate(parts) if part in self.marker_ids), None)
        literal = re.escape(tail.layout + "".join(parts[:token]))
        terminal = _regex(f"({body}){literal}")
        # Without a token the lexeme holds the closing text itself, at its end and nowhere else.
        beyond = "(?s:.+)" if token is None else _ANY
        terminal += f" & ~{_regex(f'{_ANY}{re.escape(tail.close)}{beyond}')}"
        if mixed:
            terminal += f" & ~{_regex(f'({_JSON_LIKE}){literal}')}"
        if token is None:
            lexeme = self._name("r", self._name("T", terminal, ""), "[lazy]")
            return f"{lexeme} {self.text(tail.after)}"
        return f"{self._name('T', terminal, '')} {self.text(''.join(parts[token:]) + tail.after)}"

    def _split(self, text: str) -> list[str]:
        if not self.marker_ids:
            return [text]
        longest_first = sorted(self.marker_ids, key=len, reverse=True)
        return [part for part in re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text) if part]

    def _name(self, kind: str, expression: str, attributes: str) -> str:
        key = f"{kind}{attributes}: {expression}"
        if key not in self._known:
            self._known[key] = f"{kind}{len(self._known)}"
            self._lines.append(f"{self._known[key]}{attributes}: {expression}")
        return self._known[key]

    def _rooted(self, schema: Any, tool: Tool) -> Any:
        """An argument's schema with the definitions that it may refer to."""
        if not isinstance(schema, Mapping):
            return schema
        definitions = {name: tool.parameters[name] for name in ("$defs", "definitions") if name in tool.parameters}
        return {**schema, **definitions}


def _regex(regex: str) -> str:
    """A regular expression as Lark writes it."""
    return "/" + regex.replace("/", r"\/").replace("\\\n", "\n").replace("\n", r"\n") + "/"


def _unanchored(pattern: str) -> str:
    """A JSON Schema pattern, which matches anywhere, as one that matches the whole text."""
    start = "" if pattern.startswith("^") else _ANY
    end = "" if pattern.endswith("$") and not pattern.endswith(r"\$") else _ANY
    inner = pattern.removeprefix("^")
    return f"{start}({inner[:-1] if not end else inner}){end}"


def _text_part(schema: Any, root: Mapping[str, Any], depth: int = 0) -> Mapping[str, Any]:
    """The part of a schema that describes texts."""
    if not isinstance(schema, Mapping) or depth > 16:
        return {}
    if "$ref" in schema:
        return _text_part(resolve(schema["$ref"], root), root, depth + 1)
    for keyword in ("anyOf", "oneOf"):
        for option in schema.get(keyword) or ():
            found = _text_part(option, root, depth + 1)
            if found.get("type") == "string" or any(isinstance(v, str) for v in found.get("enum", ())):
                return found
    return schema


def _without_text(schema: Any, others: Iterable[str], root: Mapping[str, Any]) -> Any:
    """A schema without the texts it allows."""
    if isinstance(schema, Mapping) and "$ref" in schema:
        schema = resolve(schema["$ref"], root)
    if not isinstance(schema, Mapping) or set(others) >= ALL_TYPES:
        return schema
    kept = {key: value for key, value in schema.items() if key not in ("pattern", "format", "minLength", "maxLength")}
    for keyword in ("anyOf", "oneOf"):
        if isinstance(kept.get(keyword), list):
            kept[keyword] = [o for o in kept[keyword] if not (isinstance(o, Mapping) and o.get("type") == "string")]
            return kept
    if isinstance(kept.get("enum"), list):
        return {"enum": [value for value in kept["enum"] if type_of(value) != "string"]}
    return {**kept, "type": sorted(others)}
