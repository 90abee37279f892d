"""Images through the engine: the reference's tokens, whatever is batched, cut, cached, preempted or shared."""

from __future__ import annotations

import dataclasses
import queue
from pathlib import Path

import numpy as np
import pytest

from jaxserve.engine.requests import Request
from jaxserve.errors import ModelLoadError
from jaxserve.images.placing import expand
from jaxserve.images.types import Picture
from jaxserve.models import load_model
from jaxserve.options import EngineOptions
from jaxserve.prepared import prepare
from jaxserve.sampling.params import SamplingParams
from jaxserve.startup import start_loaded

MODELS = Path(__file__).resolve().parents[1] / "fixtures" / "models"
GREEDY = SamplingParams(temperature=0)


def start_model(name, **more):
    sizes = {"max_num_seqs": 8, "max_model_len": 160, "token_buckets": (8, 32), "kv_memory": 4 << 20, **more}
    options = EngineOptions(MODELS / name, "float32", max_image_tokens=64, **sizes)
    prepared = prepare(options)
    return start_loaded(load_model(MODELS / name), prepared.tokenizer, options, images=prepared.images)


@pytest.fixture(scope="module")
def started():
    made = start_model("qwen3_vl")
    yield made
    made.engine.close()


@pytest.fixture(scope="module")
def golden():
    return np.load(MODELS / "qwen3_vl" / "expected.npz")


def picture(pixels):
    return Picture(pixels.shape[1], pixels.shape[0], pixels.tobytes())


def noise(seed, width=24, height=16):
    return picture(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def images_of(started, *pictures):
    return [started.images.processor.process(one) for one in pictures]


class Prompts:
    """Requests with images for a started model."""

    def __init__(self, started):
        self.started, self.count = started, 0

    def make(self, ids, pictures=(), **more):
        """`ids` has one placeholder for each picture."""
        self.count += 1
        prompt, placed = expand(ids, images_of(self.started, *pictures), self.started.images.markup.token)
        return Request(
            f"r{self.count}", prompt, more.pop("sampling", GREEDY), more.pop("max_tokens", 6), images=placed, **more
        )

    def run(self, *requests):
        """Tokens and number of cached prompt tokens of each."""
        box = queue.SimpleQueue()
        for request in requests:
            self.started.engine.submit(request, box.put)
        tokens, cached, left = {r.id: [] for r in requests}, {}, sum(r.n for r in requests)
        while left:
            delta = box.get(timeout=120)
            assert delta.error is None, delta.error
            tokens[delta.request_id] += delta.token_ids
            cached[delta.request_id] = delta.cached_tokens
            left -= delta.finish_reason is not None
        return [tokens[r.id] for r in requests], [cached[r.id] for r in requests]


def shortened(golden, started):
    """The reference's prompt with one placeholder for each picture, and its pictures."""
    ids, token = golden["ids_a"], started.images.markup.token
    short = ids[(ids != token) | (np.roll(ids, 1) != token)]
    return short.tolist(), [picture(golden[name]) for name in sorted(golden) if name.startswith("picture_")]


@pytest.fixture(scope="module")
def prompts(started):
    return Prompts(started)


def encoded(prompts):
    return prompts.started.engine.stats().images_encoded


def test_the_references_tokens(prompts, golden):
    ids, pictures = shortened(golden, prompts.started)
    request = prompts.make(ids, pictures, max_tokens=len(golden["greedy_a"]))
    assert list(request.prompt) == golden["ids_a"].tolist()
    (tokens,), _ = prompts.run(request)
    assert tokens == golden["greedy_a"].tolist()


def test_64_at_once_are_as_alone(prompts):
    """Texts and images mixed, some images in several prompts, more than slots; chunked and one after the other."""
    rng, token = np.random.default_rng(5), prompts.started.images.markup.token
    wanted = []
    for index in range(64):
        ids = rng.integers(0, 250, int(rng.integers(3, 40))).tolist()
        pictures = [
            noise(index % 9, 8 * int(rng.integers(2, 6)), 8 * int(rng.integers(2, 6))) for _ in range(index % 3)
        ]
        for _ in pictures:
            ids.insert(int(rng.integers(1, len(ids))), token)
        sampling = SamplingParams(temperature=0.0 if index % 2 else 1.0, seed=index)
        wanted.append((ids, pictures, sampling))

    def make():
        return [
            prompts.make(ids, pictures, sampling=sampling, cache_key=str(index), max_tokens=4)
            for index, (ids, pictures, sampling) in enumerate(wanted)
        ]

    together, _ = prompts.run(*make())
    for index in range(0, 64, 3):
        assert prompts.run(make()[index])[0] == [together[index]], index
    assert prompts.started.engine.stats().compilations == prompts.started.runner.compilations


def test_an_image_is_encoded_once(prompts):
    """By whichever prompts, one after the other and together; by another isolation key again."""
    before, token = encoded(prompts), prompts.started.images.markup.token
    same = [prompts.make([*range(10, 13 + index), token, 7], [noise(77)]) for index in range(3)]
    first, _ = prompts.run(*same)
    prompts.run(prompts.make([1, 2, token], [noise(77)]))
    assert encoded(prompts) == before + 1
    other, _ = prompts.run(prompts.make([*range(10, 13), token, 7], [noise(77)], cache_key="other"))
    assert encoded(prompts) == before + 2
    assert other == first[:1]


def test_the_prefix_cache_knows_images_apart(prompts):
    """Equal sizes and equal texts: pages of another image are never taken, those of the same one are."""
    token, ids = prompts.started.images.markup.token, [*range(30, 50)]
    one, _ = prompts.run(prompts.make([*ids, token, *ids], [noise(1, 32, 24)]))
    before = encoded(prompts)
    two, cached_two = prompts.run(prompts.make([*ids, token, *ids], [noise(2, 32, 24)]))
    again, cached_again = prompts.run(prompts.make([*ids, token, *ids], [noise(1, 32, 24)]))
    assert cached_two == [16], "the text before the image"
    assert cached_again == [48], "all whole pages"
    assert again == one
    assert two != one
    assert encoded(prompts) == before + 1
    fresh, _ = prompts.run(prompts.make([*ids, token, *ids], [noise(2, 32, 24)], cache_key="elsewhere"))
    assert fresh == two


def test_a_crowded_pool_and_few_pages_change_nothing(golden):
    """Images lose their rows while others come, sequences lose their pages: the tokens stay."""
    started = start_model("qwen3_vl", token_buckets=(32,), kv_memory=22 * 12288, image_cache_tokens=160)
    try:
        prompts, token = Prompts(started), started.images.markup.token
        requests = [
            prompts.make([*range(index, index + 9), token, index], [noise(index, 48, 64)], max_tokens=70)
            for index in range(6)
        ]
        together, _ = prompts.run(*requests)
        assert started.engine.stats().preemptions > 0
        again = [dataclasses.replace(request, id=f"again-{request.id}") for request in requests]
        assert [prompts.run(request)[0][0] for request in again] == together
        assert encoded(prompts) > 6, "the pool has room for three of the images"
        ids, pictures = shortened(golden, started)
        assert prompts.run(prompts.make(ids, pictures, max_tokens=12))[0] == [golden["greedy_a"].tolist()]
    finally:
        started.engine.close()


@pytest.fixture(scope="module")
def whole():
    """Gemma 3: a step reads an image in one piece. Its 16 tokens and what shares their pages leave little of 64."""
    made = start_model("gemma3_images", max_num_seqs=4, token_buckets=(8, 64))
    yield made
    made.engine.close()


def test_images_in_one_piece_give_the_references_tokens(whole):
    """Chunks that end before an image, and a prefix that ends inside one, which the cache gives only as it was read
    whole."""
    golden = np.load(MODELS / "gemma3_images" / "golden.npz")
    prompts, (ids, pictures) = Prompts(whole), shortened(golden, whole)
    wanted = golden["greedy_a"].tolist()
    for cached in (0, 32):
        (tokens,), found = prompts.run(prompts.make(ids, pictures, max_tokens=12))
        assert (tokens, found) == (wanted, [cached])
    chunked = prompts.make([*range(40), *ids], pictures, max_tokens=12)
    assert chunked.images[0].start == 45
    first, _ = prompts.run(chunked)
    again, cached = prompts.run(prompts.make([*range(40), *ids], pictures, max_tokens=12))
    fresh, _ = prompts.run(prompts.make([*range(40), *ids], pictures, max_tokens=12, cache_key="fresh"))
    assert first == again == fresh
    assert cached == [80]


def test_images_in_one_piece_under_pressure():
    """More sequences than slots, few pages, decoding neighbours: an image waits for a step that holds it whole."""
    started = start_model("gemma3_images", max_num_seqs=4, token_buckets=(64,), kv_memory=30 * 4096)
    try:
        prompts, token = Prompts(started), started.images.markup.token
        requests = [
            prompts.make(
                [*range(index, index + 3 * index + 5), *[token, 7] * (index % 3)],
                [noise(index + place) for place in range(index % 3)],
                max_tokens=40,
            )
            for index in range(9)
        ]
        together, _ = prompts.run(*requests)
        assert started.engine.stats().preemptions > 0
        again = [dataclasses.replace(request, id=f"again-{request.id}", cache_key="other") for request in requests]
        assert [prompts.run(request)[0][0] for request in again] == together
        assert started.engine.stats().compilations == started.runner.compilations
    finally:
        started.engine.close()


def test_a_step_must_hold_an_image_that_is_read_in_one_piece():
    with pytest.raises(ModelLoadError, match="--max-num-batched-tokens 32 is less than the 53"):
        start_model("gemma3_images", token_buckets=(32,))
