"""A plan as JSON and as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from jaxserve.ahead.plan import Plan, Step

_GB = 1e9


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything a plan says; bytes, seconds and tokens a second, without rounding."""
    memory, engine = plan.memory, plan.engine
    return {
        "model": plan.model,
        "topology": str(plan.topology),
        "devices": plan.topology.devices,
        "mesh": dict(zip(("replica", "kv", "group"), plan.mesh, strict=True)),
        "attention": plan.backends[0],
        "matmul": plan.backends[1],
        "weights": plan.weights,
        "fits": plan.problem is None,
        "problem": plan.problem,
        "advice": list(plan.advice),
        "remarks": list(plan.remarks),
        "device_memory": {
            "total": memory.chip,
            "weights": memory.weights,
            "temporaries": memory.temporaries,
            "cache": memory.cache,
            "cache_per_token": memory.position,
        },
        "cached_tokens": plan.tokens_held,
        "max_model_len": engine.max_model_len if engine else None,
        "max_num_seqs": engine.max_num_seqs if engine else None,
        "largest_context": plan.largest_context,
        "programs": plan.programs,
        "steps": [_step(step) for step in plan.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "kind": step.kind,
        "tokens": step.work.tokens,
        "sequences": step.work.sequences,
        "context": step.work.context,
        "seconds": step.bound.seconds,
        "memory_seconds": step.bound.memory,
        "compute_seconds": step.bound.compute,
        "link_seconds": step.bound.links,
        "bound_by": step.bound.holds,
        "tokens_per_second": step.tokens_per_second,
        "collectives": [
            {"kind": one.kind, "where": one.where, "times": one.times, "bytes": one.bytes, "devices": one.devices}
            for one in step.collectives
        ],
    }


def show(plan: Plan, console: Console) -> None:
    """Prints the tables."""
    console.print(Group(*_parts(plan)))


def _parts(plan: Plan) -> list[RenderableType]:
    mesh = ", ".join(f"{name}={size}" for name, size in zip(("replica", "kv", "group"), plan.mesh, strict=True))
    head = f"{plan.model} ({plan.weights}) on {plan.topology}: {plan.topology.devices} devices, mesh {mesh}"
    parts: list[RenderableType] = [head, f"kernels: attention {plan.backends[0]}, matmul {plan.backends[1]}"]
    parts += [_memory(plan), _steps(plan)]
    exchanged = plan.steps[0].collectives
    if exchanged:
        parts.append("collectives a step: " + "; ".join(f"{c.times} {c.kind} ({c.where})" for c in exchanged))
    parts += [f"note: {remark}" for remark in plan.remarks]
    if plan.problem is not None:
        parts += [f"[bold red]does not fit:[/] {plan.problem}", *(f"try: {each}" for each in plan.advice)]
    return parts


def _memory(plan: Plan) -> Table:
    memory, engine = plan.memory, plan.engine
    table = Table("memory of a device", "", box=None)
    rows = [
        ("HBM", f"{memory.chip / _GB:.1f} GB"),
        ("weights", f"{memory.weights / _GB:.2f} GB"),
        ("temporaries, reckoned", f"{memory.temporaries / _GB:.2f} GB"),
        ("cache of a token", f"{memory.position / 1024:.1f} KiB"),
    ]
    if engine is not None:
        rows += [
            ("cache", f"{memory.cache / _GB:.2f} GB, {plan.tokens_held:,} tokens"),
            ("context", f"{engine.max_model_len:,} tokens with {engine.max_num_seqs} sequences"),
            ("programs to compile", str(plan.programs)),
        ]
    rows.append(("longest context of one sequence", f"{plan.largest_context:,}"))
    for row in rows:
        table.add_row(*row)
    return table


def _steps(plan: Plan) -> Table:
    table = Table("step", "sequences", "context", "ms at best", "tokens/s at best", "bound by", "links ms", box=None)
    for step in plan.steps:
        table.add_row(
            step.kind,
            str(step.work.sequences),
            f"{step.work.context:,}",
            f"{step.bound.seconds * 1e3:.2f}",
            f"{step.tokens_per_second:,.0f}",
            step.bound.holds,
            f"{step.bound.links * 1e3:.2f}",
        )
    return table
