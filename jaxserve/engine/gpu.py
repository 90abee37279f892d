"""What XLA must be told before it takes hold of a GPU, and what a start should say about it.

XLA reads its flags when jax first looks for devices. What the environment sets already stands.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

DEVICE_MEMORY = 0.92
"""Share of a GPU's memory that jax takes for weights, pages and temporaries; the driver, CUDA graphs and libraries
need the rest. jax's own default leaves a quarter."""
_FLAGS = {
    "xla_gpu_enable_command_buffer": "+WHILE,+CONDITIONAL",
    "xla_gpu_enable_latency_hiding_scheduler": "true",
}
"""CUDA graphs also around loops and branches, which the host would otherwise drive trip by trip; and, with several
GPUs, products while all-reduces are on their way."""
_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin", "jax_rocm7_plugin", "jax_rocm60_plugin")
_MEMORY = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION")
_NO_POOL = ("XLA_PYTHON_CLIENT_ALLOCATOR",)


def prepare(device_memory: float | None = None) -> None:
    """Sets flags and the share of memory in the environment, where jax could find a GPU; before it looks for one.

    Args:
        device_memory: share of each GPU's memory to take, None = `DEVICE_MEMORY` unless the environment says another.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if (platforms and not {"cuda", "rocm", "gpu"} & set(platforms.split(","))) or not any(map(find_spec, _PLUGINS)):
        return
    flags = os.environ.get("XLA_FLAGS", "")
    missing = [f"--{name}={value}" for name, value in _FLAGS.items() if name not in flags]
    os.environ["XLA_FLAGS"] = " ".join(filter(None, [flags, *missing]))
    if device_memory is not None:
        os.environ.update(dict.fromkeys(_MEMORY[:1], str(device_memory)))
    elif not any(name in os.environ for name in (*_MEMORY, *_NO_POOL)):
        os.environ[_MEMORY[0]] = str(DEVICE_MEMORY)


def describe() -> str:
    """The settings in effect, for a GPU's start."""
    share = next((os.environ[name] for name in _MEMORY if name in os.environ), "jax's default")
    return f"share of GPU memory {share}, XLA_FLAGS {os.environ.get('XLA_FLAGS') or 'none'}"
