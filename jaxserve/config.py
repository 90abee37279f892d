"""One frozen configuration of the engine, derived once from the command line and the model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Dtype = Literal["float32", "bfloat16"]
_FEW_TOKENS = 64
"""Tokens of a step up to which most of what it is sent are page tables."""
MAX_DRAFTS = 15
"""Drafts of a row at most: attention treats rows of up to 16 new tokens much like those that decode."""


@dataclass(frozen=True)
class ImageSizes:
    """What the engine needs to know of a model's images, fixed at start."""

    pool: int
    """E: embeddings of images that the device holds; row 0 takes those of padding."""
    patch_buckets: tuple[int, ...]
    """P: ascending static numbers of patches of an image."""
    max_tokens: int
    """Embeddings of one image at most."""
    rotary_axes: int = 0
    """Axes of the decoder's rotation; 0 = positions count tokens."""
    whole: bool = False
    """The decoder reads an image in one piece: no step ends inside one."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Everything the engine needs to know, fixed at start."""

    model_dir: Path
    """Local directory in hub layout (config.json, *.safetensors, tokenizer files)."""
    dtype: Dtype
    """Type of weights and KV pages."""
    max_num_seqs: int
    """S: sequences that run at once (slots)."""
    max_model_len: int
    """Context length: prompt plus output tokens of one sequence."""
    page_size: int
    """Token positions per KV page."""
    num_pages: int
    """P: KV pages of the pool that all page groups share; page 0 is never allocated (padding writes go there)."""
    max_num_batched_tokens: int
    """Token budget of one step; also the largest token bucket."""
    max_num_mixed_tokens: int | None = None
    """Token budget of a step in which sequences decode; each that runs gets its least share beyond it. None = that of
    any step."""
    token_buckets: tuple[int, ...]
    """T: ascending static sizes of the packed token axis; the last equals `max_num_batched_tokens`."""
    context_buckets: tuple[int, ...] = ()
    """Ascending contexts below `max_model_len` for which steps of few tokens have programs of their own: less of the
    page tables is sent, and loops over a context's keys whose ends are fixed are as short as their context."""
    page_windows: tuple[int | None, ...]
    """Window of each page group, in the order of the model's `CacheLayout`; None = every position is kept."""
    mesh_shape: tuple[int, int, int]
    """Devices on the axes ('replica', 'kv', 'group'): see `models.sharding`."""
    layer_loop: Literal["scan", "switch", "unroll"]
    """How layers are looped: scan on TPU, switch on CPU, unroll on GPU (measured: docs/decisions.md)."""
    attention: str | None = None
    """Attention kernels by name (`models.kernels.choice.ATTENTION`); None = what the devices prefer."""
    matmul: str | None = None
    """Kernels of matrix products by name (`models.kernels.choice.MATMUL`); None = what the devices prefer."""
    prefix_caching: bool
    """Whether equal prompt beginnings share pages."""
    images: ImageSizes | None = None
    """None = the model knows text only."""
    max_waiting: int
    """Calls (one or several requests each) that may wait for their first step, beyond those that find a free slot."""

    def plain(self) -> dict[str, Any]:
        """The fields as JSON holds them: tuples as lists, paths as texts."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return fields

    @property
    def table_columns(self) -> tuple[int, ...]:
        """Width of each page group's page table."""
        return self.columns(self.max_model_len)

    def contexts(self, token_bucket: int) -> tuple[int, ...]:
        """Ascending contexts that a token bucket has programs for; the last is the whole."""
        few = token_bucket <= _FEW_TOKENS
        return (*self.context_buckets, self.max_model_len) if few else (self.max_model_len,)

    def columns(self, context: int) -> tuple[int, ...]:
        """Width of each page group's page table where no sequence is longer than this."""
        return table_columns(self.page_windows, context, self.page_size, self.max_num_batched_tokens)

    def row_bucket(self, token_bucket: int) -> int:
        """R: rows of the packed batch for a token bucket.

        Two sizes only, since each costs a compiled sampling program: all slots, and the smallest token bucket of more
        than one token for the steps of a few sequences. Rows may outnumber tokens; a row without tokens is idle.
        """
        smallest = min(self._several_tokens, self.max_num_seqs)
        return smallest if token_bucket <= smallest else self.max_num_seqs

    @property
    def _several_tokens(self) -> int:
        """The smallest token bucket of more than one token."""
        return next((size for size in self.token_buckets if size > 1), 1)

    def sample_bucket(self, token_bucket: int) -> int:
        """N: positions of the packed batch that may yield a token, several of a row with drafts.

        Two sizes only, as of rows: all tokens of the smallest bucket, and in larger ones as many as slots, or as one
        row with drafts needs.
        """
        most = max(self.max_num_seqs, MAX_DRAFTS + 1)
        smallest = min(self._several_tokens, most)
        return smallest if token_bucket <= smallest else most


def table_columns(
    windows: tuple[int | None, ...], max_model_len: int, page_size: int, token_budget: int
) -> tuple[int, ...]:
    """Pages of one sequence that one step can read or write, in each page group.

    Without a window all of the context. With one, a step of `token_budget` tokens sees the window before its first
    token and itself: window - 1 + token_budget positions, which begin anywhere in a page.

    Args:
        windows: of each page group; None = no window.
        max_model_len: positions of a sequence.
        page_size: positions of a page.
        token_budget: tokens of a step at most.
    """
    whole = -(-max_model_len // page_size)
    return tuple(
        whole if window is None else min(whole, -(-(window - 1 + token_budget) // page_size) + 1) for window in windows
    )
