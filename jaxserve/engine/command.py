"""A step as a value: what the device is told, in int32 arrays, with no word of requests or sequences.

A process that holds the same model can execute a received command as well as a made one; `to_words` and `from_words`
carry it between processes. Commands are executed in the order in which they were made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

from jaxserve.engine.batch import Int32Array, Layout


@dataclass(frozen=True, eq=False)
class SlotLoads:
    """What slots must know of their sequences before they sample: written first, in order."""

    histories: tuple[Int32Array, ...] = ()
    """Each [HISTORY_COLUMNS], from `pack_history`."""
    biases: tuple[Int32Array, ...] = ()
    """Each [BIAS_COLUMNS], from `pack_bias`."""


@dataclass(frozen=True, eq=False)
class Launch:
    """Run the model over a packed batch, and draw its samples at once unless a `Draw` follows."""

    layout: Layout
    batch: Int32Array
    """[layout.size]."""
    loads: SlotLoads
    score_targets: Int32Array | None
    """[T]: the token whose log-probability each position is to give, -1 = none; None = none at all."""
    draw: bool
    """Whether nothing restricts the samples, so that they are drawn without waiting for masks."""
    keep_hidden: bool
    """Whether the samples' activations are wanted on the host."""
    keep_routing: bool
    """Whether their routed experts are."""
    images: tuple[Int32Array, ...] = ()
    """Images to encode first, in order, each as `image_batch.ImageLayout` packs it."""


@dataclass(frozen=True, eq=False)
class Draw:
    """Draw the samples of the step launched last."""

    masks: Int32Array
    """[N, ceil(V / 32)]: bit i % 32 of word i // 32 allows token i."""


@dataclass(frozen=True, eq=False)
class Redraw:
    """Draw some samples of the step launched last once more, as if for the first time."""

    loads: SlotLoads
    samples: Int32Array
    """[N, NUM_COLUMNS]: those to draw, zero elsewhere."""
    masks: Int32Array
    """[N, ceil(V / 32)]."""


StepCommand: TypeAlias = Launch | Draw | Redraw


def to_words(command: StepCommand) -> Int32Array:
    """A command as one int32 array: its kind, a header, and its arrays, each behind its rank and shape."""
    match command:
        case Launch():
            layout = command.layout
            images = (layout.images, layout.rotary_axes, layout.whole_images)
            sizes = (layout.tokens, layout.rows, layout.samples, *images, *layout.columns)
            flags = (command.draw, command.keep_hidden, command.keep_routing, command.score_targets is not None)
            scores = () if command.score_targets is None else (command.score_targets,)
            return _join(0, (*flags, *sizes), command.loads, command.batch, *scores, *command.images)
        case Draw():
            return _join(1, (), SlotLoads(), command.masks)
        case Redraw():
            return _join(2, (), command.loads, command.samples, command.masks)


def from_words(words: Int32Array) -> StepCommand:
    """The command that `to_words` wrote.

    Raises:
        ValueError: the words are no command.
    """
    kind, header, loads, arrays = _split(words)
    match kind, arrays:
        case 0, [batch, *more]:
            draw, hidden, routing, scored, tokens, rows, samples, images, axes, whole, *columns = header
            layout = Layout(tokens, rows, samples, tuple(columns), bool(images), axes, bool(whole))
            targets = more.pop(0) if scored else None
            return Launch(layout, batch, loads, targets, bool(draw), bool(hidden), bool(routing), tuple(more))
        case 1, [masks]:
            return Draw(masks)
        case 2, [samples_NC, masks]:
            return Redraw(loads, samples_NC, masks)
    raise ValueError(f"no step command is of kind {kind} with {len(arrays)} arrays")


def _join(kind: int, header: tuple[int, ...], loads: SlotLoads, *arrays: Int32Array) -> Int32Array:
    fields = (*loads.histories, *loads.biases, *arrays)
    parts = [np.array([kind, len(header), *header, len(loads.histories), len(loads.biases), len(fields)], np.int32)]
    for array in fields:
        parts += [np.array([array.ndim, *array.shape], np.int32), array.ravel()]
    return np.concatenate(parts)


def _split(words: Int32Array) -> tuple[int, list[int], SlotLoads, list[Int32Array]]:
    kind, length = map(int, words[:2])
    header = words[2 : 2 + length].tolist()
    histories, biases, count = words[2 + length : 5 + length].tolist()
    fields = list(_arrays(words[5 + length :], count))
    loads = SlotLoads(tuple(fields[:histories]), tuple(fields[histories : histories + biases]))
    return kind, header, loads, fields[histories + biases :]


def _arrays(words: Int32Array, count: int) -> Iterator[Int32Array]:
    for _ in range(count):
        rank = int(words[0])
        shape = words[1 : 1 + rank].tolist()
        end = 1 + rank + prod(shape)
        yield words[1 + rank : end].reshape(shape)
        words = words[end:]
