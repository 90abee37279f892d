"""The decoder: embedding, layers, final norm, output projection. Builds whatever a `ModelConfig` describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxserve.models.attention import Attention
from jaxserve.models.cache import Cache
from jaxserve.models.config import LatentSpec, LayerGroup, LayerSpec, ModelConfig, MoeSpec, RopeSpec, layer_groups
from jaxserve.models.layout import Place, cache_layout
from jaxserve.models.metadata import AttentionMeta, StepMeta
from jaxserve.models.mla import LatentAttention
from jaxserve.models.mlp import GatedMlp
from jaxserve.models.moe import Moe
from jaxserve.models.norm import RMSNorm
from jaxserve.models.parameters import Build, Init, contract
from jaxserve.models.rope import RopeTable, rope_table

LayerLoop = Literal["scan", "unroll"]
Routing = tuple[jax.Array, ...]
"""Chosen experts of the MoE layers in their order, int32 [T, top_k] each; stacked [repeats, T, top_k] by a scan."""


class DecoderLayer(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with `post_norms`, what is added is normed too."""

    def __init__(self, build: Build, spec: LayerSpec, width: int) -> None:
        self.attention_norm = RMSNorm(build, width)
        attention = LatentAttention if isinstance(spec.attention, LatentSpec) else Attention
        self.attention = attention(build, spec.attention, width)  # type: ignore[arg-type]
        self.attention_post_norm = RMSNorm(build, width) if spec.post_norms else None
        self.mlp_norm = RMSNorm(build, width)
        self.mlp = (Moe if isinstance(spec.mlp, MoeSpec) else GatedMlp)(build, spec.mlp, width)  # type: ignore[arg-type]
        self.mlp_post_norm = RMSNorm(build, width) if spec.post_norms else None
        self.spec = spec

    def __call__(
        self, x_TD: jax.Array, cache: Cache, meta: AttentionMeta, table: RopeTable, first_page: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
        """[T, D] -> [T, D], the cache, and the layer's routing."""
        y_TD, kept = self.attention(self.attention_norm(x_TD), cache, meta, table, first_page)
        x_TD = x_TD + (y_TD if self.attention_post_norm is None else self.attention_post_norm(y_TD))
        routing: Routing = ()
        if isinstance(self.mlp, Moe):
            y_TD, chosen_TA = self.mlp(self.mlp_norm(x_TD), meta.valid_T)
            routing = (chosen_TA,)
        else:
            y_TD = self.mlp(self.mlp_norm(x_TD))
        return x_TD + (y_TD if self.mlp_post_norm is None else self.mlp_post_norm(y_TD)), kept, routing


class DecoderGroup(nnx.Module):
    """A period of layers, run `repeats` times: by `lax.scan` over stacked parameters when it repeats."""

    def __init__(self, build: Build, group: LayerGroup, width: int) -> None:
        stacked = replace(build, stack=group.repeats if group.repeats > 1 else None)
        self.layers = nnx.List([DecoderLayer(stacked, spec, width) for spec in group.period])
        self.group = group

    def __call__(
        self, x_TD: jax.Array, cache: dict[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
        """[T, D] -> [T, D], the cache, and the routing of the group's layers.

        The cache is carried, not scanned over: as a carry it is updated in place.
        """
        group = self.group
        if group.repeats == 1:
            return _run(self.layers, x_TD, cache, batch, group, 0)
        graphdef, state = nnx.split(self.layers)

        def body(
            carry: tuple[jax.Array, dict[str, jax.Array]], inputs: tuple[Any, jax.Array]
        ) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Routing]:
            x, cache, routing = _run(nnx.merge(graphdef, inputs[0]), *carry, batch, group, inputs[1])
            return (x, cache), routing

        repeats = jnp.arange(group.repeats, dtype=jnp.int32)
        (x_TD, cache), stacked = lax.scan(body, (x_TD, cache), (state, repeats))
        return x_TD, cache, tuple(chosen[repeat] for repeat in range(group.repeats) for chosen in stacked)


@dataclass(frozen=True)
class Batch:
    """What all layers of a step share."""

    meta: StepMeta
    tables: Mapping[RopeSpec, RopeTable]
    places: tuple[Place, ...]
    """Of every layer of the model."""
    pages: int
    """P: pages of the pool."""

    def of_layers(self, numbers: Sequence[int], chosen: jax.Array | int) -> tuple[AttentionMeta, jax.Array]:
        """Metadata and first page of layer `numbers[chosen]`; these layers have one kind of attention."""
        places = [self.places[number] for number in numbers]
        slots = jnp.asarray([place.slot for place in places], jnp.int32)
        index = jnp.asarray(chosen)
        return self.meta.of_one([place.group for place in places], index), slots[index] * self.pages


def _run(
    layers: nnx.List[DecoderLayer],
    x_TD: jax.Array,
    cache: dict[str, jax.Array],
    batch: Batch,
    group: LayerGroup,
    repeat: jax.Array | int,
) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
    """One pass through the layers of a period."""
    routing: Routing = ()
    for member, layer in enumerate(layers):
        graphdef, state = nnx.split(layer)
        table = batch.tables[layer.spec.attention.rope]
        numbers = [group.layer(one, member) for one in range(group.repeats)]
        meta, first_page = batch.of_layers(numbers, repeat)
        x_TD, cache, chosen = _layer(graphdef, state, x_TD, cache, meta, table, first_page)
        routing += chosen
    return x_TD, cache, routing


@partial(jax.jit, static_argnums=0)
def _layer(
    graphdef: Any,
    state: Any,
    x_TD: jax.Array,
    cache: dict[str, jax.Array],
    meta: AttentionMeta,
    table: RopeTable,
    first_page: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
    """One layer, traced once for all layers alike: XLA inlines the call, Python spares most of a start's time."""
    layer: DecoderLayer = nnx.merge(graphdef, state)
    return layer(x_TD, cache, meta, table, first_page)


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
        self, tokens_T: jax.Array, cache: Cache, meta: StepMeta
    ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array | None]:
        """Token ids -> hidden states [T, D] after the final norm, the cache, the routing.

        The cache holds the new keys and values; the routing is int32 [MoE layers, T, top_k], None for a dense model.
        """
        with jax.named_scope("embed"):
            x_TD = self.rules.constrain(jnp.take(self.embed[...], tokens_T, axis=0, mode="clip"))
            if self.config.embed_scale != 1.0:
                x_TD = x_TD * jnp.asarray(self.config.embed_scale, x_TD.dtype)
        ropes = dict.fromkeys(layer.attention.rope for layer in self.config.layers)
        tables = {rope: rope_table(rope, meta.first.positions_T) for rope in ropes}
        layout, kept = cache_layout(self.config), dict(cache)
        pages = next(iter(kept.values())).shape[0] // layout.slots
        batch = Batch(meta, tables, layout.places(), pages)
        routing: Routing = ()
        for group in self.groups:
            x_TD, kept, chosen = group(x_TD, kept, batch)
            routing += chosen
        return self.norm(x_TD), kept, jnp.stack(routing) if routing else None

    def logits(self, hidden_RD: jax.Array) -> jax.Array:
        """Hidden states -> float32 logits [R, V], whole on every device."""
        with jax.named_scope("unembed"):
            weight = self.embed if self.lm_head is None else self.lm_head
            split_RV = self.rules.constrain(contract(hidden_RD, weight[...], jnp.float32), None, "vocab")
            logits_RV = self.rules.constrain(split_RV)  # gathers the few logits; at once, XLA would gather the table
            cap = self.config.logit_softcap
            return logits_RV if cap is None else cap * jnp.tanh(logits_RV / cap)
