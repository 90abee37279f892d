"""Earlier messages as the model's template wants them: arguments, ids, reasoning, one call at a time."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxserve.errors import InvalidRequest
from jaxserve.text.formats.spec import Format, HistoryMode

Draft = dict[str, Any]
"""A message on its way into the form that the template wants."""
_AS_OBJECT = re.compile(r"(arguments|function)['\"\]]*\s*\|\s*(tojson|items)|_args\.items\(\)|arguments\.items\(\)")
_CHECKED = re.compile(r"arguments['\"\]]*\s+is\s+string")


def arguments_form(format: Format, template: str | None) -> str:  # noqa: A002
    """ "object" or "text": what the template does with a call's arguments decides where the format doesn't."""
    if format.handover.arguments != "template":
        return format.handover.arguments
    if template is None or _AS_OBJECT.search(template) or _CHECKED.search(template):
        return "object"
    return "text"


def prepare(
    format: Format,  # noqa: A002
    messages: Sequence[Mapping[str, Any]],
    history: HistoryMode | None,
    *,
    as_objects: bool,
) -> list[Draft]:
    """Messages for the template.

    Results of tools come in the order of the calls that they answer: most templates show no ids, so the model takes
    the first result for the first call's. Arguments that are no JSON object (a call that was cut) are handed over as
    the text they are.

    Args:
        format: the model's format.
        messages: OpenAI-style messages; a call's arguments may be JSON text or an object.
        history: which reasoning stays; None = all, the template decides.
        as_objects: hand arguments over as objects instead of JSON text.

    Raises:
        InvalidRequest: a call without a name, a tool message that answers no call.
    """
    drafts = [dict(message) for message in messages]
    _check_tool_messages(drafts)
    ids = _Ids(format.handover.ids)
    prepared: list[Draft] = []
    for index, message in enumerate(drafts):
        if message.get("role") == "tool":
            continue
        prepared.append(message)
        if message.get("tool_calls"):
            _rewrite_calls(message, f"messages.{index}.tool_calls", ids, as_objects=as_objects)
            prepared += ids.answers(_results_after(drafts, index))
        else:
            message.pop("tool_calls", None)
    _filter_reasoning(prepared, history, format.handover.reasoning_key)
    return _one_call_each(prepared) if format.handover.one_call_each else prepared


def _results_after(messages: Sequence[Draft], index: int) -> list[Draft]:
    """The tool messages that directly follow a message."""
    return list(itertools.takewhile(lambda message: message.get("role") == "tool", messages[index + 1 :]))


def _check_tool_messages(messages: Sequence[Draft]) -> None:
    open_ids: set[str] | None = None
    for index, message in enumerate(messages):
        if message.get("role") != "tool":
            calls = message.get("tool_calls") if message.get("role") == "assistant" else None
            open_ids = {str(call.get("id")) for call in calls} if calls else None
            continue
        if open_ids is None:
            raise InvalidRequest(
                f"messages.{index}",
                f"messages.{index}: a tool message must follow an assistant message with tool_calls",
            )
        answered = message.get("tool_call_id")
        if answered is not None and "None" not in open_ids and answered not in open_ids:
            raise InvalidRequest(
                f"messages.{index}.tool_call_id",
                f"messages.{index}.tool_call_id: {str(answered)[:64]!r} is the id of no call of the message before",
            )


class _Ids:
    """Rewrites call ids to the form the model was trained on, and the answers' ids with them."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._count = 0
        self._calls: list[tuple[str | None, str, str]] = []
        """(given id, rewritten id, function's name) of the last message's calls."""

    def begin(self) -> None:
        """Another message's calls follow."""
        self._calls = []

    def call(self, given: str | None, name: str) -> str:
        """The id of a call."""
        rewritten = given or f"call_{self._count}"
        if self._form == "indexed":
            rewritten = f"functions.{name}:{self._count}"
        elif self._form == "nine" and not re.fullmatch(r"[a-zA-Z0-9]{9}", rewritten):
            rewritten = hashlib.sha256(rewritten.encode()).hexdigest()[:9]
        self._count += 1
        self._calls.append((given, rewritten, name))
        return rewritten

    def answers(self, messages: Sequence[Draft]) -> list[Draft]:
        """Tool messages in the order of the last message's calls; those without an id answer what is left, in turn."""
        given = [id_ for id_, _, _ in self._calls]
        places = [given.index(id_) if (id_ := message.get("tool_call_id")) in given else None for message in messages]
        left = iter([place for place in range(len(given)) if place not in places])
        placed = [next(left, len(given)) if place is None else place for place in places]
        for message, place in zip(messages, placed, strict=True):
            if place < len(given):
                _, message["tool_call_id"], name = self._calls[place]
                message.setdefault("name", name)
        return [message for _, message in sorted(zip(placed, messages, strict=True), key=lambda pair: pair[0])]


def _rewrite_calls(message: Draft, place: str, ids: _Ids, *, as_objects: bool) -> None:
    ids.begin()
    message["tool_calls"] = [
        _call(call, f"{place}.{number}", ids, as_objects=as_objects)
        for number, call in enumerate(message["tool_calls"])
    ]
    message["content"] = message.get("content") or ""


def _call(call: Mapping[str, Any], place: str, ids: _Ids, *, as_objects: bool) -> Draft:
    function = call.get("function")
    if not isinstance(function, Mapping) or not function.get("name"):
        raise InvalidRequest(f"{place}.function", f"{place}.function: needs the name of the called function")
    arguments = _arguments(function.get("arguments"))
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": ids.call(call.get("id"), function["name"]),
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments if as_objects else text},
    }


def _arguments(given: Any) -> Mapping[str, Any] | str:
    """A call's arguments; text where they are no JSON object."""
    try:
        value = (json.loads(given) if given.strip() else None) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        return str(given)
    if value is None or isinstance(value, Mapping):
        return value or {}
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


def _filter_reasoning(messages: Sequence[Draft], history: HistoryMode | None, key: str) -> None:
    users = [index for index, message in enumerate(messages) if message.get("role") == "user"]
    last_user = users[-1] if users else -1
    for index, message in enumerate(messages):
        reasoning = message.pop("reasoning_content", None)
        dropped = history == "disabled" or (history == "interleaved" and index <= last_user)
        if reasoning and not dropped:
            message[key] = reasoning


def _one_call_each(messages: Sequence[Draft]) -> list[Draft]:
    """Splits messages with several calls; each part is followed by its own answer."""
    split: list[Draft] = []
    index = 0
    while index < len(messages):
        message = messages[index]
        index += 1
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            split.append(message)
            continue
        answers = []
        while index < len(messages) and messages[index].get("role") == "tool":
            answers.append(messages[index])
            index += 1
        split += _interleave(message, calls, answers)
    return split


def _interleave(message: Draft, calls: Sequence[Draft], answers: Sequence[Draft]) -> list[Draft]:
    parts: list[Draft] = []
    left = list(answers)
    for number, call in enumerate(calls):
        first = message if number == 0 else {"role": "assistant", "content": ""}
        parts.append({**first, "tool_calls": [call]})
        mine = [answer for answer in left if answer.get("tool_call_id") == call["id"]]
        parts += mine
        left = [answer for answer in left if answer not in mine]
    return parts + left
