"""Images of requests: where they stand in prompts, what they cost, and what is refused."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from api_client import Api
from api_fakes import BOS, FakeEngine, build
from PIL import Image
from seeing import END, ONE, PAD, SERVICES, START, THREE, TOKENIZER, TWO, Showing, part, text, url_of, user

from jaxserve.images.processor import ImageServices
from jaxserve.images.types import ImageMarkup
from jaxserve.options import Limits

MakeApi = Callable[..., Api]
BOTH = pytest.mark.parametrize("endpoint", ["chat", "completions"])


@pytest.fixture(scope="module")
def seeing() -> Iterator[Api]:
    """An app of a model that reads images."""
    engine = FakeEngine(tokenizer=TOKENIZER)
    client = Api(build(engine, images=SERVICES, template=Showing()), engine)
    with client.http:
        yield client
    engine.close()


def ids(said: str) -> list[int]:
    return TOKENIZER.encode(said, add_special_tokens=False)


def image(tokens: int) -> list[int]:
    return [START, *[PAD] * tokens, END]


def placed(api: Api) -> list[tuple[int, int]]:
    return [(one.start, one.image.tokens) for one in api.last().images]


def test_chat_images_stand_where_they_stand(seeing: Api) -> None:
    asked = user(text("a"), text("b"), part(ONE), text("c"), part(TWO, detail="low"), part(ONE, detail="high"))
    answer = seeing.chat(messages=[asked], return_token_ids=True, raw_output=True)
    expected = ids("<s><|user|>a\nb") + image(6) + ids("c") + image(3) + image(6) + ids("<|end|><|assistant|>")
    assert list(seeing.last().prompt) == expected
    assert placed(seeing) == [(expected.index(PAD), 6), (expected.index(PAD) + 9, 3), (expected.index(PAD) + 14, 6)]
    digests = [one.image.digest for one in seeing.last().images]
    assert digests[0] == digests[2] != digests[1]
    choice = answer["choices"][0]
    assert answer["prompt_token_ids"] == expected
    assert choice["raw_output"]["prompt_token_ids"] == expected
    assert choice["raw_output"]["images"] == [ONE, TWO, ONE]
    assert answer["usage"]["prompt_tokens"] == len(expected)


def test_texts_alone_show_no_images(seeing: Api) -> None:
    answer = seeing.chat("Hi", raw_output=True)
    assert "images" not in answer["choices"][0]["raw_output"]
    assert seeing.last().images == ()


def test_low_detail_is_a_smaller_picture(seeing: Api) -> None:
    file = io.BytesIO()
    Image.new("RGB", (1024, 512)).save(file, "PNG")
    large, counts = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", []
    for detail in ({}, {"detail": "auto"}, {"detail": "high"}, {"detail": "low"}):
        error = seeing.refuse("chat", 400, messages=[user(part(large, **detail))])["error"]
        counts.append(int(error["message"].partition("the prompt has ")[2].split()[0]))
    assert counts[0] == counts[1] == counts[2] > counts[3] > 4000


@pytest.mark.proves("images")
def test_completion_images_in_text(seeing: Api) -> None:
    answer = seeing.complete("a<image>b<|image_pad|>c", images=[ONE, TWO], return_token_ids=True, echo=True)
    expected = [BOS, *ids("a"), *image(6), *ids("b"), PAD, PAD, PAD, *ids("c")]
    assert answer["choices"][0]["prompt_token_ids"] == expected
    assert list(seeing.last().prompt) == expected
    assert placed(seeing) == [(3, 6), (11, 3)]
    assert answer["usage"]["prompt_tokens"] == len(expected)


def test_completion_images_in_tokens(seeing: Api) -> None:
    answer = seeing.complete([1, START, PAD, END, 2], images=[TWO], return_token_ids=True)
    assert answer["choices"][0]["prompt_token_ids"] == [1, *image(3), 2]
    assert placed(seeing) == [(2, 3)]


def test_several_prompts_share_the_images_out(seeing: Api) -> None:
    seeing.engine.requests.clear()
    seeing.complete(["a<image>", "b", "<image><image>"], images=[ONE, TWO, THREE])
    assert [[one.image.tokens for one in request.images] for request in seeing.engine.requests] == [[6], [], [3, 4]]


def test_safe_tokenization_leaves_the_generic_placeholder(seeing: Api) -> None:
    seeing.complete("<s><image><|image_pad|>", images=[ONE], safe_tokenization=True)
    spelled = [TOKENIZER.encode(one, add_special_tokens=False, parse_special=False) for one in ("<s>", "<|image_pad|>")]
    assert list(seeing.last().prompt) == [BOS, *spelled[0], *image(6), *spelled[1]]


def test_what_users_spell_is_no_placeholder(seeing: Api) -> None:
    seeing.chat(messages=[user(text("<|image_pad|>"), part(TWO))])
    assert seeing.last().prompt.count(PAD) == 3
    error = seeing.refuse("chat", 422, messages=[user(text("\ufdd05\ufdd1"))])["error"]
    assert "U+FDD0" in error["message"]


@pytest.mark.parametrize(
    ("prompt", "images", "said"),
    [
        ("a", [ONE], "1 for 0 placeholders"),
        ("<image>", [ONE, TWO], "2 for 1 placeholders"),
        ("<image><image>", [ONE], "2 image placeholders"),
        ("<|image_pad|>", [], "1 image placeholders"),
        ([1, PAD, PAD], [ONE], "2 image placeholders"),
        (["<image>", "<image>"], [ONE], "1 image placeholders"),
    ],
)
def test_as_many_images_as_placeholders(seeing: Api, prompt: Any, images: list[str], said: str) -> None:
    error = seeing.refuse("completions", 422, prompt=prompt, images=images)["error"]
    assert error["param"] == "images"
    assert said in error["message"]


def test_a_template_that_drops_images_is_told(make_api: MakeApi) -> None:
    api = make_api(FakeEngine(tokenizer=TOKENIZER), images=SERVICES)
    error = api.refuse("chat", 422, messages=[user(part(ONE))])["error"]
    assert "0 image placeholders" in error["message"]


def test_eviction_keeps_images_with_their_messages(seeing: Api) -> None:
    answer = {"role": "assistant", "content": "y"}
    messages = [{"role": "system", "content": "S"}, user(text("x"), part(ONE)), answer, user(part(TWO), text("z"))]
    kept = ids("<s><|system|>S<|end|><|user|>") + image(3) + ids("z<|end|><|assistant|>")
    whole = len(kept) + len(ids("<|user|>x") + image(6) + ids("<|end|><|assistant|>y<|end|>"))
    for limit in (len(kept), whole - 1):
        response = seeing.chat(messages=messages, prompt_truncate_len=limit, raw_output=True)
        assert list(seeing.last().prompt) == kept
        assert response["choices"][0]["raw_output"]["images"] == [TWO]
    seeing.chat(messages=messages, prompt_truncate_len=whole)
    assert [one.image.tokens for one in seeing.last().images] == [6, 3]
    error = seeing.refuse("chat", 400, messages=messages[-1:], prompt_truncate_len=8)["error"]
    assert error["param"] == "prompt_truncate_len"


@pytest.mark.parametrize(
    ("limit", "kept", "where"),
    [
        (17, [BOS, *[PAD] * 6, 5, *[PAD] * 3, 6, 7, 8, 9, 9], [(1, 6), (8, 3)]),
        (12, [BOS, 5, *[PAD] * 3, 6, 7, 8, 9, 9], [(2, 3)]),
        (9, [BOS, *[PAD] * 3, 6, 7, 8, 9, 9], [(1, 3)]),
        (8, [BOS, 6, 7, 8, 9, 9], []),
    ],
)
def test_a_cut_never_goes_through_an_image(
    seeing: Api, limit: int, kept: list[int], where: list[tuple[int, int]]
) -> None:
    prompt = [BOS, PAD, 5, PAD, 6, 7, 8, 9, 9]
    seeing.complete(prompt, images=[ONE, TWO], prompt_truncate_len=limit)
    assert list(seeing.last().prompt) == kept
    assert placed(seeing) == where


def test_a_long_text_is_cut_with_its_images(seeing: Api) -> None:
    seeing.complete("<image>" + "a" * 5000 + "<image>b", images=[ONE, TWO], prompt_truncate_len=6)
    assert list(seeing.last().prompt) == [BOS, *image(3)[1:], ord("b")]
    assert placed(seeing) == [(1, 3)]


@BOTH
def test_a_model_of_text_refuses_by_name(api: Api, endpoint: str) -> None:
    asks: dict[str, Any] = {"images": [ONE]} if endpoint == "completions" else {"messages": [user(part(ONE))]}
    error = api.refuse(endpoint, 422, **asks)["error"]
    assert error["param"] == ("images" if endpoint == "completions" else "messages")
    assert "'fake' reads text only" in error["message"]
    api.complete(images=[])
    api.complete(images=None)


def test_the_model_card_says_who_reads_images(api: Api, seeing: Api) -> None:
    for client, reads in ((api, False), (seeing, True)):
        card = client.http.get("/v1/models/fake").json()
        assert card["supports_image_input"] is reads
        assert ("images" in card["features"]) is reads


REFUSED = {
    "http": ("http://example.com/cat.png", "fetches no images"),
    "file": ("file:///etc/passwd", "no URL"),
    "type": ("data:text/html;base64,AAAA", "text/html"),
    "base64": ("data:image/png;base64,A*AA", "base64"),
    "svg": ("data:image/svg+xml;base64," + base64.b64encode(b"<svg></svg>").decode(), "not an image of a kind"),
    "cut": (ONE[: ONE.index(",") + 201], "damaged"),
    "long": (url_of(9, 250), "too long"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_images_are_refused_with_their_place(seeing: Api, name: str) -> None:
    url, said = REFUSED[name]
    chat = seeing.refuse("chat", 422, messages=[user(text("a")), user(part(ONE), part(url))])
    assert said in chat["error"]["message"]
    assert chat["error"]["param"] == "messages.1.content.1.image_url"
    completion = seeing.refuse("completions", 422, prompt="<image><image>", images=[ONE, url])
    assert completion["error"]["param"] == "images.1"
    assert said in completion["error"]["message"]


def test_who_may_show_images(seeing: Api) -> None:
    error = seeing.refuse("chat", 422, messages=[{"role": "system", "content": [part(ONE)]}, user(text("a"))])["error"]
    assert "role system" in error["message"]
    seeing.refuse("chat", 422, messages=[user(part(ONE, detail="best"))])


def test_limits(make_api: MakeApi) -> None:
    limits = Limits(max_images=2, max_image_bytes=4000, max_image_pixels=800)
    api = make_api(FakeEngine(tokenizer=TOKENIZER), images=SERVICES, template=Showing(), limits=limits)
    api.chat(messages=[user(part(ONE), part(ONE))])
    for asks, said in (
        ([ONE] * 3, "at most 2"),
        ([url_of(1, 12), url_of(2, 12)], "4000 bytes"),
        ([ONE, url_of(5, 7)], "may have 416 from here"),
    ):
        error = api.refuse("chat", 422, messages=[user(*map(part, asks))])["error"]
        assert said in error["message"], error
        error = api.refuse("completions", 422, prompt="<image>" * len(asks), images=asks)["error"]
        assert "images" in error["message"], error


def test_images_are_decoded_on_the_lanes_threads(make_api: MakeApi) -> None:
    threads = []

    class Noting(ImageServices):
        def read(self, *given: Any) -> Any:
            threads.append(threading.current_thread().name)
            return super().read(*given)

    api = make_api(
        FakeEngine(tokenizer=TOKENIZER), images=Noting(SERVICES.processor, SERVICES.markup), template=Showing()
    )
    api.chat(messages=[user(part(ONE))])
    api.complete("<image>", images=[ONE])
    assert [name.split("_")[0] for name in threads] == ["jaxserve-chat", "jaxserve-completions"]


def test_images_in_other_apis(seeing: Api) -> None:
    data = ONE.partition(",")[2]
    source = {"type": "base64", "media_type": "image/png", "data": data}
    block = {"type": "image", "source": source}
    asked: dict[str, Any] = {"model": "fake", "max_tokens": 3, "messages": [{"role": "user", "content": [block]}]}
    assert seeing.http.post("/v1/messages", json=asked).status_code == 200
    assert [one.image.tokens for one in seeing.last().images] == [6]
    shown = {"role": "user", "content": [{"type": "input_image", "image_url": ONE}]}
    assert seeing.http.post("/v1/responses", json={"model": "fake", "input": [shown]}).status_code == 200
    assert [one.image.tokens for one in seeing.last().images] == [6]
    counted = seeing.http.post("/v1/tokenize", json={"model": "fake", "messages": [user(part(ONE))]}).json()
    assert counted["tokens"].count(PAD) == 6


class ShowingTheBeginning(Showing):
    """Writes one token for an image, as Gemma 3's template does: the rest is left to the server."""

    def render(self, messages: Sequence[Mapping[str, Any]], **more: Any) -> str:
        return (
            super().render(messages, **more).replace("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|>")
        )


@pytest.mark.parametrize("asks", ["chat", "<image>", "<|vision_start|>", "<|image_pad|>"])
def test_images_of_a_template_that_writes_their_beginning(make_api: MakeApi, asks: str) -> None:
    markup = ImageMarkup(PAD, (START,), (END,), around="\n\n", template_token=START)
    images = ImageServices(SERVICES.processor, markup)
    api = make_api(FakeEngine(tokenizer=TOKENIZER), images=images, template=ShowingTheBeginning())
    whole = ids("\n\n") + image(6) + ids("\n\n")
    if asks == "chat":
        api.chat(messages=[user(text("a<|vision_start|>"), part(ONE))])
        spelled = TOKENIZER.encode("<|vision_start|>", add_special_tokens=False, parse_special=False)
        wanted = ids("<s><|user|>a") + spelled + whole + ids("<|end|><|assistant|>")
    else:
        api.complete(f"a{asks}b", images=[ONE])
        wanted = [BOS, *ids("a"), *([PAD] * 6 if asks == "<|image_pad|>" else whole), *ids("b")]
    assert list(api.last().prompt) == wanted
