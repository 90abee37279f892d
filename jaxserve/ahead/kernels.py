"""What this project's TPU kernels move and compute in a step, by arithmetic: programs show them as calls only.

Attention reads whole pages, and tiles of 16 positions around each new one are read and written back. Experts' weights
are read once; their inputs once for each tile of outputs, padded to whole blocks of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from jaxserve.ahead.chips import Chip
from jaxserve.ahead.costs import Costs, Work
from jaxserve.models.config import LayerSpec, MoeSpec
from jaxserve.models.kernels.tpu_experts import output_tile
from jaxserve.models.kernels.tpu_matmul import block_rows, wave_blocks
from jaxserve.models.kernels.tpu_work import TILE
from jaxserve.models.weight_choice import EXPERTS

_BYTES = 2
"""Of an activation: bfloat16."""


@dataclass(frozen=True)
class KernelWork:
    """Of one device, in one step."""

    bytes: float
    flops: float

    def seconds(self, chip: Chip) -> float:
        """At the limit of the memory or of the matrix units."""
        return max(self.bytes / chip.bandwidth, self.flops / chip.flops)


def attention(costs: Costs, work: Work) -> KernelWork:
    """Writes and attention of all layers."""
    new = max(1, work.tokens // max(work.sequences, 1))
    written = 2 * costs.position_bytes * (ceil(new / TILE) * TILE) * work.sequences
    pages = costs.page_size * ceil(work.context / costs.page_size)
    read = costs.cache_read(Work(work.tokens, work.sequences, pages))
    windows = sum(
        costs.layer_position_bytes(layer.attention) * costs.page_size * work.sequences
        for layer in costs.blueprint.config.layers
        if layer.attention.window is not None
    )
    return KernelWork(read + windows + written, costs.attention_flops(work))


def experts(costs: Costs, work: Work) -> KernelWork:
    """The products of all experts."""
    layers = costs.blueprint.config.layers
    rows = sum(_rows_moved(costs, layer, layer.mlp, work) for layer in layers if isinstance(layer.mlp, MoeSpec))
    return KernelWork(costs.expert_weights_read(work) + rows, costs.expert_flops(work))


def _rows_moved(costs: Costs, layer: LayerSpec, moe: MoeSpec, work: Work) -> float:
    """Inputs and results of one layer's experts."""
    width = costs.blueprint.config.hidden_size
    inner = moe.width // costs.blueprint.rules.parts("expert_mlp")
    block, blocks = _blocks(costs, moe, work)
    form = dict(layer.formats).get(EXPERTS[0], layer.weights)
    bits = 16 if form is None else {"e2m1": 4}.get(form.code, 8)

    def product(inputs: int, outputs: int) -> float:
        tiles = ceil(outputs / output_tile(outputs, inputs * bits // 8))
        return block * blocks * (inputs * tiles + outputs)

    return _BYTES * (2 * product(width, inner) + product(inner, width))


def waves(costs: Costs, work: Work) -> int:
    """How often the loop over blocks of experts turns, on average."""
    moe = costs.moe
    if moe is None:
        return 1
    block, blocks = _blocks(costs, moe, work)
    return ceil(blocks / wave_blocks(block, costs.blueprint.config.hidden_size * _BYTES))


def _blocks(costs: Costs, moe: MoeSpec, work: Work) -> tuple[int, float]:
    """Rows of a block and the number of blocks of one device, when tokens choose evenly."""
    parts = costs.blueprint.rules.parts("expert")
    assignments, own = work.tokens * moe.top_k, moe.num_experts // parts
    block = block_rows(assignments, own)
    hit = own * costs.experts_hit(work.tokens)
    return block, hit * max(1, ceil(assignments / moe.num_experts / block))
