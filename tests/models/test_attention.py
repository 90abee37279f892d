"""The blocked backend against a float64 oracle: ragged rows, windows, soft cap, sinks, stale pages that hold NaN."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve.models import AttentionMeta
from jaxserve.models.kernels.attention_backend import AttentionShape, LayerBatch
from jaxserve.models.kernels.blocked import Blocked, write_kv
from jaxserve.models.kernels.blocked_loops import attend

PAGE, PAGES, HEADS, KV_HEADS, DIM = 16, 64, 6, 2, 24
DYNAMIC, FIXED = Blocked(), Blocked(fixed_trips=True)
ROWS = ((0, 40), (299, 1), (250, 37), (0, 1), (127, 2))
"""(start, new tokens) of each row."""


def oracle(q, k, v, positions, scale, window, softcap, sinks):
    """float64 attention of one row: q [n, N, H] at `positions` over k, v [S, K, H]."""
    out = np.zeros(q.shape)
    for i, position in enumerate(positions):
        low = 0 if window is None else max(0, position - window + 1)
        for head in range(q.shape[1]):
            shared = head // (q.shape[1] // k.shape[1])
            s = k[low : position + 1, shared] @ q[i, head] * scale
            if softcap is not None:
                s = softcap * np.tanh(s / softcap)
            extra = [] if sinks is None else [sinks[head]]
            e = np.exp(np.concatenate([s, extra]) - max(s.max(), *extra, s.max()))
            out[i, head] = (e / e.sum())[: len(s)] @ v[low : position + 1, shared]
    return out


def batch_of(heads, kv_heads, cu, lens, table, tokens, first_page=0, backend=DYNAMIC):
    """The batch of a layer, with what `blocked` prepares."""
    meta = AttentionMeta.from_rows(cu, lens, table, tokens, PAGE)
    return LayerBatch(meta, backend.prepare(meta, AttentionShape(heads, kv_heads, DIM, DIM)), first_page)


@pytest.mark.parametrize("window", [None, 20, 150])
@pytest.mark.parametrize(("softcap", "with_sinks"), [(None, False), (3.0, True)])
def test_ragged_rows(window, softcap, with_sinks):
    rng = np.random.default_rng(0)
    pages = rng.permutation(PAGES * 2 - 1)[: len(ROWS) * 20] + 1
    table = np.zeros((len(ROWS) + 1, 20), np.int32)
    table[: len(ROWS)] = pages.reshape(len(ROWS), 20)
    kv = np.full((PAGES * 2, PAGE, 2 * KV_HEADS, DIM), np.nan, np.float32)
    cu = np.concatenate([[0], np.cumsum([n for _, n in ROWS]), [sum(n for _, n in ROWS)]]).astype(np.int32)
    lens = np.array([start + n for start, n in ROWS] + [0], np.int32)
    tokens = 128
    q = rng.standard_normal((tokens, HEADS, DIM)).astype(np.float32)
    sinks = rng.standard_normal(HEADS).astype(np.float32) if with_sinks else None
    expected = np.zeros(q.shape)
    for row, (start, n) in enumerate(ROWS):
        k, v = rng.standard_normal((2, start + n, KV_HEADS, DIM)).astype(np.float32)
        for position in range(start + n):
            place = kv[table[row, position // PAGE], position % PAGE]
            place[0::2], place[1::2] = k[position], v[position]
        span = slice(cu[row], cu[row + 1])
        expected[span] = oracle(q[span], k, v, range(start, start + n), 0.3, window, softcap, sinks)

    @jax.jit
    def run(q, kv, cu, lens, table):
        return attend(
            q,
            kv,
            batch_of(HEADS, KV_HEADS, cu, lens, table, tokens),
            scale=0.3,
            window=window,
            softcap=softcap,
            sinks_N=None if sinks is None else jnp.asarray(sinks),
        )

    np.testing.assert_allclose(run(q, kv, cu, lens, table), expected, atol=2e-6)


@pytest.mark.parametrize("window", [None, 20, 128, 129])
def test_fixed_trips_give_the_same(window):
    """Rows of one token, of several, of none, and padding; a ring of pages where there is a window."""
    rows, tokens, rng = ((0, 7), (299, 1), (250, 20), (0, 1), (127, 2)), 40, np.random.default_rng(0)
    columns = 20 if window is None else (window - 1 + tokens) // PAGE + 2
    table = rng.permutation(len(rows) * columns).astype(np.int32).reshape(len(rows), columns) + 1
    kv = jnp.asarray(rng.standard_normal((table.size + 1, PAGE, 2 * KV_HEADS, DIM)).astype(np.float32))
    q, sinks = rng.standard_normal((tokens, HEADS, DIM)).astype(np.float32), rng.standard_normal(HEADS)
    cu = np.concatenate([[0], np.cumsum([n for _, n in rows])]).astype(np.int32)
    lens = np.array([start + n for start, n in rows], np.int32)

    def run(q, cu, lens, table, *, backend):
        batch = batch_of(HEADS, KV_HEADS, cu, lens, table, tokens, backend=backend)
        return attend(q, kv, batch, scale=0.3, window=window, sinks_N=jnp.asarray(sinks))

    out, expected = (
        np.asarray(jax.jit(partial(run, backend=backend))(q, cu, lens, table)) for backend in (FIXED, DYNAMIC)
    )
    np.testing.assert_allclose(out, expected, atol=2e-6)
    assert np.array_equal(out[27], expected[27])
    assert not out[31:].any()
    loops = [
        str(jax.make_jaxpr(partial(run, backend=backend))(q, cu, lens, table)).count("while[")
        for backend in (FIXED, DYNAMIC)
    ]
    assert loops[0] == 0 < loops[1]


def test_write_puts_padding_on_page_zero():
    cu, lens = np.array([0, 3], np.int32), np.array([18], np.int32)
    batch = batch_of(1, 1, cu, lens, np.array([[2, 5]], np.int32), 8, first_page=6)
    k = jnp.arange(8.0)[:, None, None] * jnp.ones((8, 1, 4)) + 1
    kv = np.asarray(write_kv(jnp.zeros((12, PAGE, 2, 4)), k, -k, batch))
    assert kv[8, 15, :, 0].tolist() == [1, -1]
    assert kv[11, :2, 0, 0].tolist() == [2, 3]
    written = {int(page) for page in np.nonzero(kv.any(axis=(1, 2, 3)))[0]}
    assert written == {6, 8, 11}


@pytest.mark.parametrize(("kv_heads", "group"), [(1, 2), (1, 5), (1, 6), (1, 8), (2, 1), (2, 6)])
def test_a_decoded_token_has_the_bits_of_a_prefilled_one(kv_heads, group):
    length, table = 200, np.arange(1, 14, dtype=np.int32)[None]
    rng = np.random.default_rng(group)
    kv = jnp.asarray(rng.standard_normal((14, PAGE, 2 * kv_heads, 64), np.float32))
    q = rng.standard_normal((256, kv_heads * group, 64), np.float32)

    @jax.jit
    def run(q, cu, lens, table):
        return attend(q, kv, batch_of(kv_heads * group, kv_heads, cu, lens, table, len(q)), scale=0.125)

    whole = np.asarray(run(q, np.array([0, length]), np.array([length]), table))
    lens = np.array([200, 190, 162, 135, 128, 64, 17, 1])
    alone = run(q[lens - 1], np.arange(9), lens, np.repeat(table, 8, axis=0))
    assert np.array_equal(alone, whole[lens - 1])
