"""The decoder: embedding, layers, final norm, output projection. Builds whatever a `ModelConfig` describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxserve.models.attention import Attention
from jaxserve.models.cache import Cache
from jaxserve.models.choice import choose
from jaxserve.models.config import (
    AttentionSpec,
    LatentSpec,
    LayerGroup,
    LayerSpec,
    ModelConfig,
    MoeSpec,
    RopeSpec,
    WeightFormat,
)
from jaxserve.models.kernels.attention_backend import AttentionShape, LayerBatch
from jaxserve.models.layout import LayerLoop, Place, cache_layout, layer_loops
from jaxserve.models.memory_order import ROWS, Order
from jaxserve.models.metadata import ImageMeta, StepMeta
from jaxserve.models.mla import LatentAttention
from jaxserve.models.mlp import GatedMlp
from jaxserve.models.moe import Moe
from jaxserve.models.norm import RMSNorm
from jaxserve.models.parameters import Build, Init
from jaxserve.models.quantization import Weight
from jaxserve.models.rope import RopeTable, rope_table
from jaxserve.models.sharding import ShardingRules

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
        self.spec, self.rules, self.build = spec, build.rules, build

    def __call__(
        self,
        x_TD: jax.Array,
        cache: Cache,
        batch: LayerBatch,
        table: RopeTable,
        feature_TD: jax.Array | None = None,
        stacked: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
        """[T, D] -> [T, D], the cache, and the layer's routing.

        `feature_TD` joins the residual stream at the end; `stacked` as in `Moe`.
        """
        y_TD, kept = self.attention(self.attention_norm(x_TD), cache, batch, table)
        x_TD = x_TD + (y_TD if self.attention_post_norm is None else self.attention_post_norm(y_TD))
        routing: Routing = ()
        if isinstance(self.mlp, Moe):
            y_TD, chosen_TA = self.mlp(self.mlp_norm(x_TD), batch.meta.valid_T, stacked)
            routing = (chosen_TA,)
        else:
            y_TD = self.mlp(self.mlp_norm(x_TD))
        x_TD = x_TD + (y_TD if self.mlp_post_norm is None else self.mlp_post_norm(y_TD))
        return x_TD if feature_TD is None else x_TD + feature_TD, kept, routing


class DecoderGroup(nnx.Module):
    """A period of layers, run `repeats` times.

    Its parameters are stacked and scanned over; or lie apart, and a loop chooses them by the layer's number
    (`choice.py`), where all layers can be chosen so; or lie apart and are used one layer after the other.
    """

    def __init__(self, build: Build, group: LayerGroup, width: int, *, stacked: bool) -> None:
        specs = group.period if stacked else group.period * group.repeats
        build = replace(build, stack=group.repeats if stacked and group.repeats > 1 else None)
        self.layers = nnx.List([DecoderLayer(build, spec, width) for spec in specs])
        self.group, self.stacked = group, stacked
        self.chosen = not stacked and build.rules.mesh.size == 1 and all(map(_can_be_chosen, group.period))

    def __call__(
        self, x_TD: jax.Array, cache: dict[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
        """[T, D] -> [T, D], the cache, and the routing of the group's layers.

        The cache is carried, not scanned over: as a carry it is updated in place.
        """
        group, size = self.group, len(self.group.period)
        if group.repeats > 1 and self.stacked:
            return self._scan(x_TD, cache, batch)
        if group.repeats > 1 and self.chosen:
            return self._choose(x_TD, cache, batch)
        routing: Routing = ()
        for repeat in range(group.repeats):
            own = self.layers[size * repeat : size * (repeat + 1)]
            x_TD, cache, chosen = _run(own, x_TD, cache, batch, group, repeat)
            routing += chosen
        return x_TD, cache, routing

    def _scan(
        self, x_TD: jax.Array, cache: dict[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
        """One body over stacked parameters."""
        group = self.group
        graphdef, whole, state = nnx.split(self.layers, self._whole, ...)  # type: ignore[misc]

        def body(
            carry: tuple[jax.Array, dict[str, jax.Array]], inputs: tuple[Any, jax.Array]
        ) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Routing]:
            layers = nnx.merge(graphdef, whole, inputs[0])
            x, cache, routing = _run(layers, *carry, batch, group, inputs[1], stacked=bool(jax.tree.leaves(whole)))
            return (x, cache), routing

        repeats = jnp.arange(group.repeats, dtype=jnp.int32)
        (x_TD, cache), stacked = lax.scan(body, (x_TD, cache), (state, repeats))
        return x_TD, cache, tuple(chosen[repeat] for repeat in range(group.repeats) for chosen in stacked)

    def _choose(
        self, x_TD: jax.Array, cache: dict[str, jax.Array], batch: Batch
    ) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
        """One body that chooses each repetition's parameters where they lie. Such layers route nothing."""
        group, size = self.group, len(self.group.period)
        parts = [nnx.split(layer) for layer in self.layers]

        def body(
            repeat: jax.Array, carry: tuple[jax.Array, dict[str, jax.Array]]
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            states = [choose([state for _, state in parts[member::size]], repeat) for member in range(size)]
            layers = [nnx.merge(graphdef, state) for (graphdef, _), state in zip(parts[:size], states, strict=True)]
            x, cache, _ = _run(layers, *carry, batch, group, repeat)
            return x, cache

        x_TD, cache = lax.fori_loop(0, group.repeats, body, (x_TD, cache))
        return x_TD, cache, ()

    def _whole(self, path: tuple[Any, ...], value: Any) -> bool:
        """Parameters that are not sliced by the scan: of experts, where the backend indexes them itself."""
        wanted = self.layers[0].build.backends.matmul.stacked_experts
        return wanted and "experts" in path and path[-1] in ("weight", "weight_scale")


def _can_be_chosen(spec: LayerSpec) -> bool:
    """Whether all matrices of a layer are used by `Linear` only."""
    return not isinstance(spec.attention, LatentSpec) and not isinstance(spec.mlp, MoeSpec)


@dataclass(frozen=True)
class Batch:
    """What all layers of a step share."""

    meta: StepMeta
    tables: Mapping[RopeSpec, RopeTable]
    places: tuple[Place, ...]
    """Of every layer of the model."""
    work: Mapping[tuple[int, AttentionShape], Any]
    """What the attention backend prepared for each page group and shape of attention in it."""
    pages: int
    """P: pages of the pool."""
    features_FTD: jax.Array | None = None
    """What the first F layers add to the tokens of images, zero for others; None = nothing."""

    def of_layers(self, numbers: Sequence[int], chosen: jax.Array | int, shape: AttentionShape) -> LayerBatch:
        """The batch as layer `numbers[chosen]` sees it; these layers are alike and in one page group."""
        group = self.places[numbers[0]].group
        slots = jnp.asarray([self.places[number].slot for number in numbers], jnp.int32)
        first_page = slots[jnp.asarray(chosen)] * self.pages
        return LayerBatch(self.meta.of_group(group), self.work[group, shape], first_page)


def attention_shape(spec: AttentionSpec | LatentSpec, rules: ShardingRules) -> AttentionShape:
    """The part of a layer's attention that one device computes."""
    if isinstance(spec, LatentSpec):
        top_k = None if spec.indexer is None else spec.indexer.top_k
        heads = spec.num_heads // rules.parts("latent_heads")
        return AttentionShape(heads, 1, spec.head_dim, spec.kv_rank, None, top_k)
    heads, kv_heads = spec.num_heads // rules.parts("q_heads"), spec.num_kv_heads // rules.parts("kv_heads")
    return AttentionShape(heads, kv_heads, spec.head_dim, spec.head_dim, spec.window)


def _run(
    layers: Sequence[DecoderLayer],
    x_TD: jax.Array,
    cache: dict[str, jax.Array],
    batch: Batch,
    group: LayerGroup,
    repeat: jax.Array | int,
    *,
    stacked: bool = False,
) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
    """One pass through the layers of a period; `stacked`: their experts' weights are those of all repeats."""
    routing: Routing = ()
    for member, layer in enumerate(layers):
        graphdef, state = nnx.split(layer)
        table = batch.tables[layer.spec.attention.rope]
        numbers = [group.layer(one, member) for one in range(group.repeats)]
        own = batch.of_layers(numbers, repeat, attention_shape(layer.spec.attention, layer.rules))
        feature_TD = None
        if layer.spec.adds_features and batch.features_FTD is not None:
            feature_TD = batch.features_FTD[jnp.asarray(numbers)[repeat]]
        which = jnp.asarray(repeat) if stacked else None
        x_TD, cache, chosen = _layer(graphdef, state, x_TD, cache, own, table, feature_TD, which)
        routing += chosen
    return x_TD, cache, routing


@partial(jax.jit, static_argnums=0)
def _layer(
    graphdef: Any,
    state: Any,
    x_TD: jax.Array,
    cache: dict[str, jax.Array],
    batch: LayerBatch,
    table: RopeTable,
    feature_TD: jax.Array | None,
    stacked: jax.Array | None,
) -> tuple[jax.Array, dict[str, jax.Array], Routing]:
    """One layer, traced once for all layers alike: XLA inlines the call, Python spares most of a start's time."""
    layer: DecoderLayer = nnx.merge(graphdef, state)
    return layer(x_TD, cache, batch, table, feature_TD, stacked)


class Decoder(nnx.Module):
    """A decoder-only language model."""

    def __init__(self, build: Build, config: ModelConfig, layer_loop: LayerLoop) -> None:
        small = config.hidden_size**-0.5
        self.embed, embed_scale = _table(
            build, config, config.embed_weights, small if config.tie_embeddings else 1.0, ROWS
        )
        self.embed_scale = nnx.data(embed_scale)
        self.groups = nnx.List(
            [
                DecoderGroup(build, group, config.hidden_size, stacked=layer_loop == "scan")
                for group in layer_loops(config, layer_loop)
            ]
        )
        self.norm = RMSNorm(build, config.hidden_size)
        head, head_scale = (None, None) if config.tie_embeddings else _table(build, config, config.head_weights, small)
        self.lm_head, self.lm_head_scale = nnx.data(head), nnx.data(head_scale)
        self.config, self.rules, self.backends, self.dtype = config, build.rules, build.backends, build.dtype

    def hidden(
        self, tokens_T: jax.Array, cache: Cache, meta: StepMeta, images: ImageMeta | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array | None]:
        """Token ids -> hidden states [T, D] after the final norm, the cache, the routing.

        The cache holds the new keys and values; the routing is int32 [MoE layers, T, top_k], None for a dense model.
        """
        with jax.named_scope("embed"):
            x_TD = self.rules.constrain(self._embedding().rows(tokens_T, self.dtype))
            if self.config.embed_scale != 1.0:
                x_TD = x_TD * jnp.asarray(self.config.embed_scale, x_TD.dtype)
        features_FTD = None
        if images is not None:
            x_TD, features_FTD = map(self.rules.constrain, with_images(x_TD, images))
            meta = meta if images.lasts_T is None else meta.seeing(images.lasts_T)
        ropes = dict.fromkeys(layer.attention.rope for layer in self.config.layers)
        positions = meta.first.positions_T if images is None or images.rotary_AT is None else images.rotary_AT
        tables = {rope: rope_table(rope, positions) for rope in ropes}
        layout, kept = cache_layout(self.config), dict(cache)
        pages = next(iter(kept.values())).shape[0] // layout.slots
        batch = Batch(meta, tables, layout.places(), self._prepare(meta), pages, features_FTD)
        routing: Routing = ()
        for group in self.groups:
            x_TD, kept, chosen = group(x_TD, kept, batch)
            routing += chosen
        return self.norm(x_TD), kept, jnp.stack(routing) if routing else None

    def _embedding(self) -> Weight:
        scale = None if self.embed_scale is None else self.embed_scale[...]
        return Weight(self.embed[...], scale, self.config.embed_weights)

    def _head(self, values: nnx.Param[jax.ShapeDtypeStruct]) -> Weight:
        scale = None if self.lm_head_scale is None else self.lm_head_scale[...]
        return Weight(values[...], scale, self.config.head_weights)

    def _prepare(self, meta: StepMeta) -> dict[tuple[int, AttentionShape], Any]:
        """The attention backend's work, once for each page group and shape of attention in it."""
        attention, places = self.backends.attention, cache_layout(self.config).places()
        layers = zip(places, self.config.layers, strict=True)
        wanted = dict.fromkeys((place.group, attention_shape(spec.attention, self.rules)) for place, spec in layers)
        with jax.named_scope("prepare"):
            return {(group, shape): attention.prepare(meta.of_group(group), shape) for group, shape in wanted}

    def logits(self, hidden_RD: jax.Array) -> jax.Array:
        """Hidden states -> float32 logits [R, V], whole on every device."""
        with jax.named_scope("unembed"):
            weight = self._embedding() if self.lm_head is None else self._head(self.lm_head)
            multiply, local = self.backends.matmul.multiply, self.rules.mesh.size == 1
            split_RV = multiply(hidden_RD, weight, jnp.float32, local=local)
            split_RV = self.rules.constrain(split_RV, None, "vocab")
            logits_RV = self.rules.constrain(split_RV)  # gathers the few logits; at once, XLA would gather the table
            cap = self.config.logit_softcap
            return logits_RV if cap is None else cap * jnp.tanh(logits_RV / cap)


def _table(
    build: Build, config: ModelConfig, form: WeightFormat | None, std: float, order: Order | None = None
) -> tuple[nnx.Param[jax.ShapeDtypeStruct], nnx.Param[jax.ShapeDtypeStruct] | None]:
    """Declare a matrix [V, D] as it is held: values or codes, and scales."""
    shape, axes = (config.vocab_size, config.hidden_size), ("vocab", "embed")
    return (
        (build.parameter(shape, axes, Init("normal", std), order=order), None)
        if form is None
        else build.weight(shape, axes, form, order=order)
    )


def with_images(x_TD: jax.Array, images: ImageMeta) -> tuple[jax.Array, jax.Array]:
    """Embeddings with those of images in their places, and the features [F, T, D] that the first F layers add."""
    with jax.named_scope("images"):
        found_TFD = images.pool[images.rows_T].reshape(x_TD.shape[0], -1, x_TD.shape[1]).astype(x_TD.dtype)
        is_image_T1 = images.rows_T[:, None] > 0
        features_FTD = jnp.where(is_image_T1, jnp.moveaxis(found_TFD[:, 1:], 1, 0), 0)
        return jnp.where(is_image_T1, found_TFD[:, 0], x_TD), features_FTD
