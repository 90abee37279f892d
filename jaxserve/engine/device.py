"""Executes step commands: owns everything on the device, parameters, KV pages and slot state, and knows no sequence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxserve.config import EngineConfig
from jaxserve.engine import step
from jaxserve.engine.command import Draw, Launch, Redraw, SlotLoads, StepCommand
from jaxserve.engine.host_memory import drop_zeros
from jaxserve.engine.programs import Programs
from jaxserve.engine.results import StepOutput
from jaxserve.errors import DeviceLost
from jaxserve.models import LoadedModel, init_cache
from jaxserve.sampling.state import SlotState, init_state

_Given = jax.Array | npt.NDArray[np.int32]
"""Programs take arrays of the host as they are: `device_put` first costs 170 us where this costs 50 (two CPU cores)."""


@dataclass
class Pending:
    """A launched step: device arrays, those that are wanted on their way to the host."""

    samples: int
    """N of its bucket."""
    forward: step.ForwardResult
    scores: jax.Array | None
    hidden_ND: jax.Array | None
    routing: jax.Array | None
    out: jax.Array | None = None
    """Sampled tokens; None until they are drawn."""
    redrawn: tuple[npt.NDArray[np.bool_], jax.Array] | None = None
    """Which samples were drawn a second time, and what came of it."""


class Device:
    """Runs commands in order. `execute` enqueues and returns at once, `fetch` waits.

    Args:
        config: sizes.
        model: parameters on their mesh.
        programs: compiled before the first command is executed; afterwards only compiled programs are called, so a
            missing shape would be an error, never a silent compilation.
    """

    def __init__(self, config: EngineConfig, model: LoadedModel, programs: Programs) -> None:
        self._model = model
        self._programs = programs
        self._cache = init_cache(programs.cache)
        self._state: SlotState = jax.device_put(
            init_state(config.max_num_seqs, model.config.vocab_size), programs.replicated
        )
        self._no_masks = {
            layout.samples: self._put(np.zeros((layout.samples, programs.mask_words), np.int32))
            for layout in programs.layouts
        }
        self._last: Pending | None = None
        self._tower = model.tower
        self._pool: tuple[jax.Array, ...] = () if programs.pool is None else (_zeros(programs.pool),)

    def execute(self, command: StepCommand) -> Pending:
        """Enqueues a command; returns the step it starts, or the one launched last, which it goes on with.

        Raises:
            RuntimeError: there is no step to go on with.
            DeviceLost: the device failed.
        """
        with _device_errors():
            match command:
                case Launch():
                    self._last = self._launch(command)
                case Draw(masks):
                    self._draw(self._launched(), masks)
                case Redraw():
                    self._redraw(self._launched(), command)
        return self._launched()

    def settle(self) -> None:
        """Before the first command: KV pages that hold nothing yet take no memory of the host."""
        drop_zeros(self._cache.values())

    def fetch(self, pending: Pending) -> StepOutput:
        """Waits for a step's results.

        Raises:
            RuntimeError: it has not been sampled.
            DeviceLost: the device failed.
        """
        with _device_errors():
            return self._read(pending)

    def wait(self, pending: Pending) -> None:
        """Waits for a step without reading it; raises as `fetch`."""
        with _device_errors():
            jax.block_until_ready(pending.out)

    def _read(self, pending: Pending) -> StepOutput:
        if pending.out is None:
            raise RuntimeError("the step has not been sampled")
        out = np.asarray(pending.out)
        if pending.redrawn is not None:
            which, redrawn = pending.redrawn
            out = np.where(which[:, None], np.asarray(redrawn), out)
        return StepOutput(
            out,
            None if pending.scores is None else np.asarray(pending.scores),
            None if pending.hidden_ND is None else np.asarray(pending.hidden_ND, np.float32),
            None if pending.routing is None else np.asarray(pending.routing),
        )

    def _launch(self, command: Launch) -> Pending:
        self._load(command.loads)
        for words in command.images:
            self._encode(words)
        layout, leaves = command.layout, self._model.leaves
        result: step.ForwardResult = self._programs.forward[layout](
            leaves, self._cache, self._state.last_token, command.batch, *self._pool
        )
        self._cache = result.cache
        scores = None
        if command.score_targets is not None:
            scores = self._programs.score(leaves, result.hidden_TD, command.score_targets)
        pending = Pending(
            samples=layout.samples,
            forward=result,
            scores=scores,
            hidden_ND=result.hidden_ND if command.keep_hidden else None,
            routing=result.routing if command.keep_routing else None,
        )
        for array in (pending.scores, pending.hidden_ND, pending.routing):
            if array is not None:
                array.copy_to_host_async()
        if command.draw:
            self._draw(pending, self._no_masks[layout.samples])
        return pending

    def _encode(self, words: npt.NDArray[np.int32]) -> None:
        if self._tower is None:
            raise RuntimeError("the model reads no images")
        self._pool = (self._programs.encode[len(words)](self._tower.leaves, *self._pool, words),)

    def _draw(self, pending: Pending, masks: _Given) -> None:
        pending.out = self._sample(pending, pending.forward.samples_NC, masks)

    def _redraw(self, pending: Pending, command: Redraw) -> None:
        self._load(command.loads)
        out = self._sample(pending, command.samples, command.masks)
        pending.redrawn = np.any(command.samples != 0, axis=1), out

    def _sample(self, pending: Pending, samples_NC: _Given, masks: _Given) -> jax.Array:
        program = self._programs.sample[pending.samples]
        out: jax.Array
        self._state, out = program(self._state, pending.forward.logits_NV, samples_NC, masks)
        out.copy_to_host_async()
        return out

    def _load(self, loads: SlotLoads) -> None:
        for history in loads.histories:
            self._state = self._programs.write_history(self._state, history)
        for bias in loads.biases:
            self._state = self._programs.write_bias(self._state, bias)

    def _launched(self) -> Pending:
        if self._last is None:
            raise RuntimeError("no step has been launched")
        return self._last

    def _put(self, array: npt.NDArray[np.int32]) -> jax.Array:
        placed: jax.Array = jax.device_put(array, self._programs.replicated)
        return placed


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """An array made on the devices that hold it."""
    zeros: jax.Array = jax.jit(lambda: jnp.zeros(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)()
    return zeros


@contextmanager
def _device_errors() -> Iterator[None]:
    """A program that failed on the device leaves its donated arrays undefined: there is nothing to go on with."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        raise DeviceLost(f"the device failed: {str(error).splitlines()[0][:200]}") from error
