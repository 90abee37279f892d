"""The step: two jitted functions that every batch runs through.

`forward` runs the model over the packed tokens and updates the KV pages in place; `sample` turns the samples' logits
into tokens and updates the slot state in place. They are separate programs so that a grammar's mask for this step can
be computed on the host while the forward pass runs. `score` adds log-probabilities of prompt tokens where asked for.
`encode` puts an image's embeddings where `forward` finds them. All are pure; static shapes come from the `Layout`s.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxserve import models
from jaxserve.engine.batch import Layout
from jaxserve.engine.image_batch import ImageLayout
from jaxserve.sampling import pipeline
from jaxserve.sampling.logprobs import score_prompt
from jaxserve.sampling.packing import unpack_rows
from jaxserve.sampling.rule import Rule
from jaxserve.sampling.state import SlotState

Cache = dict[str, jax.Array]


class ForwardResult(NamedTuple):
    """What the forward pass of one step leaves on the device."""

    cache: Cache
    """The donated cache, updated."""
    hidden_TD: jax.Array
    """After the final norm; for `score`."""
    hidden_ND: jax.Array
    """Of the samples' tokens."""
    logits_NV: jax.Array
    """float32; garbage for unused samples."""
    samples_NC: jax.Array
    """The batch's samples, for `sample`: so that its program depends on N only, not on T."""
    routing: jax.Array | None
    """Routed experts of the samples' tokens; None for dense models."""


def forward(
    layout: Layout,
    page_size: int,
    graphdef: Any,
    leaves: list[jax.Array],
    cache: Cache,
    last_token_S: jax.Array,
    buffer: jax.Array,
    pool: jax.Array | None = None,
) -> ForwardResult:
    """Runs the model over one packed batch.

    Args:
        layout: static shape of `buffer`.
        page_size: static; positions per KV page.
        graphdef: static structure of the model.
        leaves: its parameters.
        cache: KV pages, donated.
        last_token_S: the token each slot sampled last.
        buffer: [layout.size] int32, see `batch`.
        pool: embeddings of images, of a model that reads them.
    """
    with jax.named_scope("unpack"):
        batch = layout.split(buffer)
        meta = models.StepMeta.from_rows(batch.cu_q_lens, batch.kv_lens_R, batch.page_tables, layout.tokens, page_size)
        in_flight_T = last_token_S[batch.slots_R[meta.first.rows_T]]
        tokens_T = jnp.where(batch.tokens_T < 0, in_flight_T, batch.tokens_T)
        tokens_N = unpack_rows(batch.samples_NC).token
    with jax.named_scope("forward"):
        images = None
        if pool is not None and batch.image_rows_T is not None:
            images = models.ImageMeta(pool, batch.image_rows_T, batch.rotary_AT, batch.image_lasts_T)
        out = models.forward(graphdef, leaves, tokens_T, cache, meta, tokens_N, images)
    return ForwardResult(out.cache, out.hidden_TD, out.hidden_ND, out.logits_NV, batch.samples_NC, out.routing)


def sample(
    rule: Rule | None, state: SlotState, logits_NV: jax.Array, samples_NC: jax.Array, bitmask_NW: jax.Array
) -> tuple[SlotState, jax.Array]:
    """Draws one token for each sample.

    Args:
        rule: static; see `sampling.rule`.
        state: slot state, donated.
        logits_NV: from `forward`.
        samples_NC: from `forward`.
        bitmask_NW: allowed tokens, one bit each; read only for samples that say so.

    Returns:
        The new slot state, and the packed results `sampling.packing` unpacks on the host.
    """
    with jax.named_scope("sample"):
        return pipeline.sample(state, logits_NV, samples_NC, bitmask_NW, rule)


def score(graphdef: Any, leaves: list[jax.Array], hidden_TD: jax.Array, targets_T: jax.Array) -> jax.Array:
    """Log-probabilities of the next prompt tokens (`targets_T`; -1 = not wanted), packed; never holds [T, V]."""
    with jax.named_scope("score"):
        return score_prompt(hidden_TD, lambda hidden: models.unembed(graphdef, leaves, hidden), targets_T)


def encode(layout: ImageLayout, graphdef: Any, leaves: list[jax.Array], pool: jax.Array, words: jax.Array) -> jax.Array:
    """Runs an image through the tower and writes its embeddings to the pool.

    Args:
        layout: static shape of `words`.
        graphdef: static structure of the tower.
        leaves: its parameters.
        pool: [E, (1 + taps) * D], donated.
        words: [layout.size] int32, see `image_batch`.

    Returns:
        The pool.
    """
    image, targets_M = layout.unpack(words)
    rows_MW = models.embed_image(graphdef, leaves, image)
    return pool.at[targets_M].set(rows_MW.astype(pool.dtype))
