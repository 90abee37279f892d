"""Latent and sparse attention over pages against float64 oracles: long rows, ragged batches, ties, what is not read."""

from __future__ import annotations

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models import AttentionMeta
from jaxserve.models.kernels import sparse
from jaxserve.models.kernels.attention_backend import AttentionShape, IndexQueries, LayerBatch
from jaxserve.models.kernels.blocked import Blocked
from jaxserve.models.kernels.blocked_loops import attend_latent
from jaxserve.models.mla import _per_head

PAGE, COLUMNS, HEADS, DIM, VALUE = 16, 20, 6, 24, 18
INDEX_HEADS, INDEX_DIM, TOP_K = 16, 20, 140
ROWS = ((0, 40), (299, 1), (250, 37), (0, 1), (127, 2))
"""(start, new tokens) of each row."""
TOKENS = 128


@partial(jax.jit, static_argnames="top_k")
def attend(q, latent, index, asked, cu, lens, table, top_k):
    """Latent attention, sparse where there is a `top_k`."""
    meta, how = AttentionMeta.from_rows(cu, lens, table, len(q), PAGE), {"scale": 0.3, "value_dim": VALUE}
    batch = LayerBatch(meta, Blocked().prepare(meta, AttentionShape(HEADS, 1, DIM, VALUE, None, top_k)), 0)
    if top_k is None:
        return attend_latent(q, latent, batch, **how)
    return sparse.attend_sparse(q, latent, index, asked, batch, top_k=top_k, **how)


class Case:
    """A ragged batch over pages in no particular order; the rest of the cache is NaN."""

    def __init__(self, rows=ROWS, tokens=TOKENS, seed=0):
        self.rows, self.tokens = rows, tokens
        rng = np.random.default_rng(seed)
        self.table = np.zeros((len(rows) + 1, COLUMNS), np.int32)
        self.table[:-1] = rng.permutation(len(rows) * COLUMNS).reshape(len(rows), COLUMNS) + 1
        counts = [count for _, count in rows]
        self.cu = np.cumsum([0, *counts, 0]).astype(np.int32)
        self.lens = np.array([start + count for start, count in rows] + [0], np.int32)
        self.latents = [rng.standard_normal((length, DIM)).astype(np.float32) for length in self.lens[:-1]]
        self.keys = [rng.standard_normal((length, INDEX_DIM)).astype(np.float32) for length in self.lens[:-1]]
        self.q = rng.standard_normal((tokens, HEADS, DIM)).astype(np.float32)
        asked = rng.standard_normal((tokens, INDEX_HEADS, INDEX_DIM)), rng.standard_normal((tokens, INDEX_HEADS))
        self.asked = IndexQueries(*(part.astype(np.float32) for part in asked))

    def pages(self, per_row):
        """Rows' vectors in their pages."""
        pages = np.full((self.table.max() + 1, PAGE, per_row[0].shape[1]), np.nan, np.float32)
        for row, vectors in enumerate(per_row):
            for position, vector in enumerate(vectors):
                pages[self.table[row, position // PAGE], position % PAGE] = vector
        return pages

    def run(self, top_k=None):
        """The backend's output [T, N, V]."""
        arrays = self.q, self.pages(self.latents), self.pages(self.keys), self.asked
        return np.asarray(attend(*arrays, self.cu, self.lens, self.table, top_k))

    def expected(self, top_k=None):
        """The oracle's, token after token in float64."""
        out = np.zeros((self.tokens, HEADS, VALUE))
        for row, (start, count) in enumerate(self.rows):
            for token in range(count):
                at, position = self.cu[row] + token, start + token
                seen = np.arange(position + 1)
                if top_k is not None:
                    seen = np.argsort(-self.scores(row, at)[: position + 1], kind="stable")[:top_k]
                latent = self.latents[row][seen].astype(np.float64)
                scores = self.q[at] @ latent.T * 0.3
                p = np.exp(scores - scores.max(axis=1, keepdims=True))
                out[at] = p / p.sum(axis=1, keepdims=True) @ latent[:, :VALUE]
        return out

    def scores(self, row, at):
        """Index scores of a token at all positions of its row."""
        hits = np.maximum(self.keys[row].astype(np.float64) @ self.asked.q_TIH[at].T, 0)
        return hits @ self.asked.weights_TI[at]


def test_latent_attention_of_ragged_rows():
    case = Case()
    np.testing.assert_allclose(case.run(), case.expected(), atol=2e-6)


@pytest.mark.parametrize("top_k", [1, 7, TOP_K, 1000])
def test_sparse_attention_of_ragged_rows(top_k):
    case = Case()
    np.testing.assert_allclose(case.run(top_k), case.expected(top_k), atol=2e-6)


def test_decoding_has_the_bits_of_prefill():
    """A row of 200 tokens in one step, and some of them alone, beside another row, in other buckets."""
    whole = Case(rows=((100, 200),), tokens=256)
    for top_k in (None, TOP_K):
        expected = whole.run(top_k)
        for position in (131, 256, 299):
            for tokens in (4, 64):
                alone = Case(rows=((position, 1), (40, 2)), tokens=tokens, seed=1)
                alone.latents[0], alone.keys[0] = whole.latents[0][: position + 1], whole.keys[0][: position + 1]
                alone.q[0] = whole.q[position - 100]
                for mine, theirs in zip(alone.asked, whole.asked, strict=True):
                    mine[0] = theirs[position - 100]
                np.testing.assert_array_equal(alone.run(top_k)[0], expected[position - 100])


def test_of_equal_scores_the_lower_position_wins():
    """All index keys equal, across blocks: the first positions are seen; a better one later goes before them."""
    case = Case(rows=((199, 1),), tokens=4)
    case.keys[0][:] = 1.0
    case.keys[0][170] = 2.0
    asked = IndexQueries(jnp.ones((4, INDEX_HEADS, INDEX_DIM)), jnp.ones((4, INDEX_HEADS)))
    keys, pages = jnp.asarray(case.pages(case.keys)), jnp.tile(case.table[0], (4, 1))
    chosen = sparse.select(asked, keys, jnp.asarray([199, 2, 130, -1]), pages, 5)
    assert chosen.tolist() == [[170, 0, 1, 2, 3], [0, 1, 2, -1, -1], [0, 1, 2, 3, 4], [-1] * 5]


def test_nothing_is_scored_where_every_position_is_seen():
    """Up to `top_k` positions the index keys are not read: they may be anything."""
    case = Case(rows=((TOP_K - 1, 1), (100, 20)), tokens=32)
    expected = case.run(TOP_K)
    case.keys = [np.full_like(keys, np.nan) for keys in case.keys]
    np.testing.assert_array_equal(case.run(TOP_K), expected)


@pytest.mark.parametrize("heads", [1, 3, 6])
def test_products_of_heads_do_not_depend_on_the_batch(heads):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((512, heads, 20)), rng.standard_normal((heads, 28, 20))
    x, w = x.astype(np.float32), w.astype(np.float32)
    whole = np.asarray(jax.jit(_per_head)(x, w))
    np.testing.assert_allclose(whole, np.einsum("tni,noi->tno", x, w), atol=1e-4)
    for tokens in (2, 3, 4, 8, 64, 130):
        np.testing.assert_array_equal(jax.jit(_per_head)(x[5 : 5 + tokens], w), whole[5 : 5 + tokens])


def test_what_a_position_costs(model_fixtures):
    """One latent, one rotated key and one index key per layer, whatever the number of heads."""
    config = models.load_config(model_fixtures / "deepseek_v32")
    assert models.cache_bytes_per_page(config, page_size=16, dtype="bfloat16") == 3 * 16 * 2 * (28 + 8 + 20)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("deepseek_v3", "kv_lora_rank", None),
        ("deepseek_v3", "attention_bias", True),
        ("deepseek_v3", "topk_method", "greedy"),
        ("deepseek_v3", "partial_rotary_factor", 0.5),
        ("deepseek_v3", "mlp_layer_types", ["dense", "sparse", "mixed"]),
        ("deepseek_v32", "index_topk", 0),
        ("deepseek_v32", "index_head_dim", 4),
        ("deepseek_v32", "indexer_types", ["full", "shared", "full"]),
    ],
)
def test_configurations_that_do_not_fit_are_named(name, field, value, model_fixtures, tmp_path):
    fields = json.loads((model_fixtures / name / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, field: value}))
    with pytest.raises(ModelLoadError, match=field):
        models.load_config(tmp_path)


@pytest.mark.parametrize(
    ("changed", "interleaved"),
    [({}, False), ({"indexer_rope_interleave": True}, True), ({"model_type": "glm_moe_dsa"}, True)],
)
def test_layout_of_the_indexers_rotation(changed, interleaved, model_fixtures, tmp_path):
    """Halves in DeepSeek, pairs in GLM, unless the configuration says; that of attention itself is in pairs."""
    fields = json.loads((model_fixtures / "deepseek_v32" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, **changed}))
    attention = models.load_config(tmp_path).layers[0].attention
    assert attention.indexer.interleaved is interleaved
    assert attention.rope.interleaved is True
