"""The C++ kernels against NumPy in float64, for each instruction set of the machine: ragged shapes, types, row bits."""

from __future__ import annotations

import os
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_attention import oracle

from jaxserve import models
from jaxserve.models import AttentionMeta, tiles, tiles_on_device
from jaxserve.models.config import WeightFormat
from jaxserve.models.quantization import code_dtype, dequantise_host, packed
from jaxserve.native import calls
from jaxserve.native.build import SANITIZE, build, default_directory, find_compiler
from jaxserve.native.instruction_sets import INSTRUCTION_SETS, available
from jaxserve.native.library import open_library

PAGE = 16
ROWS = ((0, 40), (299, 1), (250, 37), (0, 1), (127, 2))
"""(start, new tokens) of each row."""
BEST = available()[0].name


def instruction_sets():
    """The best set and the portable one always, the others when slow tests run."""
    return [
        pytest.param(one, id=one.name, marks=[] if one.name in (BEST, "portable") else pytest.mark.slow)
        for one in INSTRUCTION_SETS
    ]


@pytest.fixture(scope="module", params=instruction_sets())
def library(request):
    if request.param not in available():
        pytest.skip(f"this machine has no {request.param.name}")
    if find_compiler() is None:
        pytest.skip("there is no C++ compiler")
    extra = SANITIZE if "JAXSERVE_SANITIZE" in os.environ else ()  # `make sanitize`
    return open_library(build(request.param, default_directory(), extra), request.param)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_products(library, dtype):
    """Any shape, also with rests of vectors and tiles; a row's bits do not depend on the others."""
    rng = np.random.default_rng(3)
    multiply = jax.jit(lambda x, *weights: calls.matmul_float(library, x, weights))
    for tokens, outputs, inputs in ((1, 3, 5), (11, 130, 65), (23, 64, 576)):
        x = rng.standard_normal((tokens, inputs)).astype(np.float32)
        weights = [jnp.asarray(rng.standard_normal((count, inputs)), dtype) for count in (outputs, 7)]
        results = [np.asarray(y) for y in multiply(x, *weights)]
        for y, weight in zip(results, weights, strict=True):
            exact = x.astype(np.float64) @ np.asarray(weight, np.float64).T
            np.testing.assert_allclose(y, exact, atol=2e-6 * np.sqrt(inputs))
        for count in (1, 2, 7):
            few = multiply(x[:count], *weights)
            assert all(np.array_equal(part, y[:count]) for part, y in zip(few, results, strict=True))


@pytest.mark.parametrize(
    ("code", "block"), [("int8", None), ("int8", 32), ("e4m3", None), ("e4m3", 24), ("e2m1", 32), ("e2m1", 16)]
)
def test_products_with_codes(library, code, block):
    rng = np.random.default_rng(5)
    form = WeightFormat(code, block)
    inputs, outputs = 96 if code == "e2m1" else 105, 39
    bits = rng.integers(-127 if code == "int8" else 0, 128, (outputs, inputs // packed(form)))
    codes = np.where(bits == 127, 126, bits).astype(code_dtype(form))  # 127 is no number in e4m3
    scale = rng.uniform(0.5, 2, (outputs,) if block is None else (outputs, -(-inputs // block))).astype(np.float32)
    x = rng.standard_normal((9, inputs)).astype(np.float32)
    weights = [calls.Codes(jnp.asarray(codes), jnp.asarray(scale))] * 2
    multiply = jax.jit(lambda x: calls.matmul_scaled(library, x, weights, block=block, pairs=packed(form) == 2)[1])
    y = np.asarray(multiply(x))
    weight = dequantise_host(codes, scale, form).astype(np.float64)
    np.testing.assert_allclose(y, x @ weight.T, atol=1e-5 * np.abs(weight).max())
    assert np.array_equal(multiply(x[:1]), y[:1])
    assert np.array_equal(multiply(x[:3]), y[:3])


@pytest.mark.parametrize("pairs", [True, False])
def test_products_with_offsets(library, pairs):
    """As GGUF's Q4_1 and Q5_1 have them."""
    rng = np.random.default_rng(7)
    outputs, inputs, block = 39, 160, 32
    codes = rng.integers(0, 16 if pairs else 32, (outputs, inputs))
    scale, offset = rng.uniform(-1, 1, (2, outputs, inputs // block)).astype(np.float32)
    held = codes[:, 0::2] | codes[:, 1::2] << 4 if pairs else codes
    weight = calls.Codes(jnp.asarray(held, "uint8" if pairs else "int8"), jnp.asarray(scale), jnp.asarray(offset))
    x = rng.standard_normal((7, inputs)).astype(np.float32)
    multiply = jax.jit(lambda x: calls.matmul_scaled(library, x, [weight], block=block, pairs=pairs)[0])
    y = np.asarray(multiply(x))
    exact = codes * np.repeat(scale, block, 1).astype(np.float64) + np.repeat(offset, block, 1)
    np.testing.assert_allclose(y, x @ exact.T, atol=1e-4)
    assert np.array_equal(multiply(x[:1]), y[:1])


@pytest.mark.parametrize(
    ("code", "group", "scale", "offsets"),
    [
        ("uint4", 32, "float16", True),
        ("uint4", 32, "float32", True),
        ("int8", 32, "float16", False),
        ("int8", 32, "float32", True),
        ("int8", 16, "float32", False),
        ("int8", 16, "float32", True),
    ],
)
def test_products_with_tiles(library, code, group, scale, offsets):
    """The promised rounding of inputs, extreme codes, rows of zeros; a row's bits don't depend on the others."""
    rng, (outputs, inputs) = np.random.default_rng(11), (208, 288)
    form = WeightFormat(code, group, scale, offsets=offsets, tiled=True)
    low, high = (0, 16) if code == "uint4" else (-128, 128)
    codes = rng.choice([low, high - 1, *range(low, high)], (outputs, inputs)).astype(code_dtype(form))
    factors = rng.uniform(-1, 1, (2 if offsets else 1, outputs, inputs // group)).astype(scale)
    weight = calls.Tiles(jnp.asarray(tiles.tile_codes(codes, form)), jnp.asarray(tiles.tile_scales(list(factors))))
    x = rng.standard_normal((23, inputs)).astype(np.float32) * 10.0 ** rng.integers(-3, 4, (23, 1))
    x[5], x[7, :40] = 0, 1e-38
    x = x.astype(np.float32)
    multiply = jax.jit(lambda x: calls.matmul_blocks(library, x, [weight] * 3, group=group, offsets=offsets)[2])
    y = np.asarray(multiply(x))
    exact = np.asarray(tiles_on_device.dequantised(*weight, form), np.float64)
    rounded = _rounded_to_16_bits(x)
    np.testing.assert_allclose(rounded, x, rtol=0, atol=2e-5 * np.abs(x).max())
    bound = 1e-6 * (np.abs(rounded) @ np.abs(exact).T + np.abs(rounded) @ np.abs(exact - codes).T)
    assert (np.abs(y - rounded @ exact.T) <= bound).all()
    for count in (1, 2, 6):
        assert np.array_equal(multiply(x[:count]), y[:count])


def _rounded_to_16_bits(x):
    """Each 32 neighbours in 32,258ths of their largest magnitude; tiny ones are zero."""
    blocks, steps = x.reshape(len(x), -1, 32), np.float32(127 * 254)
    peak = np.abs(blocks).max(-1, keepdims=True)
    factor = np.where(peak > 1e-30, steps / np.maximum(peak, np.float32(1e-30)), np.float32(0))
    return (np.rint(blocks * factor) * (peak / steps).astype(np.float64)).reshape(x.shape)


def paged(rng, kv_heads, dim, dtype):
    """Keys and values of each row, a cache that holds the old ones and NaN elsewhere, and the page table."""
    table = np.zeros((len(ROWS) + 1, 20), np.int32)
    table[: len(ROWS)] = (rng.permutation(127)[: len(ROWS) * 20] + 1).reshape(len(ROWS), 20)
    cache = np.full((128, 2 * kv_heads, PAGE, dim), np.nan, np.float32)
    past = []
    for row, (start, new) in enumerate(ROWS):
        numbers = rng.standard_normal((2, start + new, kv_heads, dim))
        k, v = np.asarray(jnp.asarray(numbers, dtype), np.float32)
        for position in range(start):
            page = cache[table[row, position // PAGE], :, position % PAGE]
            page[0::2], page[1::2] = k[position], v[position]
        past.append((k, v))
    return past, jnp.asarray(cache, dtype), table


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "window", "softcap", "with_sinks", "dtype"),
    [
        (6, 2, 24, None, None, False, "float32"),
        (9, 3, 64, 20, 3.0, True, "float32"),
        (4, 4, 80, 150, None, True, "bfloat16"),
        (64, 1, 128, None, 2.0, False, "float32"),
    ],
)
def test_attention(library, heads, kv_heads, dim, window, softcap, with_sinks, dtype):
    """Ragged rows, stale pages that hold NaN, padding; decode rows have the bits that they have alone."""
    rng = np.random.default_rng(0)
    past, cache, table = paged(rng, kv_heads, dim, dtype)
    cu = np.concatenate([[0], np.cumsum([new for _, new in ROWS]), [sum(new for _, new in ROWS)]]).astype(np.int32)
    lens = np.array([start + new for start, new in ROWS] + [0], np.int32)
    q = rng.standard_normal((96, heads, dim)).astype(np.float32)
    k, v = np.zeros((2, 96, kv_heads, dim), np.float32)
    sinks = rng.standard_normal(heads).astype(np.float32) if with_sinks else None
    expected = np.zeros(q.shape)
    for row, (start, new) in enumerate(ROWS):
        span, (keys, values) = slice(cu[row], cu[row + 1]), past[row]
        k[span], v[span] = keys[start:], values[start:]
        expected[span] = oracle(q[span], keys, values, range(start, start + new), 0.3, window, softcap, sinks)

    @jax.jit
    def run(q, k, v, cache, cu, lens, table):
        meta = AttentionMeta.from_rows(cu, lens, table, q.shape[0], PAGE)
        pages = calls.Pages(meta.cu_q_lens, meta.kv_lens, meta.page_table, 0)
        return calls.attention(library, q, k, v, cache, pages, scale=0.3, window=window, softcap=softcap, sinks_N=sinks)

    out, kept = run(q, k, v, cache, cu, lens, table)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    last = np.asarray(kept, np.float32)[table[1, 299 // PAGE], :, 299 % PAGE]
    assert np.array_equal(last[0::2], past[1][0][299])
    assert np.array_equal(last[1::2], past[1][1][299])
    one = np.arange(cu[1] - 1, cu[1])  # the last token of the first row, now as a decode row
    alone, _ = run(q[one], k[one], v[one], kept, np.array([0, 1]), np.array([40]), table[:1])
    assert np.array_equal(alone, out[one])


def test_bfloat16_that_is_stored_stays_so_and_gives_the_bits_of_float32(model_fixtures, make_session):
    model = models.load_model(model_fixtures / "qwen2_bias")
    if model.backends.matmul.name != "native":
        pytest.skip("there are no native kernels here")
    kinds = {str(leaf.dtype) for leaf in model.leaves}
    assert kinds == {"bfloat16", "float32"}, "weights of products, and the norms and biases"
    wide = replace(model, leaves=[leaf.astype(jnp.float32) for leaf in model.leaves])
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    logits = [make_session(one).run([(0, 0, ids)], 8)[0] for one in (model, wide)]
    assert np.array_equal(*logits)


def test_sets_are_chosen_by_what_the_machine_has():
    assert [one.name for one in available(["avx2", "fma", "f16c", "sse4_2"], "x86_64")] == ["avx2", "portable"]
    assert [one.name for one in available(["asimd", "asimddp"], "aarch64")] == ["dotprod", "portable"]
    assert [one.name for one in available([], "riscv64")] == ["portable"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("shape", [(3, 5), (70_001,), (300, 7, 1024)])
def test_zeros_where_other_numbers_were(library, shape, dtype):
    jax.block_until_ready([jnp.ones(shape, dtype) for _ in range(3)])  # memory that may be had again
    made = jax.jit(lambda: calls.zeros(library, shape, dtype))()
    assert made.shape == shape
    assert not np.asarray(made, np.float32).any()
