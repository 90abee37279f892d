"""`jaxserve compile`: all programs of a model, for devices that are elsewhere or for those of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxserve.ahead import compiler
from jaxserve.ahead.chips import HERE, Topology, parse_topology
from jaxserve.ahead.plan import make_plan
from jaxserve.config import EngineConfig
from jaxserve.engine import compilations, stored_programs
from jaxserve.engine.machine import Machine, check_machine
from jaxserve.engine.programs import Programs
from jaxserve.engine.sizing import DeviceFacts, derive_config
from jaxserve.errors import ModelLoadError
from jaxserve.models import LoadedModel, Target, choose_backends, choose_weights, load_config, make_mesh
from jaxserve.models.loading import as_held
from jaxserve.models.model import plan_model
from jaxserve.options import EngineOptions
from jaxserve.prepared import mesh_shape
from jaxserve.startup import model_facts

Progress = Callable[[int, int], None]


def compile_programs(options: EngineOptions, topology: str, out: Path, progress: Progress) -> EngineConfig:
    """Compiles and writes every program that `serve --programs` would load there.

    Raises:
        ModelLoadError: the model does not fit, or the topology can't be compiled for.
    """
    if topology == HERE:
        devices: list[Any] = jax.devices()
        model, config = _here(options, devices)
    else:
        wanted = parse_topology(topology)
        devices = compiler.described_devices(wanted)
        model, config = _there(options, wanted, devices)
    programs = Programs(config, model)
    with compilations.afresh():
        programs.compile(progress)
    stored_programs.write(out, programs.by_name.items(), config, model.config, devices[0])
    return config


def _model(options: EngineOptions, shape: tuple[int, int, int], devices: list[Any]) -> LoadedModel:
    """The model without its parameters: programs need their shapes only."""
    config = choose_weights(load_config(options.model_dir), options.weights, options.quantize)
    backends = choose_backends(
        options.attention, options.matmul_on(devices[0].platform), Target.of(devices[0]), config.layers
    )
    chosen, mesh = options.chosen(devices[0].platform), make_mesh(shape, devices)
    config = as_held(config, options.model_dir, options.weights, options.quantize, mesh, backends)
    blueprint = plan_model(config, mesh=mesh, dtype=chosen.dtype, layer_loop=chosen.layer_loop, backends=backends)
    leaves: list[Any] = [leaf.value for leaf in blueprint.leaves]
    return LoadedModel(config, blueprint.graphdef, leaves, mesh, chosen.dtype, chosen.layer_loop, backends)


def _here(options: EngineOptions, devices: list[Any]) -> tuple[LoadedModel, EngineConfig]:
    check_machine(options, Machine(devices[0].platform, len(devices)))
    shape = mesh_shape(load_config(options.model_dir), options.mesh)
    model = _model(options, shape, devices)
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
    return model, derive_config(options, model_facts(model, options), DeviceFacts(devices[0].platform, limit), shape)


def _there(options: EngineOptions, topology: Topology, devices: list[Any]) -> tuple[LoadedModel, EngineConfig]:
    plan = make_plan(options, topology)
    if plan.engine is None:
        raise ModelLoadError(f"{plan.problem} (jaxserve plan says what would fit)")
    return _model(options, plan.mesh, devices), plan.engine
