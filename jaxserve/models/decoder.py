"""The decoder: embedding, layers, final norm, output projection. Builds whatever a `ModelConfig` describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxserve.models.attention import Attention
from jaxserve.models.cache import Cache
from jaxserve.models.config import LayerGroup, LayerSpec, ModelConfig, MoeSpec, RopeSpec, layer_groups
from jaxserve.models.metadata import AttentionMeta
from jaxserve.models.mlp import GatedMlp
from jaxserve.models.moe import Moe
from jaxserve.models.norm import RMSNorm
from jaxserve.models.parameters import Build, Init, contract
from jaxserve.models.rope import RopeTable, rope_table

LayerLoop = Literal["scan", "unroll"]
RopeTables = Mapping[RopeSpec, RopeTable]
Routing = tuple[jax.Array, ...]
"""Chosen experts of the MoE layers in their order, int32 [T, top_k] each; stacked [repeats, T, top_k] by a scan."""


class DecoderLayer(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with `post_norms`, what is added is normed too."""

    def __init__(self, build: Build, spec: LayerSpec, width: int) -> None:
        self.attention_norm = RMSNorm(build, width)
        self.attention = Attention(build, spec.attention, width)
        self.attention_post_norm = RMSNorm(build, width) if spec.post_norms else None
        self.mlp_norm = RMSNorm(build, width)
        self.mlp = (Moe if isinstance(spec.mlp, MoeSpec) else GatedMlp)(build, spec.mlp, width)  # type: ignore[arg-type]
        self.mlp_post_norm = RMSNorm(build, width) if spec.post_norms else None
        self.spec = spec

    def __call__(
        self, x_TD: jax.Array, kv: jax.Array, meta: AttentionMeta, table: RopeTable, first_page: jax.Array
    ) -> tuple[jax.Array, jax.Array, Routing]:
        """[T, D] -> [T, D], the cache, and the layer's routing."""
        y_TD, kv = self.attention(self.attention_norm(x_TD), kv, meta, table, first_page)
        x_TD = x_TD + (y_TD if self.attention_post_norm is None else self.attention_post_norm(y_TD))
        routing: Routing = ()
        if isinstance(self.mlp, Moe):
            y_TD, chosen_TA = self.mlp(self.mlp_norm(x_TD), meta.valid_T)
            routing = (chosen_TA,)
        else:
            y_TD = self.mlp(self.mlp_norm(x_TD))
        return x_TD + (y_TD if self.mlp_post_norm is None else self.mlp_post_norm(y_TD)), kv, routing


class DecoderGroup(nnx.Module):
    """A period of layers, run `repeats` times: by `lax.scan` over stacked parameters when it repeats."""

    def __init__(self, build: Build, group: LayerGroup, width: int) -> None:
        stacked = replace(build, stack=group.repeats if group.repeats > 1 else None)
        self.layers = nnx.List([DecoderLayer(stacked, spec, width) for spec in group.period])
        self.group = group

    def __call__(
        self, x_TD: jax.Array, kv: jax.Array, meta: AttentionMeta, tables: RopeTables, pages: int
    ) -> tuple[jax.Array, jax.Array, Routing]:
        """[T, D] -> [T, D], the cache, and the routing of the group's layers; `pages` are the pages of one layer.

        The cache is carried, not scanned over: as a carry it is updated in place.
        """
        group = self.group
        if group.repeats == 1:
            return _run(self.layers, x_TD, kv, meta, tables, group.start * pages, pages)
        graphdef, state = nnx.split(self.layers)

        def body(
            carry: tuple[jax.Array, jax.Array], inputs: tuple[Any, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], Routing]:
            first_page = (group.start + inputs[1] * len(group.period)) * pages
            x, kv, routing = _run(nnx.merge(graphdef, inputs[0]), *carry, meta, tables, first_page, pages)
            return (x, kv), routing

        repeats = jnp.arange(group.repeats, dtype=jnp.int32)
        (x_TD, kv), stacked = lax.scan(body, (x_TD, kv), (state, repeats))
        return x_TD, kv, tuple(chosen[repeat] for repeat in range(group.repeats) for chosen in stacked)


def _run(
    layers: nnx.List[DecoderLayer],
    x_TD: jax.Array,
    kv: jax.Array,
    meta: AttentionMeta,
    tables: RopeTables,
    first_page: jax.Array | int,
    pages: int,
) -> tuple[jax.Array, jax.Array, Routing]:
    """One pass through the layers of a period."""
    routing: Routing = ()
    for member, layer in enumerate(layers):
        graphdef, state = nnx.split(layer)
        table, page = tables[layer.spec.attention.rope], jnp.asarray(first_page + member * pages, jnp.int32)
        x_TD, kv, chosen = _layer(graphdef, state, x_TD, kv, meta, table, page)
        routing += chosen
    return x_TD, kv, routing


@partial(jax.jit, static_argnums=0)
def _layer(
    graphdef: Any,
    state: Any,
    x_TD: jax.Array,
    kv: jax.Array,
    meta: AttentionMeta,
    table: RopeTable,
    first_page: jax.Array,
) -> tuple[jax.Array, jax.Array, Routing]:
    """One layer, traced once for all layers alike: XLA inlines the call, Python spares most of a start's time."""
    layer: DecoderLayer = nnx.merge(graphdef, state)
    return layer(x_TD, kv, meta, table, first_page)


class Decoder(nnx.Module):
    """A decoder-only language model."""

    def __init__(self, build: Build, config: ModelConfig, layer_loop: LayerLoop) -> None:
        table = ((config.vocab_size, config.hidden_size), ("vocab", "embed"))
        self.embed = build.parameter(
            *table, Init("normal", 1.0 if not config.tie_embeddings else config.hidden_size**-0.5)
        )
        self.groups = nnx.List(
            [DecoderGroup(build, group, config.hidden_size) for group in layer_groups(config, layer_loop)]
        )
        self.norm = RMSNorm(build, config.hidden_size)
        self.lm_head = (
            None if config.tie_embeddings else build.parameter(*table, Init("normal", config.hidden_size**-0.5))
        )
        self.config, self.rules = config, build.rules

    def hidden(
        self, tokens_T: jax.Array, cache: Cache, meta: AttentionMeta
    ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array | None]:
        """Token ids -> hidden states [T, D] after the final norm, the cache, the routing.

        The cache holds the new keys and values; the routing is int32 [MoE layers, T, top_k], None for a dense model.
        """
        with jax.named_scope("embed"):
            x_TD = self.rules.constrain(jnp.take(self.embed[...], tokens_T, axis=0, mode="clip"))
            if self.config.embed_scale != 1.0:
                x_TD = x_TD * jnp.asarray(self.config.embed_scale, x_TD.dtype)
        ropes = dict.fromkeys(layer.attention.rope for layer in self.config.layers)
        tables = {rope: rope_table(rope, meta.positions_T) for rope in ropes}
        kv = cache["kv"]
        pages = kv.shape[0] // self.config.num_layers
        routing: Routing = ()
        for group in self.groups:
            x_TD, kv, chosen = group(x_TD, kv, meta, tables, pages)
            routing += chosen
        return self.norm(x_TD), {**cache, "kv": kv}, jnp.stack(routing) if routing else None

    def logits(self, hidden_RD: jax.Array) -> jax.Array:
        """Hidden states -> float32 logits [R, V], whole on every device."""
        with jax.named_scope("unembed"):
            weight = self.embed if self.lm_head is None else self.lm_head
            split_RV = self.rules.constrain(contract(hidden_RD, weight[...], jnp.float32), None, "vocab")
            logits_RV = self.rules.constrain(split_RV)  # gathers the few logits; at once, XLA would gather the table
            cap = self.config.logit_softcap
            return logits_RV if cap is None else cap * jnp.tanh(logits_RV / cap)
