"""Images at http(s) addresses, over HTTP: fetched where that is allowed, refused with their place otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import httpx
import pytest
from api_fakes import FakeEngine
from file_server import PICTURE, PUBLIC, FileServer, permits, plain, redirect
from pictures import data_url, hostile
from seeing import ONE, PAD, SERVICES, TOKENIZER, Showing, part, text, url_of, user

from jaxserve.images.addresses import Address
from jaxserve.images.fetch import ImageFetcher
from jaxserve.images.processor import ImageServices
from jaxserve.options import Limits

PLACE = "messages.0.content.1.image_url"
LARGEST = 100_000


class Counting(ImageServices):
    """Says how often images were decoded, and on which threads."""

    def read(self, *given: Any) -> Any:
        READS.append(threading.current_thread().name)
        return super().read(*given)


READS: list[str] = []


class Rebinding:
    """A resolver whose answers for one name change with every look-up."""

    def __init__(self) -> None:
        self.answers: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        return [ip_address(self.answers.pop(0) if host == "rebinding.example" else host)]


@pytest.fixture
def names() -> Rebinding:
    return Rebinding()


@pytest.fixture
def fetching(make_live: Callable[..., Any], names: Rebinding) -> Iterator[httpx.Client]:
    """A client of a live server that fetches images."""
    fetcher = ImageFetcher(LARGEST, 0.7, permits=permits, resolve=names)
    live = make_live(
        FakeEngine(tokenizer=TOKENIZER),
        images=Counting(SERVICES.processor, SERVICES.markup),
        template=Showing(),
        allow_image_urls=True,
        fetcher=fetcher,
    )
    READS.clear()
    with httpx.Client(base_url=live.url, timeout=30) as client:
        yield client


def chat(client: httpx.Client, *parts: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"model": "fake", "messages": [user(text("a"), *parts)], "return_token_ids": True, **more}
    return client.post("/v1/chat/completions", json=body)


def refused(answer: httpx.Response, place: str) -> str:
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["param"] == place
    message: str = error["message"]
    assert message.startswith(place), message
    return message


def test_images_are_fetched_for_both_endpoints(fetching: httpx.Client, shown: FileServer) -> None:
    shown.asked.clear()
    url = shown.url("/image.png")
    answer = chat(fetching, part(url), part(ONE), part(url), raw_output=True)
    assert answer.status_code == 200, answer.text
    assert answer.json()["prompt_token_ids"].count(PAD) == 18
    assert answer.json()["choices"][0]["raw_output"]["images"] == [url, ONE, url]
    assert len(shown.asked) == 1, "equal addresses once"
    assert chat(fetching, part(data_url(PICTURE))).json()["prompt_token_ids"].count(PAD) == 6
    completion = {"model": "fake", "prompt": "a<image>", "images": [shown.url("/moved")], "return_token_ids": True}
    found = fetching.post("/v1/completions", json=completion)
    assert found.json()["choices"][0]["prompt_token_ids"].count(PAD) == 6
    assert len(READS) == 3


def test_what_can_not_be_fetched_is_refused_with_its_place(fetching: httpx.Client, shown: FileServer) -> None:
    for path, said in {
        "/html": "text/html",
        "/no_image": "not an image of a kind",
        "/large": f"more than {LARGEST} bytes",
        "/bomb": f"more than {LARGEST} bytes",
        "/drip": "within 0.7 seconds",
        "/missing": "status 404",
        "/loop": "redirects more than",
        "/to_file": "http and https only",
        "/broken_off": "broke off",
    }.items():
        assert said in refused(chat(fetching, part(shown.url(path))), PLACE)
    body = {"model": "fake", "prompt": "<image><image>", "images": [ONE, shown.url("/missing")]}
    refused(fetching.post("/v1/completions", json=body), "images.1")


def test_private_places_are_never_asked(
    fetching: httpx.Client, shown: FileServer, hidden: FileServer, names: Rebinding
) -> None:
    hidden.asked.clear()
    for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "[64:ff9b::7f00:1]", "10.0.0.1", "169.254.169.254"):
        url = hidden.url("/image.png", host)
        refused(chat(fetching, part(url)), PLACE)
        shown.answers["/away"] = redirect(url)
        refused(chat(fetching, part(shown.url("/away"))), PLACE)
    refused(chat(fetching, part(f"http://{PUBLIC}@127.0.0.1:{hidden.port}/image.png")), PLACE)
    names.answers = [PUBLIC, "127.0.0.1", "127.0.0.1"]
    assert chat(fetching, part(shown.url("/image.png", "rebinding.example"))).status_code == 200
    refused(chat(fetching, part(shown.url("/image.png", "rebinding.example"))), PLACE)
    assert not hidden.asked


def test_hostile_files_that_are_fetched(fetching: httpx.Client, shown: FileServer) -> None:
    """In one request after the other; an innocent one in between is answered."""
    files = hostile()
    for number, (name, data) in enumerate(files.items()):
        shown.answers["/file"] = plain(data)
        message = refused(chat(fetching, part(shown.url("/file"))), PLACE)
        assert len(message) < 250, name
        if number % 20 == 0:
            assert chat(fetching, part(ONE)).status_code == 200


def test_slow_addresses_hold_nobody_up(fetching: httpx.Client, shown: FileServer) -> None:
    """Twelve slow requests, more than there are threads: plain ones come through meanwhile, and each fails in time."""
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(chat(fetching, part(shown.url("/silent"))))) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert chat(fetching, part(ONE)).status_code == 200
    assert any(thread.is_alive() for thread in threads), "they wait without holding others up"
    for thread in threads:
        thread.join(20)
    assert [answer.status_code for answer in answers] == [422] * 12


def test_images_are_decoded_once_where_a_grammar_is_compiled(fetching: httpx.Client, shown: FileServer) -> None:
    shown.asked.clear()
    schema = {"type": "object", "properties": {"never_seen_before": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    answer = chat(fetching, part(shown.url("/image.png")), response_format=wanted)
    assert answer.status_code == 200, answer.text
    assert (len(shown.asked), len(READS)) == (1, 1)


def test_bodies_and_images_share_one_bound(make_live: Callable[..., Any], shown: FileServer) -> None:
    live = make_live(
        FakeEngine(tokenizer=TOKENIZER),
        images=SERVICES,
        template=Showing(),
        allow_image_urls=True,
        fetcher=ImageFetcher(LARGEST * 10, 5, permits=lambda one: True),
        limits=Limits(max_held_bytes=LARGEST),
    )
    with httpx.Client(base_url=live.url) as client:
        assert chat(client, part(shown.url("/large"))).status_code == 429
        assert chat(client, part(shown.url("/image.png"))).status_code == 200


def test_messages_and_responses_fetch_too(fetching: httpx.Client, shown: FileServer) -> None:
    source = {"type": "url", "url": shown.url("/image.png")}
    asked: dict[str, Any] = {"model": "fake", "max_tokens": 3}
    message = {"role": "user", "content": [{"type": "image", "source": source}]}
    assert fetching.post("/v1/messages", json={**asked, "messages": [message]}).status_code == 200
    given = {"role": "user", "content": [{"type": "input_image", "image_url": shown.url("/missing")}]}
    answer = fetching.post("/v1/responses", json={"model": "fake", "input": [given]})
    assert "status 404" in refused(answer, "input.0.content.0.image_url")


def test_off_by_default_whatever_the_address(make_live: Callable[..., Any], hidden: FileServer) -> None:
    live = make_live(FakeEngine(tokenizer=TOKENIZER), images=SERVICES, template=Showing())
    hidden.asked.clear()
    with httpx.Client(base_url=live.url) as client:
        for url in (hidden.url("/image.png"), "https://example.com/a.png"):
            assert "allow_image_urls is off" in refused(chat(client, part(url)), PLACE)
    assert not hidden.asked


def test_thirty_images_and_ten_mib_of_base64(make_live: Callable[..., Any]) -> None:
    """The documented limits, as they are without any option."""
    live = make_live(FakeEngine(tokenizer=TOKENIZER), images=SERVICES, template=Showing())
    small, large = url_of(1, 1), "data:image/png;base64," + "A" * (5 << 20)
    with httpx.Client(base_url=live.url, timeout=60) as client:
        assert chat(client, *[part(small)] * 30).json()["prompt_token_ids"].count(PAD) == 30
        assert "31 images, at most 30" in refused(chat(client, *[part(small)] * 31), "messages")
        assert "more than 10485760 bytes" in refused(chat(client, part(large), part(large)), "messages")
        assert "not an image of a kind" in refused(chat(client, part(large)), PLACE)
    assert (Limits().max_image_url_bytes, Limits().image_url_timeout) == (5 << 20, 1.5)
