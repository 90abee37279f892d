"""Messages to a prompt: the chat template, its fragments, and truncation to `prompt_truncate_len`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from jaxserve.api.images import ShownImage, templates_completed, with_images
from jaxserve.api.lengths import beginning, check_fits
from jaxserve.api.ports import ChatRenderer, TextServices, Tokenizer
from jaxserve.api.prompt_tokens import PromptTokens
from jaxserve.api.safe_text import encode_safely, spells_control
from jaxserve.api.schema.messages import ChatMessage
from jaxserve.api.schema.requests import ChatCompletionRequest
from jaxserve.api.wishes import Wishes
from jaxserve.errors import ContextLengthExceeded, InvalidRequest, TemplateError
from jaxserve.images.types import ImageMarkup
from jaxserve.text.chat import image_mark, image_numbers
from jaxserve.text.reading.reader import Markers

TemplateMessage = dict[str, Any]
"""A message as chat templates read it."""

_ROLES = {"developer": "system", "function": "tool"}
"""Roles by their names in templates."""
_GUARDED: Mapping[bool | None, frozenset[str]] = {
    None: frozenset({"user", "tool"}),
    True: frozenset({"system", "user", "assistant", "tool", "tools"}),
    False: frozenset(),
}
"""Whose special tokens are text, by `safe_tokenization`. What users and tools say comes from anywhere; earlier answers
hold markers (`<think>`) that templates look for, and the system message is the developer's."""
_MAX_FRAGMENTS = 64
"""Conversations longer than this are one fragment: finding fragments renders once for each message."""


@dataclass(frozen=True)
class Conversation:
    """Renders and tokenizes lists of messages."""

    template: ChatRenderer
    tokenizer: Tokenizer
    guarded: frozenset[str] = frozenset()
    """Roles ("tools" for the tools) in whose texts special tokens are ordinary text."""
    control: Markers | None = None
    """Texts without any of these need no guarding; None = all are looked at."""
    tools: tuple[TemplateMessage, ...] = ()
    template_args: Mapping[str, Any] = field(default_factory=dict)
    markup: ImageMarkup | None = None
    """How images stand in prompts; None = the model reads text only."""
    images: Sequence[ShownImage] = ()
    """Images by the numbers of their marks in the messages."""

    def render(self, messages: Sequence[TemplateMessage], *, add_generation_prompt: bool = True) -> str:
        """The prompt text of some messages."""
        text = self.template.render(
            messages,
            tools=self.tools or None,
            add_generation_prompt=add_generation_prompt,
            **self.template_args,
        )
        if self.markup is None or not self.images:
            return text
        return templates_completed(text, self.markup, self.tokenizer)

    def encode(self, messages: Sequence[TemplateMessage], most: int) -> tuple[str, list[int]]:
        """The prompt text of some messages and its tokens.

        Raises:
            ContextLengthExceeded: the text is so long that it surely has more than `most` tokens.
            TemplateError: the template refused the messages.
        """
        text = self.render(messages)
        check_fits(self.tokenizer, text, most, "messages")
        if self._needs_guarding(messages):
            return encode_safely(self.tokenizer, messages, self.tools, self._render_all, self.guarded)
        return text, self.tokenizer.encode(text, add_special_tokens=False)

    def tokens(self, messages: Sequence[TemplateMessage], limit: int) -> int:
        """Tokens of some messages and their images; any number above `limit` where there are more."""
        if not messages:
            return 0
        more = sum(shown.image.tokens - 1 for shown in self.shown(messages))
        try:
            return len(self.encode(messages, limit)[1]) + more
        except ContextLengthExceeded:
            return limit + 1

    def shown(self, messages: Sequence[TemplateMessage]) -> list[ShownImage]:
        """The images that stand in some messages, in order.

        Raises:
            InvalidRequest: a text looks like the mark of an image that isn't there.
        """
        if self.markup is None:
            return []
        numbers = [number for message in messages for number in image_numbers(message.get("content") or "")]
        if any(number >= len(self.images) for number in numbers):
            raise InvalidRequest("messages", "messages: a text holds the noncharacters U+FDD0 and U+FDD1")
        return [self.images[number] for number in numbers]

    def _needs_guarding(self, messages: Sequence[TemplateMessage]) -> bool:
        if self.control is None:
            return bool(self.guarded)
        return spells_control([message for message in messages if message["role"] in self.guarded], self.control)

    def _render_all(self, messages: Sequence[TemplateMessage], tools: Sequence[TemplateMessage]) -> str:
        return replace(self, tools=tuple(tools)).render(messages)

    def prompt(self, messages: Sequence[TemplateMessage], most: int, *, fragments: bool) -> PromptTokens:
        """The prompt of some messages; `fragments` also finds out which message wrote which part.

        Raises:
            ContextLengthExceeded: see `encode`.
            TemplateError: the template refused the messages.
        """
        text, ids = self.encode(messages, most)
        if not ids:
            raise TemplateError("messages", "messages: the chat template made an empty prompt of them")
        prompt = PromptTokens(tuple(ids), text, self._fragments(messages, text) if fragments else ())
        if self.markup is None:
            return prompt
        return with_images(prompt, self.shown(messages), self.markup, "messages")

    def _fragments(self, messages: Sequence[TemplateMessage], text: str) -> tuple[str, ...]:
        if len(messages) > _MAX_FRAGMENTS:
            return (text,)
        ends: list[int] = []
        for count in range(1, len(messages)):
            try:
                head = self.render(messages[:count], add_generation_prompt=False)
            except TemplateError:
                continue
            if text.startswith(head) and len(head) > (ends[-1] if ends else 0):
                ends.append(len(head))
        bounds = [0, *ends, len(text)]
        return tuple(text[a:b] for a, b in itertools.pairwise(bounds) if a < b)


def chat_prompt(
    request: ChatCompletionRequest, wishes: Wishes, text: TextServices, images: Sequence[ShownImage], context: int
) -> PromptTokens:
    """The prompt of a chat request, cut to `prompt_truncate_len`.

    Args:
        request: the request.
        wishes: what it wants of its outputs.
        text: tokenizer, template, and how the model reads images.
        images: of all messages, in order.
        context: tokens that fit the model's context.

    Raises:
        TemplateError: there is no chat template, or it refused the messages.
        ContextLengthExceeded: what must stay is longer than `prompt_truncate_len`, or surely than the `context`.
    """
    if text.chat is None:
        raise TemplateError("messages", "messages: this model has no chat template; use /v1/completions")
    conversation = Conversation(
        text.chat,
        text.tokenizer,
        guarded=_GUARDED[request.safe_tokenization],
        control=text.format.control if request.safe_tokenization is None else None,
        tools=tuple(tool.for_template() for tool in wishes.tools.shown),
        template_args=wishes.reasoning.template_args,
        markup=None if text.images is None else text.images.markup,
        images=images,
    )
    numbers = itertools.count()
    drafts = [template_message(message, numbers) for message in request.messages]
    messages = text.format.prepare(drafts, wishes.reasoning)
    if request.prompt_truncate_len is not None:
        messages = truncate(conversation, messages, request.prompt_truncate_len)
    return conversation.prompt(messages, context, fragments=bool(request.raw_output))


def template_message(message: ChatMessage, numbers: Iterator[int]) -> TemplateMessage:
    """A message as chat templates read it, with a mark in its text for each image; `numbers` counts these."""
    role = _ROLES.get(message.role, message.role)
    optional: Mapping[str, Any] = {
        "reasoning_content": message.reasoning_content if message.reasoning_content is not None else message.reasoning,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "tool_calls": message.calls or None,
    }
    return {"role": role, "content": _content(message, numbers)} | {
        key: value for key, value in optional.items() if value is not None
    }


def _content(message: ChatMessage, numbers: Iterator[int]) -> str:
    """The parts of a message: texts joined by newlines, images where they stand."""
    text, after_text = "", False
    for part in message.content if isinstance(message.content, list) else ():
        is_text = part.image_url is None
        text += "\n" * (is_text and after_text)
        text += part.text or part.refusal or "" if is_text else image_mark(next(numbers))
        after_text = is_text
    return text if isinstance(message.content, list) else message.text


def truncate(conversation: Conversation, messages: Sequence[TemplateMessage], limit: int) -> list[TemplateMessage]:
    """Makes a conversation fit `limit` prompt tokens.

    The earliest user and assistant messages go first; the last message stays whole, results of tools together with the
    calls they answer; the system prompt stays whole where it can and loses its end otherwise.

    Raises:
        ContextLengthExceeded: what must stay is longer than the limit.
        TemplateError: the template refused the messages.
    """

    def fits(candidate: Sequence[TemplateMessage]) -> bool:
        return conversation.tokens(candidate, limit) <= limit

    if fits(messages):
        return list(messages)
    system = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    # A conversation that starts with an answer or a tool result is refused by many templates: cut before user messages.
    starts = [index for index, message in enumerate(rest) if index > 0 and message["role"] == "user"]
    last = _last_turn(rest)
    starts = [start for start in starts if start <= last]
    low, high = 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        if fits(system + rest[starts[middle] :]):
            high = middle
        else:
            low = middle + 1
    if low < len(starts):
        return system + rest[starts[low] :]
    try:
        return _cut_system(conversation, system, rest[last:], limit)
    except TemplateError as error:
        if not rest[last:] or rest[last]["role"] == "user":
            raise
        raise ContextLengthExceeded(
            "prompt_truncate_len",
            f"prompt_truncate_len: {_named(rest[last:])} can't stand without the question before, and with it exceeds "
            f"{limit} tokens ({error.message})",
        ) from None


def _last_turn(messages: Sequence[TemplateMessage]) -> int:
    """Where the part begins that makes no sense without its beginning: results of tools, and the calls they answer."""
    start = len(messages) - 1
    while start > 0 and messages[start]["role"] == "tool":
        start -= 1
    return start


def _cut_system(
    conversation: Conversation, system: list[TemplateMessage], last: list[TemplateMessage], limit: int
) -> list[TemplateMessage]:
    """Shortens the system prompt, its last message first, until it fits together with the last turn."""

    def size(candidate: list[TemplateMessage]) -> int:
        return conversation.tokens(candidate, limit)

    while system:
        head, tail = system[:-1], system[-1]
        content = beginning(conversation.tokenizer, tail["content"], limit)
        ids = conversation.tokenizer.encode(content, add_special_tokens=False)

        def cut(
            count: int, head: list[TemplateMessage] = head, tail: TemplateMessage = tail, ids: list[int] = ids
        ) -> list[TemplateMessage]:
            content = conversation.tokenizer.decode(ids[:count], skip_special_tokens=False).rstrip("\ufffd")
            return [*head, {**tail, "content": content}]

        low, high = 0, len(ids)
        while low < high:
            middle = (low + high + 1) // 2
            if size(cut(middle) + last) <= limit:
                low = middle
            else:
                high = middle - 1
        if low:
            return cut(low) + last
        system = head
    if last and size(last) <= limit:
        return last
    raise ContextLengthExceeded(
        "prompt_truncate_len",
        f"prompt_truncate_len: {_named(last)} alone takes more than {limit} tokens",
    )


def _named(last: Sequence[TemplateMessage]) -> str:
    return "the last message" if len(last) < 2 else "the last call with its results"
