"""Attention backends alone on the device: their error against a float64 softmax, their time against the bytes read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu.timing import seconds
from jaxserve.models.kernels.attention_backend import AttentionShape, LayerBatch
from jaxserve.models.kernels.choice import ATTENTION
from jaxserve.models.metadata import AttentionMeta

PAGE = 16


@dataclass(frozen=True)
class Case:
    """Rows of (start, new tokens) in a bucket."""

    name: str
    rows: tuple[tuple[int, int], ...]
    tokens: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False


_MIXED = ((0, 200), (699, 1), (203, 130), (1500, 1))
_SINGLE = ((0, 1), (69, 1), (599, 1), (1499, 1))
CORRECT = (
    Case("decode", _SINGLE, 8, 32, 8, 128),
    Case("decode head 64 sinks window", _SINGLE, 8, 64, 8, 64, 128, None, True),
    Case("decode head 256 cap", _SINGLE, 8, 8, 4, 256, 600, 20.0),
    Case("decode head 96", _SINGLE, 8, 12, 4, 96),
    Case("decode head 80 group 1", _SINGLE, 8, 8, 8, 80),
    Case("mixed", _MIXED, 512, 32, 8, 128),
    Case("mixed head 64 sinks window", _MIXED, 512, 64, 8, 64, 128, None, True),
    Case("mixed head 256 cap", _MIXED, 512, 8, 4, 256, 600, 20.0),
    Case("mixed head 96 group 3", _MIXED, 512, 12, 4, 96),
)
TIMED = (
    *(
        Case(f"decode {rows} x {context}", ((context - 1, 1),) * rows, max(rows, 8), 32, 8, 128)
        for context in (1024, 8192)
        for rows in (1, 8, 64)
    ),
    Case("prefill 2048", ((0, 2048),), 2048, 32, 8, 128),
    Case("prefill 2048 behind 6144", ((6144, 2048),), 2048, 32, 8, 128),
)
_LAYERS = 4
"""Parts of the cache that a timing goes through, so that not everything is in the device's cache."""


def check_attention(names: Sequence[str], *, tiny: bool) -> dict[str, Any]:
    """Errors and times of each backend by case."""
    correct, timed = (CORRECT[3:4], ()) if tiny else (CORRECT, TIMED)
    found: dict[str, Any] = {}
    for name in names:
        found[name] = {case.name: _guarded(_error, name, case) for case in correct}
        found[name] |= {case.name: _guarded(_time, name, case) for case in timed}
    return found


def _guarded(function: Any, name: str, case: Case) -> Any:
    try:
        return function(name, case)
    except Exception as error:  # noqa: BLE001  a case that can't compile must not hide the others
        return {"failed": f"{type(error).__name__}: {error}"[:300]}


def _inputs(case: Case, layers: int) -> tuple[jax.Array, jax.Array, AttentionMeta, int]:
    rng = np.random.default_rng(0)
    columns = max(start + new for start, new in case.rows) // PAGE + 1
    rows, pages = len(case.rows), len(case.rows) * columns + 1
    table = (rng.permutation(pages - 1) + 1).reshape(rows, columns).astype(np.int32)
    kv = jax.random.normal(jax.random.key(1), (layers * pages, PAGE, 2 * case.kv_heads, case.head_dim), jnp.bfloat16)
    q = jax.random.normal(jax.random.key(2), (case.tokens, case.heads, case.head_dim), jnp.bfloat16)
    cu = np.concatenate([[0], np.cumsum([new for _, new in case.rows])]).astype(np.int32)
    lens = np.array([start + new for start, new in case.rows], np.int32)
    meta = AttentionMeta.from_rows(jnp.asarray(cu), jnp.asarray(lens), jnp.asarray(table), case.tokens, PAGE)
    return q, kv, meta, pages


def _attend(name: str, case: Case, layers: int, pages: int) -> Any:
    """q and cache -> the attention, through `layers` parts of the cache one after the other."""
    backend = ATTENTION[name].make(jax.devices()[0].platform)
    sinks = jnp.linspace(-1.0, 2.0, case.heads) if case.sinks else None
    shape = AttentionShape(case.heads, case.kv_heads, case.head_dim, case.head_dim, case.window)

    def run(q: jax.Array, kv: jax.Array, meta: AttentionMeta) -> tuple[jax.Array, jax.Array]:
        work = backend.prepare(meta, shape)
        new = jnp.zeros((case.tokens, case.kv_heads, case.head_dim), jnp.bfloat16)
        for layer in range(layers):
            batch = LayerBatch(meta, work, layer * pages)
            options = {"scale": case.head_dim**-0.5, "window": case.window, "softcap": case.softcap}
            q, kept = backend.write_and_attend(q, new, new, {"kv": kv}, batch, sinks_N=sinks, **options)
            kv = kept["kv"]
        return q, kv

    return jax.jit(run, donate_argnums=1)


def _error(name: str, case: Case) -> dict[str, Any]:
    q, kv, meta, pages = _inputs(case, 1)
    out, kept = _attend(name, case, 1, pages)(q, kv, meta)
    wanted = _softmax(case, np.asarray(q, np.float64), np.asarray(kept, np.float64), np.asarray(meta.page_table))
    error = np.asarray(out, np.float64)[: len(wanted)] - wanted
    relative = float(np.linalg.norm(error) / np.linalg.norm(wanted))
    return {"error": relative, "ok": bool(relative < 8e-3)}


def _softmax(case: Case, q_TNH: np.ndarray, kv: np.ndarray, table: np.ndarray) -> np.ndarray:
    """float64 attention of all new tokens."""
    sinks = np.linspace(-1.0, 2.0, case.heads) if case.sinks else np.full(case.heads, -np.inf)
    out, group, token = [], case.heads // case.kv_heads, 0
    for row, (start, new) in enumerate(case.rows):
        at = np.arange(start + new)
        held = np.repeat(kv[table[row, at // PAGE], at % PAGE].swapaxes(0, 1), group, axis=0)
        keys, values = (
            np.concatenate([held[2 * k * group + s * group :][:group] for k in range(case.kv_heads)]) for s in (0, 1)
        )
        for position in range(start, start + new):
            first = 0 if case.window is None else max(0, position - case.window + 1)
            seen = slice(first, position + 1)
            scores = np.einsum("nh,nsh->ns", q_TNH[token], keys[:, seen]) * case.head_dim**-0.5
            scores = scores if case.softcap is None else case.softcap * np.tanh(scores / case.softcap)
            weights = np.exp(scores)
            total = weights.sum(axis=1) + np.exp(sinks)
            out.append(np.einsum("ns,nsh->nh", weights, values[:, seen]) / total[:, None])
            token += 1
    return np.stack(out)


def _time(name: str, case: Case) -> dict[str, float]:
    """Seconds a layer, bytes of keys and values a second, and floating-point operations a second."""
    q, kv, meta, pages = _inputs(case, _LAYERS)
    attend, held = _attend(name, case, _LAYERS, pages), [kv]

    def run() -> jax.Array:
        out: jax.Array
        out, held[0] = attend(q, held[0], meta)
        return out

    elapsed = seconds(run, repeat=10) / _LAYERS
    pairs = sum(new * start + new * (new + 1) // 2 for start, new in case.rows)
    read = sum(start + new for start, new in case.rows) * 2 * case.kv_heads * case.head_dim * 2
    return {
        "seconds": elapsed,
        "bytes_per_second": read / elapsed,
        "flops_per_second": 4 * pairs * case.heads * case.head_dim / elapsed,
    }
