"""The static shapes of a step, and where in its one packed int32 buffer each part lies.

A step is packed into one host-to-device copy: tokens[T], cu_q_lens[R+1], kv_lens[R], slots[R], a page table
[R, columns] for each page group, samples[N, NUM_COLUMNS] (token indices, slots, positions and sampling knobs; floats
bit-cast); for a model that reads images also rows of their pool [T], positions of the rotation [axes, T] and
where images end [T]. T tokens,
R rows and N samples are a bucket's static sizes. `Layout` is the only place that knows the offsets, on the host and on
the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Generic, TypeVar

import jax
import numpy as np
import numpy.typing as npt

from jaxserve.config import EngineConfig
from jaxserve.engine.plan import Plan
from jaxserve.sampling.columns import NUM_COLUMNS

Int32Array = npt.NDArray[np.int32]
_A = TypeVar("_A", Int32Array, jax.Array)


@dataclass(frozen=True)
class Views(Generic[_A]):
    """The parts of a packed buffer."""

    tokens_T: _A
    """Token ids; -1 = what the row's slot sampled last; 0 beyond the packed ones."""
    cu_q_lens: _A
    """[R+1] cumulative tokens per row; unused rows repeat the total."""
    kv_lens_R: _A
    """Positions of each row's sequence after this step; 0 for unused rows."""
    slots_R: _A
    """Slot of each row's sequence."""
    page_tables: tuple[_A, ...]
    """[R, columns] for each page group: block b's page in column b % columns, 0 where the step needs none."""
    samples_NC: _A
    """[N, NUM_COLUMNS] as `sampling.packing` defines them; a row's samples one after the other, zero where unused."""
    image_rows_T: _A | None = None
    """Row of the pool of images that takes the place of a token's embedding; 0 = none does."""
    rotary_AT: _A | None = None
    """Where tokens are on the axes of the rotation."""
    image_lasts_T: _A | None = None
    """Position of the last token of a token's image; 0 for text."""


@dataclass(frozen=True)
class Layout:
    """Static shape of one bucket's buffer."""

    tokens: int
    """T."""
    rows: int
    """R."""
    samples: int
    """N."""
    columns: tuple[int, ...]
    """Width of each page group's table."""
    images: bool = False
    """Whether the model reads images."""
    rotary_axes: int = 0
    """Axes of its rotation; 0 = positions count tokens."""
    whole_images: bool = False
    """Whether its tokens must know where their images end."""

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of each part, in order."""
        tables = ((self.rows, columns) for columns in self.columns)
        lasts = (self.tokens if self.whole_images else 0,)
        images = ((self.tokens,), (self.rotary_axes, self.tokens), lasts) if self.images else ()
        samples = (self.samples, NUM_COLUMNS)
        return ((self.tokens,), (self.rows + 1,), (self.rows,), (self.rows,), *tables, samples, *images)

    @cached_property
    def size(self) -> int:
        """int32 words of the whole buffer."""
        return sum(prod(shape) for shape in self.shapes)

    @property
    def tables_offset(self) -> int:
        """First word of the page tables."""
        return self.tokens + 3 * self.rows + 1

    def split(self, buffer: _A) -> Views[_A]:
        """Views into a host buffer, or slices of a traced one."""
        parts: list[_A] = []
        start = 0
        for shape in self.shapes:
            end = start + prod(shape)
            parts.append(buffer[start:end].reshape(shape))
            start = end
        tokens, cu_q_lens, kv_lens, slots = parts[:4]
        samples = 4 + len(self.columns)
        views = Views(tokens, cu_q_lens, kv_lens, slots, tuple(parts[4:samples]), parts[samples])
        if not self.images:
            return views
        rotary = parts[samples + 2] if self.rotary_axes else None
        lasts = parts[samples + 3] if self.whole_images else None
        return replace(views, image_rows_T=parts[samples + 1], rotary_AT=rotary, image_lasts_T=lasts)

    def holds(self, tokens: int, rows: int, samples: int) -> bool:
        """Whether a plan of this size fits the bucket, its page tables aside."""
        return tokens <= self.tokens and rows <= self.rows and samples <= self.samples


def layouts(config: EngineConfig) -> tuple[Layout, ...]:
    """One layout for each token bucket and context, ascending."""
    axes = 0 if config.images is None else config.images.rotary_axes
    return tuple(
        Layout(
            size,
            config.row_bucket(size),
            config.sample_bucket(size),
            config.columns(context),
            images=config.images is not None,
            rotary_axes=axes,
            whole_images=config.images is not None and config.images.whole,
        )
        for size in config.token_buckets
        for context in config.contexts(size)
    )


def choose_layout(plan: Plan, ascending: tuple[Layout, ...]) -> Layout:
    """The smallest bucket that holds the plan."""
    tokens, rows, samples = plan.num_tokens, len(plan.rows), plan.num_samples
    whole = ascending[-1].columns  # every plan's page tables fit, so its rows are looked at for narrower ones only
    for layout in ascending:
        if layout.holds(tokens, rows, samples) and (layout.columns == whole or _are_within(plan, layout.columns)):
            return layout
    raise ValueError(f"a plan of {tokens} tokens in {rows} rows with {samples} samples exceeds every bucket")


def _are_within(plan: Plan, columns: tuple[int, ...]) -> bool:
    """Whether no row has more pages of a group than its table would have columns."""
    return all(len(held) <= most for row in plan.rows for (_, held), most in zip(row.pages, columns, strict=True))
