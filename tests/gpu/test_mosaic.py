"""The Mosaic attention kernels in jax's interpreter of GPU kernels, against a float64 oracle.

The interpreter runs thread blocks, warpgroups, barriers and asynchronous copies on the CPU. It knows neither layouts of
registers nor all matrix products, so five functions of a line each are replaced; what the compiler makes of them
`test_ahead.py` sees. Pages hold NaN beyond their rows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.pallas.mosaic_gpu.interpret.params import force_gpu_interpret_mode

from jaxserve.models import AttentionMeta
from jaxserve.models.kernels import mosaic, mosaic_work
from jaxserve.models.kernels.attention_backend import AttentionShape, LayerBatch

PAGE, COLUMNS, FIRST_PAGE = 16, 48, 3
SCALE = 0.1


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    def dot(left, right):
        return jnp.dot(left.astype(jnp.float32), right.astype(jnp.float32), precision="highest")

    stand_ins = {
        "load": lambda ref, layout: ref[...],
        "filled": lambda shape, value, layout: jnp.full(shape, value, jnp.float32),
        "iota": lambda shape, dimension: jax.lax.broadcasted_iota(jnp.int32, shape, dimension),
        "products": lambda queries, keys: dot(queries[...], keys[...].T),
        "accumulate": lambda total, left, right: total + dot(left, right[...]),
    }
    for name, function in stand_ins.items():
        monkeypatch.setattr(mosaic_work, name, function)
    with force_gpu_interpret_mode():
        yield


def oracle(q_NH, kv, table, position, window, softcap, sinks):
    """float64 attention of one query."""
    first = 0 if window is None else max(0, position - window + 1)
    at = np.arange(first, position + 1)
    seen = kv[table[at // PAGE % len(table)] + FIRST_PAGE, at % PAGE].astype(np.float64)
    group, out = len(q_NH) // (kv.shape[2] // 2), np.zeros(q_NH.shape)
    for head, q in enumerate(q_NH.astype(np.float64)):
        keys, values = seen[:, 2 * (head // group)], seen[:, 2 * (head // group) + 1]
        scores = keys @ q * SCALE
        scores = scores if softcap is None else softcap * np.tanh(scores / softcap)
        weights = np.exp(scores)
        out[head] = weights @ values / (weights.sum() + (0 if sinks is None else np.exp(sinks[head])))
    return out


def attention(rows, tokens, heads, kv_heads, head_dim, *, window=None, softcap=None, with_sinks=False):
    """What the backend's kernels and the oracle make of `rows` of (start, new tokens)."""
    rng = np.random.default_rng(1)
    pages = len(rows) * COLUMNS + 1
    table = (rng.permutation(pages - 1)[: len(rows) * COLUMNS] + 1).reshape(len(rows), COLUMNS).astype(np.int32)
    kv = rng.standard_normal((pages + FIRST_PAGE, PAGE, 2 * kv_heads, head_dim), np.float32)
    lens = np.array([start + new for start, new in rows], np.int32)
    for row, length in enumerate(lens):
        kv[table[row, (length - 1) // PAGE] + FIRST_PAGE, (length - 1) % PAGE + 1 :] = np.nan
    q, kv = jnp.asarray(rng.standard_normal((tokens, heads, head_dim)), jnp.bfloat16), jnp.asarray(kv, jnp.bfloat16)
    sinks = rng.standard_normal(heads).astype(np.float32) if with_sinks else None
    cu = np.concatenate([[0], np.cumsum([new for _, new in rows])]).astype(np.int32)
    meta = AttentionMeta.from_rows(jnp.asarray(cu), jnp.asarray(lens), jnp.asarray(table), tokens, PAGE)
    shape = AttentionShape(heads, kv_heads, head_dim, head_dim, window)
    batch = LayerBatch(meta, mosaic.Mosaic().prepare(meta, shape), FIRST_PAGE)
    options = {"scale": SCALE, "window": window, "softcap": softcap}
    out = mosaic._attend(q, kv, batch, sinks_N=None if sinks is None else jnp.asarray(sinks), **options)
    expected = np.zeros(q.shape)
    for row, (start, new) in enumerate(rows):
        for number in range(new):
            query = np.asarray(q[cu[row] + number], np.float32)
            held = np.asarray(kv, np.float32)
            expected[cu[row] + number] = oracle(query, held, table[row], start + number, window, softcap, sinks)
    return np.asarray(out, np.float64), expected


def error(out, expected):
    return np.linalg.norm(out - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "options"),
    [
        (8, 2, 64, {}),
        pytest.param(12, 4, 64, {"with_sinks": True}, marks=pytest.mark.slow),
        (4, 2, 128, {"window": 40, "softcap": 5.0}),
        pytest.param(2, 2, 80, {"window": 600}, marks=pytest.mark.slow),
        pytest.param(6, 2, 96, {}, marks=pytest.mark.slow),
    ],
)
def test_each_token_is_a_row_of_its_own(monkeypatch, heads, kv_heads, head_dim, options):
    """Small buckets: rows of one token, of several, of none; more than one split; padding."""
    monkeypatch.setattr("jaxserve.models.kernels.mosaic_split.PROCESSORS", 1)
    out, expected = attention([(0, 1), (69, 2), (600, 1)], 5, heads, kv_heads, head_dim, **options)
    assert error(out, expected) < 4e-3
    assert not out[4:].any()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "options"),
    [
        pytest.param(8, 2, 64, {}, marks=pytest.mark.slow),
        (12, 4, 64, {"with_sinks": True, "window": 40}),
        pytest.param(2, 1, 128, {"softcap": 5.0}, marks=pytest.mark.slow),
        pytest.param(3, 1, 96, {}, marks=pytest.mark.slow),
    ],
)
def test_tiles_beside_rows_that_decode(monkeypatch, heads, kv_heads, head_dim, options):
    """Larger buckets: a row of several tiles, a continued one, one that decodes, padding."""
    for module in ("mosaic_split", "mosaic_tile"):
        monkeypatch.setattr(f"jaxserve.models.kernels.{module}.PROCESSORS", 1)
    out, expected = attention([(0, 70), (200, 1), (130, 20)], 96, heads, kv_heads, head_dim, **options)
    assert error(out, expected) < 4e-3
    assert not out[91:].any()


def test_a_row_keeps_its_bits_beside_others(monkeypatch):
    """Splits are fixed and combined in order, whichever block takes them."""
    out = []
    for blocks, other in ((1, 0), (3, 1)):
        monkeypatch.setattr("jaxserve.models.kernels.mosaic_split.PROCESSORS", blocks)
        out.append(attention([(600, 1), (20, other)], 2, 4, 1, 64)[0])
    assert np.array_equal(out[0][0], out[1][0])
    assert out[1][1].any()
    assert not out[0][1].any()
