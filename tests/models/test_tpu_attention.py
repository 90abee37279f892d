"""The TPU attention kernels, interpreted, against a float64 oracle: writes into pages, rows that decode, items of
prefill, every kind of head and mask, stale pages that hold NaN."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_attention import oracle

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models import AttentionMeta
from jaxserve.models.kernels.attention_backend import AttentionShape, LayerBatch
from jaxserve.models.kernels.tpu_attention import PallasTpu
from jaxserve.models.kernels.tpu_work import Lanes

ROWS = ((0, 40), (299, 1), (250, 37), (17, 1), (127, 2), (0, 1))
"""(start, new tokens) of each row."""
TOKENS = 96
BACKEND = PallasTpu(interpret=True)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer of attention."""

    heads: int = 4
    kv_heads: int = 2
    dim: int = 128
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    page: int = 16
    dtype: str = "float32"
    columns: int = 20
    """Of the page table."""


CASES = {
    "plain": Case(),
    "packed heads of 64, sinks, window": Case(heads=8, dim=64, window=20, sinks=True),
    "heads of 96, soft cap": Case(dim=96, softcap=3.0, page=32, columns=10),
    "heads of 256, window, bfloat16": Case(dim=256, window=150, softcap=5.0, dtype="bfloat16"),
    "one head, bfloat16, long pages": Case(heads=7, kv_heads=1, page=64, columns=5, dtype="bfloat16"),
    "many heads, sinks": Case(heads=9, kv_heads=9, dim=24, sinks=True),
    "a ring": Case(window=60, columns=9),
}


class Layer:
    """A cache of two layers, all NaN, and the pages of some rows in the second."""

    def __init__(self, page, columns, shape, dtype):
        self.page, self.columns = page, columns
        self.table = np.zeros((len(ROWS) + 1, columns), np.int32)
        order = np.random.default_rng(1).permutation(len(ROWS) * columns) + 1
        self.table[:-1] = order.reshape(len(ROWS), columns)
        self.first = len(order) + 1
        self.array = np.full((2 * self.first, *shape), np.nan, dtype)
        self.cu = np.concatenate([[0], np.cumsum([n for _, n in ROWS]), [sum(n for _, n in ROWS)]]).astype(np.int32)

    def place(self, row, position):
        return self.first + self.table[row, position // self.page % self.columns], position % self.page

    def batch(self, shape):
        lens = np.array([start + n for start, n in ROWS] + [0], np.int32)
        meta = AttentionMeta.from_rows(
            jnp.asarray(self.cu), jnp.asarray(lens), jnp.asarray(self.table), TOKENS, self.page
        )
        return LayerBatch(meta, BACKEND.prepare(meta, shape), self.first)


_QUICK = ("packed heads of 64, sinks, window", "one head, bfloat16, long pages")
"""Of all runs; interpreted kernels take seconds to compile."""


@pytest.mark.parametrize(
    "name", [case if case in _QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_grouped_query_attention(name):
    case, rng = CASES[name], np.random.default_rng(0)
    dtype = jnp.dtype(case.dtype)
    lanes = Lanes.of_heads(case.dim)
    layer = Layer(case.page, case.columns, (case.kv_heads, case.page, lanes.width), dtype)
    q = rng.standard_normal((TOKENS, case.heads, case.dim)).astype(dtype)
    new = np.zeros((2, TOKENS, case.kv_heads, case.dim), dtype)
    sinks = rng.standard_normal(case.heads).astype(np.float32) if case.sinks else None
    expected = np.zeros(q.shape)
    offset = lanes.value_offset(case.dim)
    for row, (start, n) in enumerate(ROWS):
        kv = rng.standard_normal((2, start + n, case.kv_heads, case.dim)).astype(dtype)
        for position in range(max(0, start - case.columns * case.page + n), start):
            page, at = layer.place(row, position)
            held = np.zeros((case.kv_heads, lanes.width), dtype)
            held[:, : case.dim], held[:, offset : offset + case.dim] = kv[:, position]
            layer.array[page, :, at] = held
        span = slice(layer.cu[row], layer.cu[row + 1])
        new[:, span] = kv[:, start:]
        exact = (x.astype(np.float64) for x in (q[span], *kv))
        expected[span] = oracle(*exact, range(start, start + n), 0.3, case.window, case.softcap, sinks)

    @jax.jit
    def run(q, k, v, array):
        batch = layer.batch(AttentionShape(case.heads, case.kv_heads, case.dim, case.dim, case.window))
        return BACKEND.write_and_attend(
            q, k, v, {"kv": array}, batch, scale=0.3, window=case.window, softcap=case.softcap, sinks_N=sinks
        )

    out, cache = run(q, *new, layer.array)
    tolerance = 1e-5 if case.dtype == "float32" else 3e-2
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, atol=tolerance)
    kept = np.asarray(cache["kv"])
    assert np.isnan(kept[: layer.first].astype(np.float32)).all(), "another layer's pages were touched"
    for row, (start, n) in enumerate(ROWS):
        page, at = layer.place(row, start + n - 1)
        last = new[:, layer.cu[row + 1] - 1]
        assert np.array_equal(kept[page, :, at, : case.dim], last[0])
        assert np.array_equal(kept[page, :, at, offset : offset + case.dim], last[1])


@pytest.mark.parametrize(("heads", "dtype"), [(5, "float32"), pytest.param(16, "bfloat16", marks=pytest.mark.slow)])
def test_latent_attention(heads, dtype):
    rng, dim, value, page = np.random.default_rng(0), 192, 128, 16
    layer = Layer(page, 20, (page, 256), dtype)
    q = rng.standard_normal((TOKENS, heads, dim)).astype(dtype)
    new = np.zeros((TOKENS, dim), dtype)
    expected = np.zeros((TOKENS, heads, value))
    for row, (start, n) in enumerate(ROWS):
        latents = rng.standard_normal((start + n, dim)).astype(dtype)
        for position in range(start):
            layer.array[layer.place(row, position)] = np.pad(latents[position], (0, 64))
        span = slice(layer.cu[row], layer.cu[row + 1])
        new[span] = latents[start:]
        k = latents.astype(np.float64)[:, None]
        whole = oracle(q[span].astype(np.float64), k, k, range(start, start + n), 0.1, None, None, None)
        expected[span] = whole[..., :value]

    @jax.jit
    def run(q, rows, array):
        batch = layer.batch(AttentionShape(heads, 1, dim, value))
        options = {"scale": 0.1, "value_dim": value, "top_k": None, "axes": ()}
        return BACKEND.write_and_attend_latent(q, rows, None, {"latent": array}, batch, **options)

    out, cache = run(q, new, layer.array)
    np.testing.assert_allclose(np.asarray(out, np.float64), expected, atol=1e-5 if dtype == "float32" else 3e-2)
    assert np.isnan(np.asarray(cache["latent"][: layer.first], np.float32)).all()


@pytest.mark.parametrize("name", ["qwen2_bias", "gemma2", "gpt_oss", "deepseek_v32"])
def test_models_are_served_on_tpus_only(name, model_fixtures):
    layers = models.load_config(model_fixtures / name).layers
    assert models.choose_backends(None, None, "tpu", layers).attention == PallasTpu()
    with pytest.raises(ModelLoadError, match="--attention pallas_tpu needs a TPU"):
        models.choose_backends("pallas_tpu", None, "cpu", layers)
