"""`jaxserve plan`: what a model needs on a topology and how fast it can be there at best, from its config alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from jax.sharding import AbstractMesh, AxisType

from jaxserve.ahead.chips import Topology
from jaxserve.ahead.costs import Bound, Collective, Costs, Work, bound
from jaxserve.config import EngineConfig
from jaxserve.engine.batch import layouts
from jaxserve.engine.sizing import DeviceFacts, ModelFacts, derive_config
from jaxserve.errors import ModelLoadError
from jaxserve.models import (
    ModelConfig,
    Target,
    cache_layout,
    choose_backends,
    choose_weights,
    derive_mesh_shape,
    load_config,
)
from jaxserve.models.model import plan_model
from jaxserve.models.sharding import MESH_AXES
from jaxserve.models.weight_choice import held_formats, suit_kernels
from jaxserve.options import EngineOptions
from jaxserve.startup import step_bytes

MeshShape = tuple[int, int, int]
_CAPABILITY = {"gpu": "9.0"}
_CONTEXTS = (1024, 8192)
_SEQUENCES = (1, 8, 64)


@dataclass(frozen=True)
class Step:
    """A kind of step, and its floor."""

    kind: str
    work: Work
    bound: Bound
    collectives: tuple[Collective, ...]

    @property
    def tokens_per_second(self) -> float:
        """Over all sequences, at best."""
        return self.work.tokens / self.bound.seconds


@dataclass(frozen=True)
class Memory:
    """HBM of one device, in bytes."""

    chip: int
    weights: int
    temporaries: int
    """As the server reckons with them when it starts."""
    position: float
    """Of the cache, for each position of a sequence that no window has passed."""
    cache: int
    """Pages; 0 where there is no room."""


@dataclass(frozen=True)
class Plan:
    """What `plan` says."""

    model: str
    topology: Topology
    mesh: MeshShape
    backends: tuple[str, str]
    weights: str
    memory: Memory
    engine: EngineConfig | None
    """None where the model does not fit."""
    largest_context: int
    """Of one sequence alone."""
    steps: tuple[Step, ...]
    programs: int
    """That a start compiles."""
    remarks: tuple[str, ...]
    problem: str | None
    """Why it does not fit."""
    advice: tuple[str, ...]

    @property
    def tokens_held(self) -> int:
        """Positions that the cache has room for, where no layer has a window."""
        return int(self.memory.cache / self.memory.position) if self.memory.position else 0


def make_plan(options: EngineOptions, topology: Topology, *, advise: bool = True) -> Plan:
    """Plans one model on one topology; touches no device and reads no weight.

    Args:
        options: as of `serve`; `mesh` may be a shape.
        topology: where it would run.
        advise: whether to look for what would fit, where this does not.

    Raises:
        ModelLoadError: the options contradict the model or each other.
    """
    config = choose_weights(load_config(options.model_dir), options.weights, options.quantize)
    platform = topology.chip.platform
    shape = _mesh_shape(config, options, topology)
    mesh: Any = AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3)
    target = Target(platform, _CAPABILITY.get(platform))
    backends = choose_backends(options.attention, options.matmul_on(target.platform), target, config.layers)
    config = suit_kernels(config, backends.matmul.blocks_in_experts)
    chosen = options.chosen(platform)
    blueprint = plan_model(config, mesh=mesh, dtype=chosen.dtype, layer_loop="unroll", backends=backends)
    costs = Costs(blueprint, options.page_size, chosen.dtype, platform)
    facts = ModelFacts(
        context=config.max_position_embeddings,
        page_bytes=costs.page_bytes,
        step_bytes=step_bytes(config, chosen),
        page_windows=cache_layout(config).windows,
    )
    engine, problem = _sized(options, facts, topology, costs, shape)
    memory = Memory(
        topology.chip.memory,
        costs.weight_bytes,
        facts.step_bytes,
        costs.position_bytes,
        0 if engine is None else engine.num_pages * facts.page_bytes,
    )
    alone, _ = _sized(replace(options, max_num_seqs=1, max_model_len=None), facts, topology, costs, shape)
    plan = Plan(
        model=config.model_type,
        topology=topology,
        mesh=shape,
        backends=(backends.attention.name, backends.matmul.name),
        weights=" and ".join(map(str, held_formats(config))) or chosen.dtype,
        memory=memory,
        engine=engine,
        largest_context=0 if alone is None else alone.max_model_len,
        steps=tuple(_steps(costs, topology, engine, chosen.max_num_batched_tokens, config)),
        programs=0 if engine is None else _programs(engine),
        remarks=blueprint.rules.remarks,
        problem=problem,
        advice=(),
    )
    return replace(plan, advice=tuple(_advice(plan, options))) if advise else plan


def _mesh_shape(config: ModelConfig, options: EngineOptions, topology: Topology) -> MeshShape:
    """As asked for; else over all devices."""
    wanted = options.mesh
    if isinstance(wanted, int):
        return derive_mesh_shape(config, topology.devices if wanted == 1 else wanted)
    size = wanted[0] * wanted[1] * wanted[2]
    if size > topology.devices:
        raise ModelLoadError(f"--mesh asks for {size} devices, {topology} has {topology.devices}")
    return wanted


def _sized(
    options: EngineOptions, facts: ModelFacts, topology: Topology, costs: Costs, shape: MeshShape
) -> tuple[EngineConfig | None, str | None]:
    """What the server would choose, or why it could not."""
    chip = topology.chip
    device = DeviceFacts(chip.platform, chip.memory, costs.weight_bytes)
    try:
        return derive_config(options, facts, device, shape), None
    except ModelLoadError as error:
        return None, str(error)


def _steps(
    costs: Costs, topology: Topology, engine: EngineConfig | None, budget: int, config: ModelConfig
) -> Iterator[Step]:
    """Decoding at a few sizes that fit, and a chunk of a prompt."""

    def step(kind: str, work: Work) -> Step:
        return Step(kind, work, bound(costs, work, topology.chip), costs.collectives(work))

    slots = engine.max_num_seqs if engine is not None else max(_SEQUENCES)
    sizes = sorted({*(size for size in _SEQUENCES if size < slots), slots})
    longest = engine.max_model_len if engine is not None else config.max_position_embeddings
    for context in dict.fromkeys(min(one, longest) for one in _CONTEXTS):
        for sequences in sizes:
            yield step("decode", Work(sequences, sequences, context))
    context = min(budget, longest)
    yield step("prefill", Work(context, 1, context))


def _programs(engine: EngineConfig) -> int:
    buckets = layouts(engine)
    return 2 * len(buckets) + len({one.samples for one in buckets}) + 2


def _advice(plan: Plan, options: EngineOptions) -> Iterator[str]:
    """What would make it fit, tried one after the other."""
    if plan.problem is None:
        return
    if options.quantize is None and plan.weights in ("bfloat16", "float32"):
        quantised = make_plan(replace(options, quantize="int8"), plan.topology, advise=False)
        if quantised.engine is not None:
            yield f"--quantize int8 fits here: {quantised.memory.weights / 1e9:.1f} GB of weights a device"
    larger = next(_larger(plan, options), None)
    if larger is not None:
        yield f"--topology {larger.topology} is the smallest of its kind that fits as asked"
    alone = plan.largest_context
    if alone:
        yield f"--max-num-seqs 1 --max-model-len {alone} fits here"


def _larger(plan: Plan, options: EngineOptions) -> Iterator[Plan]:
    """The same on more and more chips."""
    for shape in _SHAPES[plan.topology.chip.dims]:
        topology = Topology(plan.topology.chip, shape)
        if topology.devices > plan.topology.devices:
            other = make_plan(replace(options, mesh=1), topology, advise=False)
            if other.engine is not None:
                yield other


_SHAPES: dict[int, tuple[tuple[int, ...], ...]] = {
    0: ((1,), (2,), (4,), (8,)),
    2: ((1,), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8)),
    3: ((1,), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4)),
}
"""Shapes that are sold, up to 64 chips."""
