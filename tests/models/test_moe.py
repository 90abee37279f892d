"""Experts by grouped matmul: both ways of computing it, what is read, and whose neighbours matter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve.models.config import GluSpec
from jaxserve.models.kernels import grouped
from jaxserve.models.kernels.matmul_backend import Experts, Projection
from jaxserve.models.quantization import Weight

TOKENS, EXPERTS, CHOICES, WIDTH, INNER = 40, 6, 3, 24, 20
GLU = GluSpec(sigmoid_scale=1.702, limit=1.5, up_offset=1.0)


def projection(rng, outputs, inputs):
    weight = rng.standard_normal((EXPERTS, outputs, inputs)).astype(np.float32) * inputs**-0.5
    return Projection(Weight(weight), rng.standard_normal((EXPERTS, outputs)).astype(np.float32))


@pytest.fixture(scope="module")
def case():
    """Inputs, weights, choices (one of them outside, expert 5 never chosen) and experts."""
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((TOKENS, WIDTH)), rng.random((TOKENS, CHOICES))
    chosen = np.argsort(rng.random((TOKENS, EXPERTS - 1)))[:, :CHOICES].astype(np.int32)
    chosen[7, 1], chosen[9, 0] = -1, EXPERTS
    sides = (projection(rng, INNER, WIDTH), projection(rng, INNER, WIDTH), projection(rng, WIDTH, INNER))
    return x.astype(np.float32), weights.astype(np.float32), chosen, Experts(*sides)


def oracle(x, weights, chosen, experts):
    out = np.zeros((TOKENS, WIDTH))
    for t in range(TOKENS):
        for weight, expert in zip(weights[t], chosen[t], strict=True):
            if 0 <= expert < EXPERTS:
                gate, up = (x[t] @ side.weight_EOI.values[expert].T + side.bias_EO[expert] for side in experts[:2])
                gate, up = np.minimum(gate, 1.5), np.clip(up, -1.5, 1.5)
                inner = gate / (1 + np.exp(-1.702 * gate)) * (up + 1)
                out[t] += weight * (inner @ experts.down.weight_EOI.values[expert].T + experts.down.bias_EO[expert])
    return out


def test_blocks(case):
    np.testing.assert_allclose(jax.jit(apply)(*case), oracle(*case), atol=1e-5)


def apply(x, weights, chosen, experts):
    return grouped.apply_experts(x, weights, chosen, experts, GLU)


def test_ragged_products_are_the_same(case):
    """What TPUs run; on a CPU it is dense, but right."""
    x, weights, chosen, experts = case
    inside = (chosen >= 0) & (chosen < EXPERTS)
    out = grouped._ragged(jnp.asarray(x), jnp.where(inside, chosen, EXPERTS), experts, GLU)
    np.testing.assert_allclose((out * weights[..., None]).sum(axis=1), oracle(*case), atol=1e-5)


def test_experts_without_tokens_are_not_read(case):
    x, weights, chosen, experts = case
    broken = jax.tree.map(np.copy, experts)
    for array in jax.tree.leaves(broken):
        array[5] = np.nan
    np.testing.assert_array_equal(jax.jit(apply)(x, weights, chosen, broken), jax.jit(apply)(*case))


def test_a_token_does_not_depend_on_the_others(case):
    """Alone among padding, in another bucket with other blocks: the same bits."""
    x, weights, chosen, experts = case
    whole = np.asarray(jax.jit(apply)(*case))
    few = jax.jit(apply)
    assert grouped.block_rows(4 * CHOICES, EXPERTS) != grouped.block_rows(TOKENS * CHOICES, EXPERTS)
    for token in (0, 11, 39):
        alone = np.full((4, CHOICES), -1, np.int32)
        alone[2] = chosen[token]
        out = few(np.tile(x[token], (4, 1)), np.tile(weights[token], (4, 1)), alone, experts)
        np.testing.assert_array_equal(out[2], whole[token])
        np.testing.assert_array_equal(out[0], 0)
