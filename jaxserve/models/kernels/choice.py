"""Which kernels run: the tables of backends, and the choice by name or by device.

A backend is one line of a table and a module, imported when it is chosen. The order is that of preference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from jax.sharding import Mesh

from jaxserve.errors import ModelLoadError
from jaxserve.models.config import LayerSpec, ModelConfig, MoeSpec
from jaxserve.models.kernels.attention_backend import AttentionBackend
from jaxserve.models.kernels.matmul_backend import MatmulBackend
from jaxserve.models.kernels.target import Target
from jaxserve.models.weight_choice import held_formats


@dataclass(frozen=True)
class Entry:
    """A backend of a table."""

    module: str
    maker: str
    """Class or function of the module that makes it, without arguments."""
    platforms: tuple[str, ...]
    """Where it is chosen unless another is asked for."""
    maker_on_gpu: str | None = None
    """In its place on GPUs."""

    def make(self, platform: str) -> Any:
        """The backend for devices of this platform."""
        maker = self.maker_on_gpu if platform == "gpu" and self.maker_on_gpu is not None else self.maker
        return getattr(import_module(self.module), maker)()


_KERNELS = "jaxserve.models.kernels."
ATTENTION: Mapping[str, Entry] = {
    "pallas_tpu": Entry(_KERNELS + "tpu_attention", "PallasTpu", ("tpu",)),
    "native": Entry(_KERNELS + "native_attention", "NativeAttention", ("cpu",)),
    "blocked": Entry(_KERNELS + "blocked", "Blocked", ("cpu", "gpu", "tpu"), "blocked_on_gpu"),
    "mosaic": Entry(_KERNELS + "mosaic", "Mosaic", ()),
}
MATMUL: Mapping[str, Entry] = {
    "pallas_tpu": Entry(_KERNELS + "tpu_matmul", "TpuMatmul", ("tpu",)),
    "native": Entry(_KERNELS + "native_matmul", "NativeMatmul", ("cpu",)),
    "xla": Entry(_KERNELS + "xla", "Xla", ("cpu", "gpu", "tpu")),
    "mosaic": Entry(_KERNELS + "mosaic_matmul", "MosaicMatmul", ()),
    "mosaic_fixed": Entry(_KERNELS + "mosaic_matmul", "FixedMosaic", ()),
}


@dataclass(frozen=True)
class Backends:
    """The kernels of a model; equal when alike."""

    attention: AttentionBackend
    matmul: MatmulBackend


def choose_backends(
    attention: str | None, matmul: str | None, target: str | Target, layers: Iterable[LayerSpec] = ()
) -> Backends:
    """The backends of these names, or for None the first that such devices prefer and that can serve the layers.

    Args:
        attention: key of `ATTENTION`.
        matmul: key of `MATMUL`.
        target: the devices, or just their platform (cpu, gpu or tpu).
        layers: what they must be able to serve.

    Raises:
        ModelLoadError: a name is unknown, or a backend asked for by name can't serve the layers.
    """
    target, layers = Target(target) if isinstance(target, str) else target, tuple(dict.fromkeys(layers))

    def of_attention(backend: AttentionBackend) -> str | None:
        return _first(backend.refusal(layer.attention, target) for layer in layers)

    def of_matmul(backend: MatmulBackend) -> str | None:
        return _first(backend.refusal(layer.weights, target) for layer in layers)

    return Backends(
        _choose("attention", attention, ATTENTION, target.platform, of_attention),
        _choose("matmul", matmul, MATMUL, target.platform, of_matmul),
    )


def serves_single_tokens(config: ModelConfig, backends: Backends) -> bool:
    """Whether a step of one token has the bits that the token has among others, and costs less.

    Native kernels promise it; XLA multiplies one row by another routine than several.
    """
    native = backends.attention.name == backends.matmul.name == "native"
    formats = {form.code for form in held_formats(config)}
    experts = any(isinstance(layer.mlp, MoeSpec) for layer in config.layers)
    plain = not experts and config.vision is None
    return native and plain and formats <= {"int8", "uint4", "e4m3", "e2m1"}


def preferred_backends(mesh: Mesh, layers: Iterable[LayerSpec]) -> Backends:
    """The backends that the devices of a mesh prefer for these layers."""
    return choose_backends(None, None, Target.of(mesh.devices.flat[0]), layers)


def _choose(
    flag: str, name: str | None, table: Mapping[str, Entry], platform: str, refusal: Callable[[Any], str | None]
) -> Any:
    if name is not None:
        if name not in table:
            raise ModelLoadError(f"--{flag} {name} is unknown; there are: {', '.join(table)}.")
        backend = table[name].make(platform)
        if (reason := refusal(backend)) is not None:
            raise ModelLoadError(f"--{flag} {name} {reason}.")
        return backend
    for entry in table.values():
        if platform in entry.platforms and refusal(backend := entry.make(platform)) is None:
            return backend
    raise ModelLoadError(f"There are no {flag} kernels for the platform {platform}; there are: {', '.join(table)}.")


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)
