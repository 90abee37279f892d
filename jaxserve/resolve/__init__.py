"""From what a person names as MODEL to a local directory in hub layout, which everything else reads.

A directory stands for itself. A GGUF file, a model behind a URL or on the hub gets a directory that stands for it.
"""

from jaxserve.resolve.model import bundled_model_dir, default_model_dir, resolve_model

__all__ = ["bundled_model_dir", "default_model_dir", "resolve_model"]
