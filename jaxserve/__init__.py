"""jaxserve: LLM inference in JAX behind the Fireworks AI inference API.

The notebook face is `LLM` and `SamplingParams`. Importing this package starts nothing and imports no jax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxserve.llm import LLM, SamplingParams

__version__ = "0.1.0"
__all__ = ["LLM", "SamplingParams", "__version__"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from jaxserve import llm

        return getattr(llm, name)
    raise AttributeError(f"module 'jaxserve' has no attribute {name!r}")
