"""What a step of a model needs, by arithmetic: bytes that one device reads, operations, bytes between devices.

These are floors. A weight is read once a step whatever the batch; of experts those that some token is routed to, when
tokens choose evenly; of the embedding table the tokens' rows; of the cache every position that a query sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from jaxserve.ahead.chips import Chip
from jaxserve.models import cache_layout
from jaxserve.models.cache import position_bytes
from jaxserve.models.config import AttentionSpec, LatentSpec, LayerSpec, MoeSpec
from jaxserve.models.kernels.attention_backend import PageFormat
from jaxserve.models.model import Blueprint, Leaf
from jaxserve.models.weight_choice import held_formats

_EXPERTS = "mlp.experts."
_DTYPE_BYTES = 2
"""Of activations: bfloat16."""


@dataclass(frozen=True)
class Work:
    """A step, by sizes."""

    tokens: int
    """T."""
    sequences: int
    context: int
    """Positions that each of them has afterwards."""


@dataclass(frozen=True)
class Collective:
    """An exchange between devices, once for each of `times` a step."""

    kind: str
    where: str
    times: int
    bytes: int
    """Of the array that each device ends up with."""
    devices: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends a step, by the ring that needs fewest."""
        factor = {"all-reduce": 2.0, "all-gather": 1.0}[self.kind]
        return factor * (self.devices - 1) / self.devices * self.bytes * self.times


@dataclass(frozen=True)
class Costs:
    """The floors of a model on a mesh."""

    blueprint: Blueprint
    page_size: int
    dtype: str
    platform: str

    @cached_property
    def weight_bytes(self) -> int:
        """Parameters that one device holds."""
        return sum(map(self._bytes, self.blueprint.leaves))

    def _bytes(self, leaf: Leaf) -> int:
        return math.prod(self._part(leaf)) * int(leaf.value.dtype.itemsize)

    def _part(self, leaf: Leaf) -> tuple[int, ...]:
        sharding = leaf.value.sharding
        part: tuple[int, ...] = leaf.value.shape if sharding is None else sharding.shard_shape(leaf.value.shape)
        return part

    @cached_property
    def moe(self) -> MoeSpec | None:
        """Of the model's layers with experts; None = it has none."""
        return next((one.mlp for one in self.blueprint.config.layers if isinstance(one.mlp, MoeSpec)), None)

    def experts_hit(self, tokens: int) -> float:
        """Share of the experts that some of the tokens choose, when they choose evenly."""
        moe = self.moe
        return 1.0 if moe is None else 1.0 - (1.0 - moe.top_k / moe.num_experts) ** tokens

    @cached_property
    def _decoder(self) -> tuple[Leaf, ...]:
        leaves = self.blueprint.leaves
        return leaves[: len(leaves) - self.blueprint.tower_leaves]

    def weights_read(self, work: Work) -> float:
        """Bytes of parameters that one device reads in a step; image towers run on their own."""
        total = 0.0
        for leaf in self._decoder:
            size = float(self._bytes(leaf))
            if _EXPERTS in leaf.name:
                size *= self.experts_hit(work.tokens)
            elif leaf.name == "embed" and not self.blueprint.config.tie_embeddings:
                size *= min(1.0, work.tokens / leaf.value.shape[0])
            total += size
        return total

    @cached_property
    def _position_bytes(self) -> dict[AttentionSpec | LatentSpec, float]:
        """Bytes of one position of one layer on one device, for each kind of layer."""
        own, page = self.blueprint, PageFormat(self.page_size, self.dtype, self.platform)
        kinds = dict.fromkeys(layer.attention for layer in own.config.layers)
        return {spec: position_bytes(own.rules, own.backends, spec, page) for spec in kinds}

    def layer_position_bytes(self, spec: AttentionSpec | LatentSpec) -> float:
        """Bytes of one position of one such layer, on one device."""
        return self._position_bytes[spec]

    @cached_property
    def position_bytes(self) -> float:
        """Bytes of one position in the cache, over all layers, on one device."""
        return sum(self._position_bytes[layer.attention] for layer in self.blueprint.config.layers)

    @cached_property
    def page_bytes(self) -> int:
        """Bytes of one page of the pool on one device: it has room for the layers of one page group."""
        config = self.blueprint.config
        largest = max(self._position_bytes.values())
        return int(largest * cache_layout(config).slots * self.page_size)

    def cache_read(self, work: Work) -> float:
        """Bytes of the cache that one device reads in a step: once for each query block of 128."""
        new = max(1, work.tokens // max(work.sequences, 1))
        passes = -(-new // 128)
        seen = 0.0
        for layer in self.blueprint.config.layers:
            spec = layer.attention
            window = spec.window if spec.window is not None else work.context
            positions = min(work.context, window + new - 1)
            top_k = getattr(getattr(spec, "indexer", None), "top_k", None)
            positions = positions if top_k is None else min(positions, top_k)
            seen += self._position_bytes[spec] * positions * passes
        return seen * work.sequences

    def flops(self, work: Work) -> float:
        """Operations of one device: products with weights, and attention."""
        return 2.0 * sum(self._products(work)) + self.attention_flops(work)

    def attention_flops(self, work: Work) -> float:
        """Of `flops`, those of attention."""
        return sum(self._attention(layer, work) for layer in self.blueprint.config.layers)

    def expert_flops(self, work: Work) -> float:
        """Of `flops`, those of routed experts."""
        return 2.0 * sum(self._products(work, of_experts=True))

    def expert_weights_read(self, work: Work) -> float:
        """Of `weights_read`, those of routed experts."""
        hit = self.experts_hit(work.tokens)
        return hit * sum(self._bytes(leaf) for leaf in self._decoder if _EXPERTS in leaf.name)

    def _products(self, work: Work, *, of_experts: bool = False) -> Iterator[float]:
        """Multiplications of tokens with weights, or with those of routed experts only."""
        moe, config = self.moe, self.blueprint.config
        for leaf in self._decoder:
            matrix = len(leaf.value.shape) - leaf.stacked >= 2
            if not matrix or leaf.name.endswith("_scale") or (of_experts and _EXPERTS not in leaf.name):
                continue
            numbers = float(math.prod(self._part(leaf)))
            if leaf.value.dtype == "uint8" and self._two_in_a_byte:
                numbers *= 2
            if _EXPERTS in leaf.name and moe is not None:
                yield numbers * work.tokens * moe.top_k / moe.num_experts
            elif leaf.name == "lm_head" or (leaf.name == "embed" and config.tie_embeddings):
                yield numbers * work.sequences
            elif leaf.name != "embed":
                yield numbers * work.tokens

    @cached_property
    def _two_in_a_byte(self) -> bool:
        return any(form.code == "e2m1" for form in held_formats(self.blueprint.config))

    def _attention(self, layer: LayerSpec, work: Work) -> float:
        spec, rules = layer.attention, self.blueprint.rules
        new = max(1, work.tokens // max(work.sequences, 1))
        context = work.context - (new - 1) / 2
        seen = context if spec.window is None else min(context, spec.window)
        if isinstance(spec, LatentSpec):
            heads, width = spec.num_heads / rules.parts("latent_heads"), spec.head_dim + spec.kv_rank
        else:
            heads, width = spec.num_heads / rules.parts("q_heads"), 2 * spec.head_dim
        return 2.0 * heads * width * seen * work.tokens

    def collectives(self, work: Work) -> tuple[Collective, ...]:
        """What the devices of the mesh exchange in a step."""
        rules, config = self.blueprint.rules, self.blueprint.config
        if rules.mesh.size == 1:
            return ()
        hidden = work.tokens * config.hidden_size * _DTYPE_BYTES
        heads = "latent_heads" if isinstance(config.layers[0].attention, LatentSpec) else "q_heads"
        dense = sum(not isinstance(layer.mlp, MoeSpec) for layer in config.layers)
        experts = rules.parts("expert") * rules.parts("expert_mlp")
        logits = work.sequences * config.vocab_size * 4
        parts = [
            ("all-reduce", "attention", config.num_layers, hidden, rules.parts(heads)),
            ("all-reduce", "mlp", dense, hidden, rules.parts("mlp")),
            ("all-reduce", "experts", config.num_layers - dense, hidden, experts),
            ("all-reduce", "embedding", 1, hidden, rules.parts("vocab")),
            ("all-gather", "logits", 1, logits, rules.parts("vocab")),
        ]
        return tuple(Collective(*part) for part in parts if part[2] and part[4] > 1)


@dataclass(frozen=True)
class Bound:
    """How fast a step can be at best, and why."""

    memory: float
    """Seconds to read what it needs."""
    compute: float
    """Seconds of the matrix units."""
    links: float
    """Seconds of exchanges, if nothing overlaps them."""

    @property
    def seconds(self) -> float:
        """Exchanges come on top of what takes longer."""
        return max(self.memory, self.compute) + self.links

    @property
    def holds(self) -> str:
        """What it waits for most."""
        named = {"memory": self.memory, "compute": self.compute, "links": self.links}
        return max(named, key=lambda name: named[name])


def bound(costs: Costs, work: Work, chip: Chip) -> Bound:
    """The floor of one step."""
    return Bound(
        (costs.weights_read(work) + costs.cache_read(work)) / chip.bandwidth,
        costs.flops(work) / chip.flops,
        sum(one.sent for one in costs.collectives(work)) / chip.links,
    )
