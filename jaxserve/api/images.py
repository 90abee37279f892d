"""The images of a request: read once, then placed in its prompts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from jaxserve.api.ports import TextServices, Tokenizer
from jaxserve.api.prompt_tokens import PromptTokens
from jaxserve.api.request_images import NotFetched, RequestImages
from jaxserve.api.rules import image_field
from jaxserve.api.schema.requests import ChatCompletionRequest, CompletionRequest
from jaxserve.errors import InvalidRequest
from jaxserve.images.data_url import is_remote, read_data_url
from jaxserve.images.placing import expand
from jaxserve.images.types import Detail, ImageFile, ImageInput, ImageMarkup
from jaxserve.options import Limits

GENERIC = "<image>"
"""Where an image stands in the text of a completion's prompt, whatever the model's own placeholder is."""

_Place = tuple[str, str, Detail]
"""The part of the request, the URL, the detail."""


@dataclass(frozen=True, eq=False)
class ShownImage:
    """An image and where it came from."""

    image: ImageInput
    url: str


def read_images(
    request: ChatCompletionRequest | CompletionRequest, text: TextServices, limits: Limits
) -> tuple[ShownImage, ...]:
    """The images of a request, in order.

    Raises:
        InvalidRequest: one can't be read, or they are too large; names the part of the request.
        NotFetched: some have to be fetched first.
    """
    places = list(_chat_places(request) if isinstance(request, ChatCompletionRequest) else _places(request))
    if text.images is None or not places:
        return ()
    seen = text.seen or RequestImages()
    if seen.inputs is None:
        if sum(len(url) for _, url, _ in places if not is_remote(url)) > limits.max_image_bytes:
            field = image_field(request)
            raise InvalidRequest(field, f"{field}: the images have more than {limits.max_image_bytes} bytes of base64")
        seen.inputs = text.images.read(_files(places, seen), limits.max_image_pixels)
    return tuple(ShownImage(image, url) for image, (_, url, _) in zip(seen.inputs, places, strict=True))


def _files(places: Sequence[_Place], seen: RequestImages) -> list[ImageFile]:
    """The images' files, those that stand in the request and those that have been fetched for it.

    Raises:
        NotFetched: some have yet to be.
        InvalidRequest: one can't be read or fetched.
    """
    data = {url: read_data_url(url, where) for where, url, _ in places if not (seen.fetches and is_remote(url))}
    missing = [url for _, url, _ in places if url not in data and url not in seen.fetched]
    if missing:
        raise NotFetched(list(dict.fromkeys(missing)))
    return [
        ImageFile(where, data[url] if url in data else _fetched(seen, url, where), detail)
        for where, url, detail in places
    ]


def _fetched(seen: RequestImages, url: str, where: str) -> bytes:
    found = seen.fetched[url]
    if isinstance(found, str):
        raise InvalidRequest(where, f"{where}: {found}")
    return found


def _places(request: CompletionRequest) -> Iterator[_Place]:
    for index, url in enumerate(request.images or ()):
        yield f"images.{index}", url, "auto"


def _chat_places(request: ChatCompletionRequest) -> Iterator[_Place]:
    for index, message in enumerate(request.messages):
        for number, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if part.image_url is not None:
                where = f"messages.{index}.content.{number}.image_url"
                if message.role not in ("user", "tool"):
                    raise InvalidRequest(where, f"{where}: a message of role {message.role} can't hold images")
                yield where, part.image_url.url, part.image_url.detail or "auto"


def in_the_models_words(text: str, markup: ImageMarkup, tokenizer: Tokenizer) -> str:
    """The text of a prompt with the model's own placeholders in place of the generic ones."""
    if own_placeholder(markup, tokenizer) != GENERIC:
        text = text.replace(GENERIC, spelled(markup, tokenizer))
    return templates_completed(text, markup, tokenizer)


def templates_completed(text: str, markup: ImageMarkup, tokenizer: Tokenizer) -> str:
    """The text of a prompt with images whole where a template writes one token of what stands for them."""
    if markup.template_token is None:
        return text
    written, placeholder = tokenizer.token_text(markup.template_token), own_placeholder(markup, tokenizer)
    whole = spelled(markup, tokenizer)
    return re.sub(f"{re.escape(written)}(?!{re.escape(placeholder)})", lambda _: whole, text)


def spelled(markup: ImageMarkup, tokenizer: Tokenizer) -> str:
    """An image as the model's prompts write it."""
    tokens = "".join(map(tokenizer.token_text, (*markup.before, markup.token, *markup.after)))
    return f"{markup.around}{tokens}{markup.around}"


def own_placeholder(markup: ImageMarkup, tokenizer: Tokenizer) -> str:
    """The text of the model's own placeholder."""
    return tokenizer.token_text(markup.token)


def with_images(prompt: PromptTokens, images: Sequence[ShownImage], markup: ImageMarkup, field: str) -> PromptTokens:
    """The prompt with each placeholder repeated for every token of its image.

    Raises:
        InvalidRequest: there are more or fewer placeholders than images.
    """
    count = prompt.ids.count(markup.token)
    if count != len(images):
        raise InvalidRequest(
            field, f"{field}: the prompt has {count} image placeholders, and there are {len(images)} images for it"
        )
    ids, placed = expand(prompt.ids, [shown.image for shown in images], markup.token)
    return replace(prompt, ids=ids, images=placed, image_urls=tuple(shown.url for shown in images))
