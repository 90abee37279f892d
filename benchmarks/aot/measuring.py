"""Compiles one program and states what it moves as ratios to the floor."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.aot.matrix import Program
from benchmarks.aot.shapes import model_config
from jaxserve.ahead import kernels
from jaxserve.ahead.chips import Topology, parse_topology
from jaxserve.ahead.compiler import Case, Compiler, Measured
from jaxserve.ahead.costs import Bound, Costs, Work, bound
from jaxserve.ahead.hlo import parse
from jaxserve.ahead.traffic import Traffic
from jaxserve.ahead.traffic import measure as count
from jaxserve.models.model import plan_model

_CONTEXTS = (1024, 8192)
_WAVES = ("experts/while", "experts/shard_map/while")
"""Sources of the loop over blocks of experts, on one chip and on several."""
_LEAST_COPY = 1 << 20
"""Bytes of a copy that is worth a line."""


@dataclass(frozen=True)
class Setting:
    """A model on a topology, and its floors."""

    topology: Topology
    compiler: Compiler
    costs: Costs


def setting(program: Program, layers: int | None = None) -> Setting:
    """As the server would choose it.

    Args:
        program: says model and topology.
        layers: the first of them only; None = all.
    """
    topology = parse_topology(program.topology)
    compiler = Compiler.of(model_config(program.model, quantize=program.quantize, layers=layers), topology)
    plan = plan_model(
        compiler.config, mesh=compiler.mesh, dtype=compiler.dtype, layer_loop="scan", backends=compiler.backends
    )
    return Setting(topology, compiler, Costs(plan, compiler.page_size, compiler.dtype, topology.chip.platform))


def measure(program: Program, layers: int | None = None) -> dict[str, Any]:
    """One row of the result file.

    Raises:
        Exception: it does not compile, of whatever kind XLA raises.
    """
    started = time.process_time()
    own = setting(program, layers)
    measured = own.compiler.forward(Case(program.tokens, program.rows, _CONTEXTS[0]))
    turns = dict.fromkeys(_WAVES, float(kernels.waves(own.costs, _works(program)[0])))
    measured = replace(measured, traffic=count(parse(measured.compiled.as_text()), turns))
    traffic = measured.traffic
    return {
        "program": program.name,
        "chips": own.topology.devices,
        "mesh": list(own.compiler.mesh.shape.values()),
        "layers": own.compiler.config.num_layers,
        "cpu_seconds": round(time.process_time() - started, 1),
        "temporary_mb": round(measured.temporary_bytes / 1e6, 1),
        "in_place": measured.aliased_bytes >= measured.cache_bytes,
        "kernels": traffic.kernel_calls(),
        "unknown_loops": sorted(set(traffic.unknown_loops)),
        "copies": _copies(measured),
        "heaviest": _heaviest(traffic),
        "collectives": _collectives(measured),
        "steps": [_step(own, measured, work) for work in _works(program)],
    }


def _works(program: Program) -> list[Work]:
    if program.step == "prefill":
        return [Work(program.tokens, 1, program.tokens)]
    sequences = 8 if program.tokens == 16 else program.tokens
    return [Work(sequences, sequences, context) for context in _CONTEXTS]


def _copies(measured: Measured) -> list[dict[str, Any]]:
    """Copies and transpositions of a MB and more, the largest first."""
    found = sorted(measured.traffic.copies(_LEAST_COPY), key=lambda one: -one.largest * one.times)
    return [
        {"result": one.result, "times": one.times, "mb": round(one.largest / 1e6, 1), "source": one.source}
        for one in found
    ]


def _heaviest(traffic: Traffic) -> list[dict[str, Any]]:
    """The operations that move most and those that take longest, kernels apart."""
    found = dict.fromkeys((*traffic.heaviest(4), *traffic.heaviest(4, lambda one: one.cycles)))
    return [
        {
            "operation": one.opcode,
            "result": one.result,
            "times": one.times,
            "gb": round(one.hbm_bytes / 1e9, 3),
            "cycles_m": round(one.cycles / 1e6, 2),
            "source": one.source,
        }
        for one in found
    ]


def _collectives(measured: Measured) -> list[dict[str, Any]]:
    """By kind and type: how often, and bytes of all results."""
    times: defaultdict[tuple[str, str], float] = defaultdict(float)
    sizes: defaultdict[tuple[str, str], float] = defaultdict(float)
    for one in measured.traffic.collectives:
        sort = one.opcode.removesuffix("-start"), one.result.split("[")[0]
        times[sort] += one.times
        sizes[sort] += one.times * one.bytes
    return [
        {"kind": kind, "type": dtype, "times": times[kind, dtype], "mb": round(sizes[kind, dtype] / 1e6, 2)}
        for kind, dtype in sorted(sizes)
    ]


def _step(own: Setting, measured: Measured, work: Work) -> dict[str, Any]:
    """Ratios to the floor of one step; exchanges apart, which floors and estimates know differently."""
    chip, calls = own.topology.chip, measured.traffic.kernel_calls()
    parts = []
    if "paged_attention" in calls:
        parts.append(kernels.attention(own.costs, work))
    if "grouped_product" in calls:
        parts.append(kernels.experts(own.costs, work))
    floor: Bound = bound(own.costs, work, chip)
    needed = own.costs.weights_read(work) + own.costs.cache_read(work)
    seconds = measured.traffic.cycles / chip.clock + sum(part.seconds(chip) for part in parts)
    moved = measured.traffic.hbm_bytes + sum(part.bytes for part in parts)
    least = max(floor.memory, floor.compute)
    return {
        "sequences": work.sequences,
        "tokens": work.tokens,
        "context": work.context,
        "floor_ms": round(least * 1e3, 3),
        "bound_by": "memory" if floor.memory >= floor.compute else "compute",
        "needed_gb": round(needed / 1e9, 3),
        "moved_gb": round(moved / 1e9, 3),
        "bytes_ratio": round(moved / needed, 3),
        "time_ratio": round(seconds / least, 3),
        "links_ms": round(floor.links * 1e3, 3),
    }
