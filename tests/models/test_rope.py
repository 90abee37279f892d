"""Rope kinds that no fixture has."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve.errors import ModelLoadError
from jaxserve.models.config import RopeSpec
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_rope import read_rope, stretched_context
from jaxserve.models.rope import inverse_frequencies, rope_table, rotate


def test_dynamic_base_grows_beyond_the_context():
    raw = HubConfig({"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "config.json")
    spec = read_rope(raw, 16)
    positions = np.array([0, 5, 63, 64, 200])
    cos, sin = rope_table(spec, jnp.asarray(positions))
    for row, position in enumerate(positions):
        length = max(position + 1, 64)
        base = 10000.0 * (2.0 * length / 64 - 1.0) ** (16 / 14)
        angle = position * base ** (-np.arange(0, 16, 2) / 16)
        np.testing.assert_allclose(cos[row], np.cos(angle), atol=1e-4)
        np.testing.assert_allclose(sin[row], np.sin(angle), atol=1e-4)


def test_yarn_rounds_its_bounds_outwards():
    """4 turns and 1 turn fall on pairs 2.4 and 4.8: the ramp runs from 2 to 5."""
    spec = RopeSpec(32, 10000.0, "yarn", 4.0, original_context=100, beta_fast=4.0, beta_slow=1.0)
    plain = inverse_frequencies(RopeSpec(32, 10000.0))
    ratio = inverse_frequencies(spec) / plain
    np.testing.assert_allclose(ratio[[0, 2, 3, 4, 5, 15]], [1, 1, 0.75, 0.5, 0.25, 0.25], rtol=1e-5)


def test_interleaved_pairs_are_neighbours():
    x = np.random.default_rng(0).standard_normal((3, 2, 10)).astype(np.float32)
    table = rope_table(RopeSpec(8, 100.0), jnp.asarray([0, 3, 9]))
    halves = rotate(x[..., [0, 2, 4, 6, 1, 3, 5, 7, 8, 9]], table)
    pairs = rotate(x, table, interleaved=True)
    np.testing.assert_array_equal(pairs[..., [0, 2, 4, 6, 1, 3, 5, 7, 8, 9]], halves)
    np.testing.assert_array_equal(pairs[0], x[0])
    assert not np.array_equal(pairs[1], x[1])


@pytest.mark.parametrize("kind", ["spiral", "proportional"])
def test_unknown_kinds_are_named(kind):
    with pytest.raises(ModelLoadError, match=kind):
        read_rope(HubConfig({"rope_scaling": {"rope_type": kind}}, "config.json"), 16)


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        (None, 512),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}, 512),
        ({"type": "yarn", "factor": 4.0}, 2048),
        ({"type": "linear", "factor": 2.0}, 1024),
        ({"type": "dynamic", "factor": 2.0}, 1024),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            512,
        ),
    ],
)
def test_the_context_is_the_original_one_times_the_factor(scaling, context):
    raw = HubConfig({"max_position_embeddings": 512, "rope_scaling": scaling}, "config.json")
    assert stretched_context(read_rope(raw, 16), 512) == context


@pytest.mark.parametrize("scaling", [{"factor": 4.0}, {"type": None, "factor": 2.0}, {"rope_type": "", "factor": 2.0}])
def test_a_scaling_without_a_type_is_refused(scaling):
    with pytest.raises(ModelLoadError, match="rope_scaling has no rope_type"):
        read_rope(HubConfig({"max_position_embeddings": 512, "rope_scaling": scaling}, "config.json"), 16)
