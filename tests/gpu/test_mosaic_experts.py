"""Experts by the Mosaic kernel in jax's interpreter of GPU kernels, against `grouped.py`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret.params import force_gpu_interpret_mode

from jaxserve.models.config import GluSpec
from jaxserve.models.kernels import grouped, mosaic_work
from jaxserve.models.kernels.expert_blocks import blocks_of_all_tokens, cut_into_blocks
from jaxserve.models.kernels.matmul_backend import Experts, Projection
from jaxserve.models.kernels.mosaic_matmul import FixedMosaic, MosaicMatmul, block_rows
from jaxserve.models.kernels.xla import Xla
from jaxserve.models.quantization import Weight

COUNT, WIDTH, INNER = 6, 192, 128


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    def add_products(total, left, right):
        return total + jnp.dot(left[...].astype(jnp.float32), right[...].T.astype(jnp.float32), precision="highest")

    def store_turned(target, value):
        target[...] = value.T

    monkeypatch.setattr(mosaic_work, "filled", lambda shape, value, layout: jnp.full(shape, value, jnp.float32))
    monkeypatch.setattr(mosaic_work, "load", lambda ref, layout: ref[...])
    monkeypatch.setattr(mosaic_work, "add_products", add_products)
    monkeypatch.setattr(mosaic_work, "store_turned", store_turned)
    monkeypatch.setattr("jaxserve.models.kernels.mosaic_experts.PROCESSORS", 1)
    with force_gpu_interpret_mode():
        yield


def random_experts(rng, *, bias):
    def projection(outputs, inputs):
        values = jnp.asarray(rng.standard_normal((COUNT, outputs, inputs)) * inputs**-0.5, jnp.bfloat16)
        return Projection(
            Weight(values), jnp.asarray(rng.standard_normal((COUNT, outputs)), jnp.bfloat16) if bias else None
        )

    return Experts(projection(INNER, WIDTH), projection(INNER, WIDTH), projection(WIDTH, INNER))


@pytest.mark.parametrize(
    ("tokens", "bias"),
    [pytest.param(1, False, marks=pytest.mark.slow), (5, True), pytest.param(40, False, marks=pytest.mark.slow)],
)
def test_like_the_universal_backend(tokens, bias):
    """Experts with no token, one, several blocks; tokens whose expert is elsewhere or that are padding."""
    rng = np.random.default_rng(tokens)
    chosen = np.stack([rng.permutation(COUNT + 2)[:3] - 1 for _ in range(tokens)]).astype(np.int32)
    x = jnp.asarray(rng.standard_normal((tokens, WIDTH)), jnp.bfloat16)
    weights = jnp.asarray(rng.random((tokens, 3)), jnp.float32)
    arguments = (x, weights, jnp.asarray(chosen), random_experts(rng, bias=bias), GluSpec("silu"))
    out, expected = (np.asarray(backend.apply_experts(*arguments)) for backend in (MosaicMatmul(), Xla()))
    assert np.linalg.norm(out - expected) < 6e-3 * np.linalg.norm(expected)


def test_gate_up_and_activation_are_one_kernel():
    """Of a dense layer, at few tokens."""
    rng = np.random.default_rng(2)
    gate, up = (Weight(jnp.asarray(rng.standard_normal((INNER, WIDTH)) * WIDTH**-0.5, jnp.bfloat16)) for _ in range(2))
    x, spec = jnp.asarray(rng.standard_normal((5, WIDTH)), jnp.bfloat16), GluSpec("gelu_tanh", limit=1.5)
    out, expected = (np.asarray(b.multiply_gated(x, gate, up, spec), np.float64) for b in (MosaicMatmul(), Xla()))
    assert out.shape == (5, INNER)
    assert np.linalg.norm(out - expected) < 6e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("rows", [1, 16])
def test_each_chosen_expert_has_one_block_of_all_tokens(rows):
    rng = np.random.default_rng(0)
    chosen = rng.integers(-1, COUNT + 1, (rows, 3)).astype(np.int32)
    blocks = jax.tree.map(np.asarray, blocks_of_all_tokens(jnp.asarray(chosen), COUNT))
    wanted = sorted(set(chosen[(chosen >= 0) & (chosen < COUNT)].tolist()))
    assert blocks.experts_W[: blocks.valid[0]].tolist() == wanted
    for token, place in np.argwhere(blocks.valid_TA):
        assert blocks.experts_W[blocks.block_TA[token, place]] == chosen[token, place]
        assert blocks.place_TA[token, place] == token


@pytest.mark.parametrize("tokens", [1, 16, 300])
def test_each_assignment_has_a_row_of_its_expert(tokens):
    rng = np.random.default_rng(0)
    chosen = rng.integers(-1, COUNT + 1, (tokens, 4)).astype(np.int32)
    blocks = jax.tree.map(np.asarray, cut_into_blocks(jnp.asarray(chosen), COUNT, block_rows(chosen.size, COUNT)))
    assert np.array_equal(blocks.valid_TA, (chosen >= 0) & (chosen < COUNT))
    rows = [
        (blocks.block_TA[at], blocks.place_TA[at]) for at in np.argwhere(blocks.valid_TA).tolist() for at in [tuple(at)]
    ]
    assert len(set(rows)) == len(rows)
    for token, place in np.argwhere(blocks.valid_TA):
        block, row = blocks.block_TA[token, place], blocks.place_TA[token, place]
        assert block < blocks.valid[0]
        assert blocks.experts_W[block] == chosen[token, place]
        assert blocks.tokens_WR[block, row] == token


def test_a_loop_over_every_block_changes_no_bit():
    """What `grouped.py` does on GPUs where experts are quantised."""
    rng = np.random.default_rng(3)
    chosen = jnp.asarray(rng.integers(0, COUNT + 1, (9, 2)), jnp.int32)
    x = jnp.asarray(rng.standard_normal((9, WIDTH)), jnp.float32)
    experts = jax.tree.map(lambda array: array.astype(jnp.float32), random_experts(rng, bias=True))
    needed, every = (grouped._blocked(x, chosen, experts, GluSpec("silu"), every=every) for every in (False, True))
    assert np.array_equal(needed, every)
    assert np.asarray(needed).any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_one_kernel_multiplies_any_number_of_rows(dtype):
    """Sizes that the kernel does not take are padded; with several blocks of rows every one is computed."""
    rng = np.random.default_rng(4)
    weight = Weight(jnp.asarray(rng.standard_normal((72, 80)) * 80**-0.5, jnp.bfloat16))
    x = jnp.asarray(rng.standard_normal((130, 80)), jnp.bfloat16)
    out = np.asarray(FixedMosaic().multiply(x, weight, dtype), np.float64)
    expected = np.asarray(x, np.float64) @ np.asarray(weight.values, np.float64).T
    assert out.shape == (130, 72)
    assert np.linalg.norm(out - expected) < (4e-3 if dtype == jnp.bfloat16 else 1e-6) * np.linalg.norm(expected)
