"""Rows of embeddings, and prompts with images through the scheduler alone."""

from __future__ import annotations

import pytest
from engine_configs import engine_config

from jaxserve.config import ImageSizes
from jaxserve.engine.image_pool import ImagePool
from jaxserve.engine.plan import RowResult, SampledToken
from jaxserve.engine.requests import Request
from jaxserve.engine.scheduler import Scheduler
from jaxserve.errors import InvalidRequest
from jaxserve.images.placing import expand
from jaxserve.images.types import ImageInput
from jaxserve.sampling.params import SamplingParams

TOKEN = 99
SIZES = ImageSizes(pool=25, patch_buckets=(16, 32), max_tokens=8)


def image(name, tokens=8):
    """Four patches a token."""
    return ImageInput(bytes([name]), (2, 2 * tokens), tokens, (1.0,) * 7)


def request(ids, *images, name="r", **more):
    prompt, placed = expand(ids, images, TOKEN)
    return Request(name, prompt, SamplingParams(), more.pop("max_tokens", 2), images=placed, **more)


@pytest.fixture
def pool():
    made = ImagePool(SIZES)
    made.begin_step()
    return made


def test_one_image_one_place_for_each_isolation_key(pool):
    rows = pool.place("", image(1, 3))
    assert pool.place("", image(1, 3)) is rows
    assert set(pool.place("other", image(1, 3))).isdisjoint(rows)
    assert pool.take_encodings()[0].rows is rows
    assert pool.take_encodings() == ()
    assert (pool.encoded, pool.found) == (2, 0)
    pool.begin_step()
    pool.place("", image(1, 3))
    assert pool.found == 1
    pool.check()


def test_the_least_recently_used_goes_but_nothing_that_the_step_reads(pool):
    for name in (1, 2, 3):
        pool.begin_step()
        pool.place("", image(name))
    pool.begin_step()
    first = pool.place("", image(1))
    assert list(pool.place("", image(4))) != list(first)
    pool.begin_step()
    assert pool.place("", image(1)) is first
    assert pool.encoded == 4
    pool.place("", image(2))
    assert pool.encoded == 5, "2 had gone for 4"
    pool.begin_step()
    assert None not in [pool.place("", image(name)) for name in (1, 2, 4)]
    assert pool.place("", image(5)) is None, "all rows are read by this step"
    pool.check()


def test_a_step_encodes_the_patches_of_one_largest_image(pool):
    assert pool.place("", image(1, 5)) is not None
    assert pool.place("", image(2, 5)) is None
    assert pool.place("", image(3, 3)) is not None
    pool.begin_step()
    assert pool.place("", image(2, 5)) is not None


def test_forgotten_images_are_encoded_again(pool):
    pool.place("", image(1))
    pool.forget()
    pool.check()
    assert pool.take_encodings() == ()
    pool.begin_step()
    pool.place("", image(1))
    assert len(pool.take_encodings()) == 1


def run(scheduler, steps=60):
    """Plans and commits until all is done -> (plan, what each row computed) of every step."""
    plans = []
    for _ in range(steps):
        plan = scheduler.plan()
        if plan is None:
            break
        plans.append(plan)
        results = [RowResult(sampled=(SampledToken(5),) * row.samples) for row in plan.rows]
        scheduler.commit(plan, results)
        scheduler.check()
    assert not scheduler.has_work
    return plans


def test_a_prompt_of_many_images_advances_page_by_page():
    """A step encodes one large image: its chunk ends before the next one, at a page, or goes through an image."""
    scheduler = Scheduler(engine_config(images=SIZES))
    made = request([1, 2, 3, TOKEN, 4, TOKEN, 5, TOKEN, 6], *map(image, (1, 2, 3)))
    scheduler.add(made)
    plans = run(scheduler)
    computed = [(row.start, row.count) for plan in plans for row in plan.rows]
    assert computed[:3] == [(0, 12), (12, 8), (20, 10)]
    assert all(len(plan.encodings) <= 1 for plan in plans)
    for plan in plans:
        for row in plan.rows:
            covered = {position for one in row.images for position in range(one.start, one.start + len(one.rows))}
            wanted = {p for p in range(row.start, row.start + row.count) if p < 30 and made.prompt[p] == TOKEN}
            assert wanted <= covered


def test_other_images_of_equal_size_share_nothing():
    scheduler = Scheduler(engine_config(images=SIZES))
    ids = [1, 2, 3, 4, TOKEN, *range(10, 20)]
    cached = []
    for number, name in enumerate((1, 2, 1)):
        (sequence,) = scheduler.add(request(ids, image(name), name=str(number)))
        run(scheduler)
        cached.append(sequence.cached)
    assert cached == [0, 4, 20]
    assert scheduler.images.encoded == 2


def test_what_cannot_be_read_is_refused():
    scheduler = Scheduler(engine_config(images=SIZES))
    with pytest.raises(InvalidRequest, match="larger than any"):
        scheduler.add(request([1, TOKEN], image(1, 9)))
    with pytest.raises(InvalidRequest, match="knows text only"):
        Scheduler(engine_config()).add(request([1, TOKEN], image(1)))
    with pytest.raises(InvalidRequest, match="1 image placeholders, the request has 2"):
        request([1, TOKEN], image(1), image(2))
