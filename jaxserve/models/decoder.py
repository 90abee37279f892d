"""The decoder: embedding, layers, final norm, output projection. Builds whatever a `ModelConfig` describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxserve.models.attention import Attention
from jaxserve.models.cache import Cache
from jaxserve.models.config import LayerGroup, LayerSpec, ModelConfig, RopeSpec, layer_groups
from jaxserve.models.metadata import AttentionMeta
from jaxserve.models.mlp import GatedMlp
from jaxserve.models.norm import RMSNorm
from jaxserve.models.parameters import Build, Init, contract
from jaxserve.models.rope import RopeTable, rope_table

LayerLoop = Literal["scan", "unroll"]
RopeTables = Mapping[RopeSpec, RopeTable]


class DecoderLayer(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, build: Build, spec: LayerSpec, width: int) -> None:
        self.attention_norm = RMSNorm(build, width)
        self.attention = Attention(build, spec.attention, width)
        self.mlp_norm = RMSNorm(build, width)
        self.mlp = GatedMlp(build, spec.mlp, width)
        self.spec = spec

    def __call__(
        self, x_TD: jax.Array, kv: jax.Array, meta: AttentionMeta, tables: RopeTables, first_page: jax.Array | int
    ) -> tuple[jax.Array, jax.Array]:
        """[T, D] -> [T, D] and the cache."""
        table = tables[self.spec.attention.rope]
        attended_TD, kv = self.attention(self.attention_norm(x_TD), kv, meta, table, first_page)
        x_TD = x_TD + attended_TD
        return x_TD + self.mlp(self.mlp_norm(x_TD)), kv


class DecoderGroup(nnx.Module):
    """A period of layers, run `repeats` times: by `lax.scan` over stacked parameters when it repeats."""

    def __init__(self, build: Build, group: LayerGroup, width: int) -> None:
        stacked = replace(build, stack=group.repeats if group.repeats > 1 else None)
        self.layers = nnx.List([DecoderLayer(stacked, spec, width) for spec in group.period])
        self.group = group

    def __call__(
        self, x_TD: jax.Array, kv: jax.Array, meta: AttentionMeta, tables: RopeTables, pages: int
    ) -> tuple[jax.Array, jax.Array]:
        """[T, D] -> [T, D] and the cache; `pages` are the pages of one layer.

        The cache is carried, not scanned over: as a carry it is updated in place.
        """
        group = self.group
        if group.repeats == 1:
            for member, layer in enumerate(self.layers):
                x_TD, kv = layer(x_TD, kv, meta, tables, group.layer(0, member) * pages)
            return x_TD, kv
        graphdef, state = nnx.split(self.layers)

        def body(
            carry: tuple[jax.Array, jax.Array], inputs: tuple[Any, jax.Array]
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            x, kv = carry
            first_page = (group.start + inputs[1] * len(group.period)) * pages
            layers: nnx.List[DecoderLayer] = nnx.merge(graphdef, inputs[0])
            for member, layer in enumerate(layers):
                x, kv = layer(x, kv, meta, tables, first_page + member * pages)
            return (x, kv), None

        repeats = jnp.arange(group.repeats, dtype=jnp.int32)
        (x_TD, kv), _ = lax.scan(body, (x_TD, kv), (state, repeats))
        return x_TD, kv


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

    def hidden(self, tokens_T: jax.Array, cache: Cache, meta: AttentionMeta) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Token ids -> last hidden states [T, D] after the final norm, and the cache with the new keys and values."""
        with jax.named_scope("embed"):
            x_TD = self.rules.constrain(jnp.take(self.embed[...], tokens_T, axis=0, mode="clip"))
        ropes = dict.fromkeys(layer.attention.rope for layer in self.config.layers)
        tables = {rope: rope_table(rope, meta.positions_T) for rope in ropes}
        kv = cache["kv"]
        pages = kv.shape[0] // self.config.num_layers
        for group in self.groups:
            x_TD, kv = group(x_TD, kv, meta, tables, pages)
        return self.norm(x_TD), {**cache, "kv": kv}

    def logits(self, hidden_RD: jax.Array) -> jax.Array:
        """Hidden states -> float32 logits [R, V], whole on every device."""
        with jax.named_scope("unembed"):
            weight = self.embed if self.lm_head is None else self.lm_head
            split_RV = self.rules.constrain(contract(hidden_RD, weight[...], jnp.float32), None, "vocab")
            return self.rules.constrain(split_RV)  # gathers the few logits; constrained at once, XLA gathers the table
