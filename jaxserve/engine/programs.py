"""The compiled programs of a model on its mesh: all that the device will ever run, made before the server is ready."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxserve.config import EngineConfig
from jaxserve.engine import compilations, step
from jaxserve.engine.batch import Layout, layouts
from jaxserve.engine.image_batch import ImageLayout, image_layouts
from jaxserve.engine.kept_programs import KeptPrograms
from jaxserve.engine.stored_programs import StoredPrograms
from jaxserve.models import LoadedModel, cache_spec, placement
from jaxserve.sampling.columns import NUM_COLUMNS
from jaxserve.sampling.packing import BIAS_COLUMNS, HISTORY_COLUMNS
from jaxserve.sampling.pipeline import write_bias, write_history
from jaxserve.sampling.rule import Rule
from jaxserve.sampling.state import SlotState, abstract_state

Compiled = Callable[..., Any]
OPTIONS: dict[str, str | bool] = {"xla_allow_excess_precision": False}
"""Of XLA, for all programs. By default it leaves out roundings to bfloat16 that are widened again, in the programs of
some buckets and not of others, and a row's bits then depend on how many there are."""


@dataclass(frozen=True)
class _Job:
    """One program: its name, where it is kept, how it is compiled."""

    name: str
    keep: Callable[[Compiled], None]
    compile: Callable[[], Compiled]


class Programs:
    """Compiled programs by what their static shape depends on."""

    def __init__(self, config: EngineConfig, model: LoadedModel) -> None:
        self._config = config
        self._model = model
        self.layouts = layouts(config)
        self.cache = cache_spec(
            model.config,
            num_pages=config.num_pages,
            page_size=config.page_size,
            dtype=config.dtype,
            mesh=model.mesh,
            backends=model.backends,
        )
        """Shapes of the KV pages that the programs work on."""
        self.replicated = NamedSharding(model.mesh, PartitionSpec())
        self.forward: dict[Layout, Compiled] = {}
        self.sample: dict[int, Compiled] = {}
        """By N."""
        self.score: Compiled = _missing
        """Of the largest bucket, in which every step runs that scores."""
        self.image_layouts = image_layouts(config, model.config.vision)
        self.encode: dict[int, Compiled] = {}
        """By size of the image's buffer."""
        self.write_history: Compiled = _missing
        self.write_bias: Compiled = _missing
        self.by_name: dict[str, Compiled] = {}
        """All of them, as `stored_programs` names their files."""
        self._kept: KeptPrograms | None = None
        """Of earlier starts; only while all programs are compiled."""

    @property
    def pool(self) -> jax.ShapeDtypeStruct | None:
        """Shape of the pool of embeddings of images; None for a model of text."""
        model, sizes = self._model.config, self._config.images
        if sizes is None or model.vision is None:
            return None
        shape = (sizes.pool, (1 + len(model.vision.taps)) * model.hidden_size)
        return jax.ShapeDtypeStruct(shape, self._config.dtype, sharding=self.replicated)

    @property
    def mask_words(self) -> int:
        """int32 words of a mask: one bit for each token."""
        return -(-self._model.config.vocab_size // 32)

    def compile(
        self, progress: Callable[[int, int], None] = lambda done, total: None, stored: StoredPrograms | None = None
    ) -> None:
        """Compiles every program there is, several at a time, or loads it; `progress` gets (done, total).

        Raises:
            ModelLoadError: a stored program can't be loaded.
        """
        if stored is not None:
            self._make(lambda job: stored.load(job.name, self._model.mesh.devices.flat), progress)
            return
        self._kept = KeptPrograms.of(self._model)
        with nullcontext() if self._kept is None else compilations.afresh():
            self._make(lambda job: job.compile(), progress)
        self._kept = None

    def _make(self, make: Callable[[_Job], Compiled], progress: Callable[[int, int], None]) -> None:
        jobs = list(self._jobs())
        progress(0, len(jobs))
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            for done, (job, compiled) in enumerate(zip(jobs, pool.map(make, jobs), strict=True), start=1):
                job.keep(compiled)
                self.by_name[job.name] = compiled
                progress(done, len(jobs))

    def _jobs(self) -> Iterator[_Job]:
        """All programs, the slowest to compile first."""
        for image in reversed(self.image_layouts):
            keep = partial(self.encode.__setitem__, image.size)
            yield _Job(f"encode-{image.size}", keep, partial(self._compile_encode, image))
        for samples in sorted({layout.samples for layout in self.layouts}):
            keep = partial(self.sample.__setitem__, samples)
            yield _Job(f"sample-{samples}", keep, partial(self._compile_sample, samples))
        for layout in reversed(self.layouts):
            keep = partial(self.forward.__setitem__, layout)
            yield _Job(self._name(layout), keep, partial(self._compile_forward, layout))
        yield _Job("score", partial(setattr, self, "score"), partial(self._compile_score, self.layouts[-1]))
        for name, function, columns in (
            ("write_history", write_history, HISTORY_COLUMNS),
            ("write_bias", write_bias, BIAS_COLUMNS),
        ):
            yield _Job(name, partial(setattr, self, name), partial(self._compile_write, function, columns))

    def _name(self, layout: Layout) -> str:
        """Of a bucket's forward program."""
        whole = layout.columns == self._config.table_columns
        return f"forward-{layout.tokens}" + ("" if whole else "-".join(map(str, ("", *layout.columns))))

    def _compile_forward(self, layout: Layout) -> Compiled:
        """Compiles the forward program of one bucket."""
        return self._compile(
            partial(step.forward, layout, self._config.page_size, self._model.graphdef),
            self._leaves(),
            self.cache,
            self._state().last_token,
            self._int32(layout.size),
            *([] if self.pool is None else [self.pool]),
            donate=(1,),
        )

    def _compile_encode(self, layout: ImageLayout) -> Compiled:
        """Compiles the program of one bucket of patches."""
        tower = self._model.tower
        if tower is None:
            raise ValueError("the model has no tower")
        function = partial(step.encode, layout, tower.graphdef)
        return self._compile(function, _abstract(tower.leaves), self.pool, self._int32(layout.size), donate=(1,))

    def samplers(self, rule: Rule) -> dict[int, Compiled]:
        """The sampling programs with a rule of one's own, by N. Those that are used stay as they are."""
        return {samples: self._compile_sample(samples, rule) for samples in self.sample}

    def _compile_sample(self, samples: int, rule: Rule | None = None) -> Compiled:
        logits = jax.ShapeDtypeStruct((samples, self._model.config.vocab_size), np.float32, sharding=self.replicated)
        return self._compile(
            partial(step.sample, rule),
            self._state(),
            logits,
            self._int32(samples, NUM_COLUMNS),
            self._int32(samples, self.mask_words),
            donate=(0,),
        )

    def _compile_score(self, layout: Layout) -> Compiled:
        shape = (layout.tokens, self._model.config.hidden_size)
        hidden = jax.ShapeDtypeStruct(shape, self._config.dtype, sharding=self.replicated)
        function = partial(step.score, self._model.graphdef)
        return self._compile(function, self._leaves(), hidden, self._int32(layout.tokens), donate=())

    def _compile_write(self, function: Callable[..., SlotState], columns: int) -> Compiled:
        return self._compile(function, self._state(), self._int32(columns), donate=(0,))

    def _compile(self, function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...]) -> Compiled:
        path = None if self._kept is None else self._kept.path(function, arguments, donate)
        if self._kept is None or path is None:
            return self._compiled(function, *arguments, donate=donate)
        found = self._kept.find(path)
        if found is None:
            found = self._compiled(function, *arguments, donate=donate)
            self._kept.keep(path, found)
        return found

    def _compiled(self, function: Callable[..., Any], *arguments: Any, donate: tuple[int, ...]) -> Compiled:
        with jax.set_mesh(self._model.mesh):
            lowered = jax.jit(function, donate_argnums=donate).lower(*arguments)
            return lowered.compile(compiler_options=OPTIONS)

    def _leaves(self) -> list[jax.ShapeDtypeStruct]:
        return _abstract(self._model.leaves)

    def _int32(self, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, np.int32, sharding=self.replicated)

    def _state(self) -> SlotState:
        return abstract_state(self._config.max_num_seqs, self._model.config.vocab_size, self.replicated)


def _abstract(leaves: list[jax.Array]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement(leaf)) for leaf in leaves]


def _missing(*arguments: Any) -> Any:
    raise RuntimeError("the programs have not been compiled")
