"""The TPU experts' kernel, interpreted, against the universal backend: every format, one layer of several."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve.models.config import GluSpec, WeightFormat
from jaxserve.models.kernels import tpu_matmul
from jaxserve.models.kernels.expert_blocks import cut_into_blocks
from jaxserve.models.kernels.matmul_backend import Experts, Projection
from jaxserve.models.kernels.tpu_matmul import TpuMatmul
from jaxserve.models.kernels.xla import Xla
from jaxserve.models.quantization import Weight, code_shape, scale_shape

TOKENS, LAYERS, EXPERTS, CHOICES, WIDTH, INNER = 24, 3, 5, 2, 192, 320
FORMATS = {
    "plain": None,
    "int8": WeightFormat("int8"),
    "fp8": WeightFormat("e4m3", 128),
    "mxfp4": WeightFormat("e2m1", 32, "e8m0"),
}


def stack(rng, outputs, inputs, form, bias):
    shape = (LAYERS, EXPERTS, outputs, inputs)
    biases = jnp.asarray(rng.standard_normal((EXPERTS, outputs)), jnp.float32) if bias else None
    if form is None:
        return Projection(Weight(jnp.asarray(rng.standard_normal(shape) * inputs**-0.5, jnp.float32)), biases)
    codes = rng.integers(0, 256, code_shape(shape, form), np.uint8)
    if form.code == "e4m3":
        codes[codes & 127 == 127] = 0  # NaN
    small = rng.random(scale_shape(shape, form)) * 0.01 + 0.001
    scale = rng.integers(118, 123, scale_shape(shape, form), np.uint8) if form.scale == "e8m0" else np.float32(small)
    codes = codes.view(np.int8) if form.code == "int8" else codes
    return Projection(Weight(jnp.asarray(codes), jnp.asarray(scale), form), biases)


def test_waves_have_every_block_and_every_assignment_once():
    chosen = jnp.asarray(np.random.default_rng(3).integers(-1, EXPERTS + 1, (TOKENS, CHOICES)), jnp.int32)
    blocks = cut_into_blocks(chosen, EXPERTS, 4)
    padded = blocks.padded(3)
    waves = [padded.part(jnp.int32(first), 3) for first in range(0, padded.experts_W.shape[0], 3)]
    valid = [int(one.valid[0]) for one in waves]
    assert sum(valid) == int(blocks.valid[0]) > 6
    assert valid == sorted(valid, reverse=True)
    assert np.array_equal(sum(one.valid_TA.astype(jnp.int32) for one in waves), blocks.valid_TA.astype(jnp.int32))
    assert np.array_equal(jnp.concatenate([one.experts_W for one in waves]), padded.experts_W)


@pytest.mark.parametrize(
    ("name", "bias"),
    [("plain", True), pytest.param("int8", False, marks=pytest.mark.slow), ("fp8", False), ("mxfp4", True)],
)
def test_one_layer_of_a_stack(name, bias):
    rng, form, layer = np.random.default_rng(0), FORMATS[name], 1
    sides = [stack(rng, o, i, form, bias) for o, i in ((INNER, WIDTH), (INNER, WIDTH), (WIDTH, INNER))]
    alone = [s._replace(weight_EOI=jax.tree.map(lambda a: a[layer], s.weight_EOI)) for s in sides]
    x = jnp.asarray(rng.standard_normal((TOKENS, WIDTH)), jnp.float32)
    weights = jnp.asarray(rng.random((TOKENS, CHOICES)), jnp.float32)
    chosen = rng.integers(-1, EXPERTS + 1, (TOKENS, CHOICES)).astype(np.int32)
    chosen[:, 1] = (chosen[:, 0] + 2) % EXPERTS
    glu = GluSpec("silu")

    @jax.jit
    def ours(x, weights, chosen, sides, layer):
        return TpuMatmul(interpret=True).apply_experts(x, weights, chosen, Experts(*sides, layer), glu)

    expected = np.asarray(jax.jit(Xla().apply_experts, static_argnums=4)(x, weights, chosen, Experts(*alone), glu))
    out = np.asarray(ours(x, weights, jnp.asarray(chosen), sides, jnp.int32(layer)))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(out, expected, atol=2e-5 * np.abs(expected).max())


def test_waves_change_no_bit(monkeypatch):
    """Blocks that are taken a few at a time give what all at once give, an expert cut in two included."""
    rng = np.random.default_rng(1)
    sides = [stack(rng, o, i, None, True) for o, i in ((INNER, WIDTH), (INNER, WIDTH), (WIDTH, INNER))]
    x = jnp.asarray(rng.standard_normal((4 * TOKENS, WIDTH)), jnp.float32)
    # Powers of two: XLA:CPU rounds a product before it is added, or not, as it likes.
    weights = jnp.asarray(2.0 ** rng.integers(-3, 1, (4 * TOKENS, CHOICES)), jnp.float32)
    chosen = rng.integers(0, EXPERTS, (4 * TOKENS, CHOICES)).astype(np.int32)
    chosen[:, 1] = (chosen[:, 0] + 2) % EXPERTS
    turns = []

    def result():
        experts = Experts(*sides, jnp.int32(2))
        compute = lambda *a: TpuMatmul(interpret=True).apply_experts(*a, experts, GluSpec("silu"))  # noqa: E731
        turns.append("while" in str(jax.make_jaxpr(compute)(x, weights, jnp.asarray(chosen))))
        return np.asarray(jax.jit(compute)(x, weights, jnp.asarray(chosen)))

    whole = result()
    monkeypatch.setattr(tpu_matmul, "_WAVE_BYTES", 3 * 32 * WIDTH * 4)
    np.testing.assert_array_equal(result(), whole)
    assert turns == [False, True]
