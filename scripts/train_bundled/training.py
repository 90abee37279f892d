"""The training run: text, tokenizer, steps, held-out loss, checkpoints."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sentencepiece import SentencePieceProcessor

from train_bundled import checkpoint, optimizer
from train_bundled.corpus import documents
from train_bundled.model import Params, Shape, init_params, loss
from train_bundled.packing import PADDING, pack
from train_bundled.tokenizer import encode_document, load, train_tokenizer

TRAIN_SEED, HELD_OUT_SEED = 1, 2
"""Seeds of the text streams; the held-out stream shares no document with the training stream but by chance."""

Step = Callable[..., tuple[Params, optax.OptState, jax.Array]]


@dataclass(frozen=True)
class Phase:
    """A part of the run with rows of one length."""

    steps: int
    rows: int
    length: int
    isolated: bool = True
    """Documents packed into one row do not see each other."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the result of a run."""

    shape: Shape = field(default_factory=Shape)
    phases: tuple[Phase, ...] = (Phase(750, 8, 384, isolated=False), Phase(770, 8, 384), Phase(80, 4, 768))
    warmup: int = 15
    decay: int = 400
    """Steps at the end over which the learning rate falls."""
    matrix_rate: float = 0.02
    other_rate: float = 0.005
    seed: int = 0
    tokenizer_documents: int = 8000
    held_out_documents: int = 400

    @property
    def steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def optimizer(self, params: Params) -> optax.GradientTransformation:
        """The optimizer with this plan's schedule."""
        rates = (
            optimizer.schedule(peak, self.steps, self.warmup, self.decay)
            for peak in (self.matrix_rate, self.other_rate)
        )
        return optimizer.make(params, *rates)


def batches(plan: Plan, tokenizer: SentencePieceProcessor) -> Iterator[tuple[Phase, np.ndarray]]:
    """The phase and rows [rows, length + 1] of each step; text is written as needed and never repeats.

    The documents of a phase do not depend on how long the phases before it were.
    """
    for number, phase in enumerate(plan.phases):
        needed, first = phase.steps * phase.rows, number * 10_000_000
        while needed > 0:
            encoded = (encode_document(tokenizer, text) for text in documents(TRAIN_SEED, 4000, first))
            rows = pack(encoded, phase.length, plan.seed)[:needed]
            whole = len(rows) - len(rows) % phase.rows
            for batch in rows[:whole].reshape(-1, phase.rows, phase.length + 1):
                yield phase, batch
            needed, first = needed - whole, first + 4000


def held_out(plan: Plan, tokenizer: SentencePieceProcessor, length: int = 512) -> np.ndarray:
    """Rows [N, length + 1] of held-out documents, one document a row, padded."""
    encoded = [encode_document(tokenizer, text) for text in documents(HELD_OUT_SEED, plan.held_out_documents)]
    rows = np.full((len(encoded), length + 1), PADDING, np.int32)
    for row, ids in zip(rows, encoded, strict=True):
        row[: len(ids)] = ids[: length + 1]
    return rows


def mean_loss(shape: Shape, params: Params, rows: np.ndarray, size: int = 8) -> float:
    """Mean loss in nats per token over rows of documents."""
    compiled = jax.jit(loss, static_argnums=0)
    total, count = 0.0, 0
    for at in range(0, len(rows), size):
        part = rows[at : at + size]
        tokens = int((part[:, 1:] != PADDING).sum())
        total += float(compiled(shape, params, part)) * tokens
        count += tokens
    return total / count


def train_step(shape: Shape, update: optax.GradientTransformation) -> Step:
    """The compiled step: (params, optimizer state, batch, isolated) to params, state and the loss before the step."""

    def step(
        params: Params, state: optax.OptState, batch: jax.Array, isolated: bool
    ) -> tuple[Params, optax.OptState, jax.Array]:
        value, gradients = jax.value_and_grad(lambda p: loss(shape, p, batch, isolated=isolated))(params)
        updates, state = update.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    return jax.jit(step, donate_argnums=(0, 1), static_argnums=3)


@dataclass
class Result:
    """What a run leaves."""

    params: Params
    tokenizer_model: bytes
    held_out_loss: float
    tokens: int
    seconds: float


def run(plan: Plan, checkpoint_path: Path | None = None, *, resume: Path | None = None) -> Result:
    """Trains from nothing, or goes on from a checkpoint of the same plan (or of one with a longer plateau).

    Every 50 steps it writes `checkpoint_path`, if given.
    """
    begin = time.time()
    model = train_tokenizer(documents(TRAIN_SEED, plan.tokenizer_documents), plan.shape.vocab_size)
    tokenizer = load(model)
    params = init_params(plan.shape, plan.seed)
    update = plan.optimizer(params)
    state, step, done, tokens = update.init(params), train_step(plan.shape, update), 0, 0
    if resume is not None:
        done, (params, state) = checkpoint.restore(resume, (params, state))
    print(f"{plan.shape.parameter_count()} parameters, steps {done} to {plan.steps}", flush=True)
    for index, (phase, batch) in enumerate(itertools.islice(batches(plan, tokenizer), done, None), start=done + 1):
        params, state, value = step(params, state, jnp.asarray(batch), phase.isolated)
        tokens += int((batch != PADDING).sum())
        if index % 25 == 0:
            print(f"step {index} loss {float(value):.4f} tokens {tokens} seconds {time.time() - begin:.0f}", flush=True)
        if checkpoint_path is not None and index % 50 == 0:
            checkpoint.save(checkpoint_path, index, (params, state))
    seconds = time.time() - begin
    return Result(params, model, mean_loss(plan.shape, params, held_out(plan, tokenizer)), tokens, seconds)
