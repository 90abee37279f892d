"""Page groups: which layers share a page table."""

from __future__ import annotations

import dataclasses

import pytest

from jaxserve import models
from jaxserve.models.layout import Place


def windows(config, pattern):
    """The config with one layer per entry of the pattern, an entry being the layer's window."""
    spec = config.layers[0]
    layers = tuple(
        dataclasses.replace(spec, attention=dataclasses.replace(spec.attention, window=window)) for window in pattern
    )
    return dataclasses.replace(config, layers=layers)


@pytest.fixture(scope="module")
def config(model_fixtures):
    return models.load_config(model_fixtures / "llama_one_kv_head")


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        ([None] * 5, [(None, 5)]),
        ([7] * 5, [(7, 5)]),
        ([128, None] * 12, [(None, 12), (128, 12)]),  # gpt-oss
        (([1024] * 5 + [None]) * 4 + [1024] * 2, [(None, 4)] + [(1024, 4)] * 5 + [(1024, 2)]),  # Gemma 3 1B
        ([None, None, 64, None, 8], [(None, 1)] * 3 + [(8, 1), (64, 1)]),
    ],
)
def test_layers_of_a_window_form_groups_of_equal_size(config, pattern, groups):
    layout = models.cache_layout(windows(config, pattern))
    assert [(group.window, len(group.layers)) for group in layout.groups] == groups
    assert layout.windows == tuple(window for window, _ in groups)
    assert layout.slots == groups[0][1]


def test_every_layer_has_one_place_in_a_group_of_its_window(config):
    pattern = ([16] * 5 + [None]) * 3 + [16]
    layout = models.cache_layout(windows(config, pattern))
    places = layout.places()
    assert len(set(places)) == len(places) == len(pattern)
    assert [layout.groups[place.group].window for place in places] == pattern
    assert places[5] == Place(0, 0)
    assert all(place.slot < layout.slots for place in places)


def test_the_cache_has_room_for_the_slots_of_a_page(config):
    layered = windows(config, [32, None] * 3)
    backends = models.choose_backends("blocked", "xla", "cpu")
    spec = models.cache_spec(layered, num_pages=10, page_size=16, dtype="float32", backends=backends)["kv"]
    assert spec.shape == (3 * 10, 16, 2 * config.num_kv_heads, config.head_dim)
    page = models.cache_bytes_per_page(layered, page_size=16, dtype="float32")
    assert page == 3 * 16 * 2 * config.num_kv_heads * config.head_dim * 4


def test_layers_of_different_shape_are_refused(config):
    wide = dataclasses.replace(
        config.layers[0], attention=dataclasses.replace(config.layers[0].attention, head_dim=2 * config.head_dim)
    )
    mixed = dataclasses.replace(config, layers=(config.layers[0], wide))
    with pytest.raises(ValueError, match="kv of shapes"):
        models.cache_spec(mixed, num_pages=2, page_size=16, dtype="float32")
