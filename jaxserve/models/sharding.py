"""Logical axes -> mesh axes: the one table, and the mesh.

Mesh axes: 'replica' copies attention, 'kv' splits key/value heads (and the cache), 'group' splits the query heads that
share one key/value head. Feed-forward width, vocabulary and experts are split over all three, so that 8 devices can
serve a model of 4 heads; axes that the experts' number does not use split their width. So are the heads of latent
attention, whose cache every device holds in full. A dimension that mesh axes do not divide drops them, left to right;
`ShardingRules.remarks` says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxserve.models.config import (
    AttentionSpec,
    LatentSpec,
    MlpSpec,
    ModelConfig,
    MoeSpec,
    WeightFormat,
    head_counts,
)

MESH_AXES = ("replica", "kv", "group")
LOGICAL_AXES: dict[str, tuple[str, ...]] = {
    "layers": (),
    "embed": (),
    "head_dim": (),
    "q_heads": ("kv", "group"),
    "kv_heads": ("kv",),
    "latent_heads": ("group", "kv", "replica"),
    "mlp": MESH_AXES,
    "expert": MESH_AXES,
    "expert_mlp": MESH_AXES,
    "vocab": MESH_AXES,
    "vision_heads": MESH_AXES,
    "vision_mlp": MESH_AXES,
}
"""What each logical axis of a parameter, activation or cache is split over."""

MeshShape = tuple[int, int, int]
Axes = tuple[str, ...]


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of axes ('replica', 'kv', 'group'), all `Auto`, over the first devices (default: all there are).

    Raises:
        ValueError: there are fewer devices than the mesh needs.
    """
    devices = jax.devices() if devices is None else devices
    count = math.prod(shape)
    if count > len(devices):
        raise ValueError(f"mesh {shape} needs {count} devices, there are {len(devices)}")
    grid = np.asarray(devices[:count], dtype=object).reshape(shape)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def derive_mesh_shape(config: ModelConfig, num_devices: int) -> MeshShape:
    """(replica, kv, group) over all devices: kv as large as divides K, then group where shards have one head."""
    heads = head_counts(config)
    kv = max(n for n in range(1, num_devices + 1) if num_devices % n == 0 and all(k % n == 0 for _, k in heads))
    rest = num_devices // kv
    group = max(n for n in range(1, rest + 1) if rest % n == 0 and _group_divides(heads, kv, n))
    return rest // group, kv, group


def _group_divides(heads: tuple[tuple[int, int], ...], kv: int, group: int) -> bool:
    """Whether query heads can be split `group` ways: then each shard must belong to exactly one key/value head."""
    return group == 1 or all(k == kv and (n // k) % group == 0 for n, k in heads)


@dataclass(frozen=True)
class ShardingRules:
    """The table, adapted to one model on one mesh. Hashable."""

    mesh: Mesh
    table: tuple[tuple[str, Axes], ...]
    remarks: tuple[str, ...]
    """What could not be split as the table wants, in sentences."""

    @classmethod
    def derive(cls, config: ModelConfig, mesh: Mesh) -> ShardingRules:
        """Drop the mesh axes that head counts, widths or the vocabulary do not allow."""
        sizes = {
            "vocab": [config.vocab_size],
            "mlp": _mlp_widths(config),
            "latent_heads": [n for n, _ in head_counts(config, LatentSpec)],
        }
        if config.vision is not None:
            sizes |= {
                "vision_heads": [config.vision.num_heads],
                "vision_mlp": [config.vision.inner, config.vision.joint_width],
            }
        table = dict(LOGICAL_AXES)
        heads = head_counts(config, AttentionSpec)
        kv = mesh.shape["kv"]
        dropped = [
            axis
            for axis, fits in (
                ("kv", all(k % kv == 0 for _, k in heads)),
                ("group", _group_divides(heads, kv, mesh.shape["group"])),
            )
            if not fits
        ]
        remarks = [
            f"mesh axis {axis!r} ({mesh.shape[axis]}) does not divide the attention heads: replicated"
            for axis in dropped
        ]
        for name in ("q_heads", "kv_heads"):
            table[name] = tuple(axis for axis in table[name] if axis not in dropped and mesh.shape[axis] > 1)
        for name, dims in sizes.items():
            table[name] = _dividing(dims, table[name], mesh)
            lost = [axis for axis in LOGICAL_AXES[name] if mesh.shape[axis] > 1 and axis not in table[name]]
            if lost:
                remarks.append(f"{name} of {', '.join(map(str, dims))} is not split over mesh axes {', '.join(lost)}")
        table["expert"], table["expert_mlp"], spare = _expert_axes(config, mesh)
        if spare:
            remarks.append(f"experts are not split over mesh axes {', '.join(spare)}: replicated")
        return cls(mesh, tuple(table.items()), tuple(remarks))

    def spec(self, axes: Sequence[str | None]) -> PartitionSpec:
        """Partition of an array with these logical axes (None = not split).

        Raises:
            ValueError: an unknown logical axis, or two dimensions that want the same mesh axis.
        """
        table = dict(self.table)
        unknown = [axis for axis in axes if axis is not None and axis not in table]
        if unknown:
            raise ValueError(f"unknown logical axis {unknown[0]!r}")
        parts = [table[axis] if axis else () for axis in axes]
        flat = [name for part in parts for name in part]
        if len(set(flat)) < len(flat):
            raise ValueError(f"logical axes {tuple(axes)} use a mesh axis twice: {flat}")
        return PartitionSpec(*(part or None for part in parts))

    def parts(self, axis: str | None) -> int:
        """Into how many parts a dimension with this logical axis is split."""
        return math.prod(self.mesh.shape[name] for name in (dict(self.table)[axis] if axis else ()))

    def sharding(self, axes: Sequence[str | None]) -> NamedSharding:
        """Like `spec`, on this mesh."""
        return NamedSharding(self.mesh, self.spec(axes))

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """Fix the sharding of an intermediate value inside a jitted function; without axes: replicated."""
        if self.mesh.size == 1:
            return x
        constrained: jax.Array = jax.lax.with_sharding_constraint(x, self.sharding(axes or (None,) * x.ndim))
        return constrained


def _mlp_widths(config: ModelConfig) -> list[int]:
    """Inner widths of the dense layers and shared experts."""
    mlps = [layer.mlp for layer in config.layers]
    widths = {mlp.width if isinstance(mlp, MlpSpec) else mlp.shared_width for mlp in mlps}
    return sorted(width for width in widths if width is not None)


def _expert_axes(config: ModelConfig, mesh: Mesh) -> tuple[Axes, Axes, Axes]:
    """Mesh axes for the number of experts, for their width, and those left over."""
    layers = [(layer, layer.mlp) for layer in config.layers if isinstance(layer.mlp, MoeSpec)]
    moes = [moe for _, moe in layers]
    if not moes:
        return (), (), ()
    expert = _dividing([moe.num_experts for moe in moes], MESH_AXES, mesh)
    rest = tuple(axis for axis in MESH_AXES if axis not in expert and mesh.shape[axis] > 1)
    width = _dividing([moe.width // _unit(layer.weights) for layer, moe in layers], rest, mesh)
    return expert, width, tuple(axis for axis in rest if axis not in width)


def _unit(weights: WeightFormat | None) -> int:
    """Neighbouring inputs that a device must hold together: a block where codes share bytes."""
    return (weights.block or 2) if weights is not None and weights.code == "e2m1" else 1


def _dividing(sizes: Sequence[int], axes: Axes, mesh: Mesh) -> Axes:
    """The axes, taken left to right, whose product divides every size."""
    kept: list[str] = []
    product = 1
    for axis in axes:
        size = mesh.shape[axis]
        if size > 1 and all(dim % (product * size) == 0 for dim in sizes):
            kept.append(axis)
            product *= size
    return tuple(kept)
