"""What can be told of this machine's devices without jax, and what options want of them."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from jaxserve.errors import ModelLoadError
from jaxserve.options import EngineOptions

_HOST_DEVICES = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


@dataclass(frozen=True)
class Machine:
    """The devices that jax shows."""

    platform: str
    """jax's name: cpu, gpu or tpu."""
    devices: int
    hosts: int = 1


def told_machine(hosts: int = 1) -> Machine | None:
    """The devices of all hosts, where the environment settles that they are CPUs; None = only jax can say."""
    if os.environ.get("JAX_PLATFORMS") != "cpu":
        return None
    forced = _HOST_DEVICES.findall(os.environ.get("XLA_FLAGS", ""))
    return Machine("cpu", hosts * int(os.environ.get("JAX_NUM_CPU_DEVICES") or (forced or [1])[-1]), hosts)


def check_machine(options: EngineOptions, machine: Machine) -> None:
    """Compares what was chosen with the devices.

    Raises:
        ModelLoadError: a contradiction, in one sentence that names the flag.
    """
    if options.device_memory is not None and machine.platform != "gpu":
        raise ModelLoadError(
            f"--device-memory is a share of a GPU's memory, and the device here is a {machine.platform}"
        )
    size = options.mesh if isinstance(options.mesh, int) else math.prod(options.mesh)
    if size > machine.devices:
        raise ModelLoadError(f"--mesh asks for {size} devices, {_has(machine)} {machine.devices}")
    if machine.hosts > 1 and size not in (1, machine.devices):
        raise ModelLoadError(f"--mesh asks for {size} devices, {_has(machine)} {machine.devices}: leave it out")
    if machine.hosts > 1 and options.programs is not None:
        raise ModelLoadError("--programs is for one host: several compile, or find their programs in the cache")


def _has(machine: Machine) -> str:
    return "this machine has" if machine.hosts == 1 else f"the {machine.hosts} hosts have"
