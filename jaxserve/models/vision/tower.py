"""An image tower: patches of one image to the embeddings of its tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxserve.models.layout import LayerLoop
from jaxserve.models.parameters import Build, Init, Linear
from jaxserve.models.rope import RopeTable
from jaxserve.models.vision.blocks import JOINTS, Merger, VisionBlock, run_block, tower_norm
from jaxserve.models.vision.spec import VisionSpec


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Patches:
    """The patches of one image, padded to a static number P: a multiple of `VisionSpec.block`."""

    pixels_PI: jax.Array
    """float32 [P, inputs]: normalised; channel, frame, row, column."""
    rows_P: jax.Array
    """int32: row of each patch in the image."""
    columns_P: jax.Array
    windows_P: jax.Array
    """int32: its window; -1 = padding, which comes last."""
    size_2: jax.Array
    """int32: rows and columns of the image, in patches."""


@dataclass(frozen=True)
class BlockRun:
    """Blocks alike that follow one another; more than one are looped over."""

    first: int
    count: int
    windowed: bool


def block_runs(spec: VisionSpec, loop: LayerLoop) -> tuple[BlockRun, ...]:
    """Cut the blocks where attention changes and where features are taken (scan), or one by one (unroll)."""
    runs: list[BlockRun] = []
    for block in range(spec.depth):
        windowed = spec.attends_within_windows(block)
        last = runs[-1] if runs else None
        if last is None or loop != "scan" or last.windowed != windowed or block - 1 in spec.taps:
            runs.append(BlockRun(block, 1, windowed))
        else:
            runs[-1] = replace(last, count=last.count + 1)
    return tuple(runs)


class Tower(nnx.Module):
    """A vision transformer of which everything is optional that `VisionSpec` says is."""

    def __init__(self, build: Build, spec: VisionSpec, width: int, loop: LayerLoop) -> None:
        table = Init("normal", spec.width**-0.5)
        self.patch = Linear(build, spec.inputs, spec.width, (None, None), bias=spec.patch_bias)
        self.class_token = build.parameter((spec.width,), (None,), table) if spec.class_token else None
        places = {"none": 0, "table": (spec.side or 0) ** 2 + spec.class_token, "interpolated": spec.positions_side**2}
        count = places[spec.positions]
        self.positions = build.parameter((count, spec.width), (None, None), table) if count else None
        self.first_norm = tower_norm(build, spec, spec.width) if spec.first_norm else None
        self.runs = block_runs(spec, loop)
        stacks = [replace(build, stack=run.count if run.count > 1 else None) for run in self.runs]
        self.blocks = nnx.List([VisionBlock(stacked, spec) for stacked in stacks])
        self.last_norm = tower_norm(build, spec, spec.width) if spec.last_norm else None
        self.joint = JOINTS[spec.joint](build, spec, width)
        self.taps = nnx.List([Merger(build, spec, width, whole=True) for _ in spec.taps])
        self.spec, self.dtype = spec, build.dtype

    def __call__(self, image: Patches) -> jax.Array:
        """An image -> embeddings [M, (1 + taps) * width of the decoder], of the patches in their order.

        The first part of a row is the embedding, the others are added after the decoder's first layers.
        """
        spec, count = self.spec, image.pixels_PI.shape[0]
        x_PD = self._placed(self.patch(image.pixels_PI.astype(self.dtype)), image)
        windows_P = image.windows_P
        if self.class_token is not None:  # behind the padding: attention knows no order
            first = self.class_token[...] if self.positions is None else self.class_token[...] + self.positions[...][0]
            x_PD = jnp.concatenate((x_PD, first[None].astype(x_PD.dtype)))
            windows_P = jnp.concatenate((windows_P, jnp.zeros(1, windows_P.dtype)))
        x_PD = x_PD if self.first_norm is None else self.first_norm(x_PD)
        features: list[jax.Array] = []
        table = self._rotation(image)
        for run, block in zip(self.runs, self.blocks, strict=True):
            x_PD = _run(run, block, x_PD, windows_P, table)
            if (last := run.first + run.count - 1) in spec.taps:
                features.append(self.taps[spec.taps.index(last)](x_PD[:count]))
        x_PD = x_PD if self.last_norm is None else self.last_norm(x_PD)
        if spec.extra_tokens:
            x_PD = jnp.concatenate((x_PD[count:], x_PD[:count]))
        elif self.class_token is not None:
            x_PD = x_PD[:count]
        return jnp.concatenate((self.joint(x_PD), *features), axis=-1)

    def _placed(self, x_PD: jax.Array, image: Patches) -> jax.Array:
        """Patches with their learned position embeddings."""
        spec = self.spec
        if self.positions is None:
            return x_PD
        table: jax.Array = self.positions[...]
        if spec.positions == "table":
            places = image.rows_P * (spec.side or 0) + image.columns_P + int(spec.class_token)
            return x_PD + table[places]
        return x_PD + _interpolated(table, spec.positions_side, image).astype(x_PD.dtype)

    def _rotation(self, image: Patches) -> RopeTable | None:
        """Angles by row in the first half of the pairs, by column in the second (Qwen2-VL, 2024)."""
        spec = self.spec
        if spec.rope_theta is None:
            return None
        half = spec.head_dim // 2
        frequencies = spec.rope_theta ** -(np.arange(0, half, 2, dtype=np.float64) / half)
        places = jnp.stack((image.rows_P, image.columns_P), axis=1).astype(jnp.float32)
        angles = (places[:, :, None] * jnp.asarray(frequencies, jnp.float32)).reshape(places.shape[0], -1)
        return jnp.cos(angles), jnp.sin(angles)


def _interpolated(table: jax.Array, side: int, image: Patches) -> jax.Array:
    """A learned square stretched over the image, its corners on the image's: bilinear, in float32."""

    def along(places: jax.Array, length: jax.Array) -> tuple[tuple[jax.Array, jax.Array], ...]:
        exact = places.astype(jnp.float32) * (side - 1) / jnp.maximum(length - 1, 1).astype(jnp.float32)
        low = jnp.floor(exact)
        share = exact - low
        return (low.astype(jnp.int32), 1.0 - share), (jnp.minimum(low.astype(jnp.int32) + 1, side - 1), share)

    corners = [
        (row * side + column, (rows * columns)[:, None])
        for row, rows in along(image.rows_P, image.size_2[0])
        for column, columns in along(image.columns_P, image.size_2[1])
    ]
    wide = table.astype(jnp.float32)
    (first, weight), *others = corners
    total = wide[first] * weight
    for place, weight in others:
        total = total + wide[place] * weight
    return total


def _run(
    run: BlockRun, block: VisionBlock, x_PD: jax.Array, windows_P: jax.Array, table: RopeTable | None
) -> jax.Array:
    graphdef, state = nnx.split(block)

    def body(x: jax.Array, one: Any) -> tuple[jax.Array, None]:
        return run_block(graphdef, one, x, windows_P, table, windowed=run.windowed), None

    after_PD: jax.Array = body(x_PD, state)[0] if run.count == 1 else lax.scan(body, x_PD, state)[0]
    return after_PD
