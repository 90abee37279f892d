"""The Qwen3 decoder in plain JAX, for training only: parameters, forward pass, loss.

Weights are stored [out, in] under the names of the hub's Qwen3 checkpoints, so that export is a copy.
Dimensions: B sequences, S positions, D width, N query heads, K key/value heads, H head width, F feed-forward,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from train_bundled.tokenizer import BOS_ID

Params = dict[str, jax.Array]

BLOCK = 128
"""Queries are attended in blocks of this many positions, so that keys of the future cost (almost) nothing."""


@dataclass(frozen=True)
class Shape:
    """The sizes of the model."""

    vocab_size: int = 3072
    hidden: int = 160
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    feed_forward: int = 416
    context: int = 1024
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape, every parameter of the checkpoint (the output embedding is tied)."""
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden)}
        for i in range(self.layers):
            p = f"model.layers.{i}."
            shapes |= {
                p + "input_layernorm.weight": (self.hidden,),
                p + "self_attn.q_proj.weight": (self.heads * self.head_dim, self.hidden),
                p + "self_attn.k_proj.weight": (self.kv_heads * self.head_dim, self.hidden),
                p + "self_attn.v_proj.weight": (self.kv_heads * self.head_dim, self.hidden),
                p + "self_attn.q_norm.weight": (self.head_dim,),
                p + "self_attn.k_norm.weight": (self.head_dim,),
                p + "self_attn.o_proj.weight": (self.hidden, self.heads * self.head_dim),
                p + "post_attention_layernorm.weight": (self.hidden,),
                p + "mlp.gate_proj.weight": (self.feed_forward, self.hidden),
                p + "mlp.up_proj.weight": (self.feed_forward, self.hidden),
                p + "mlp.down_proj.weight": (self.hidden, self.feed_forward),
            }
        return shapes | {"model.norm.weight": (self.hidden,)}

    def parameter_count(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(int(np.prod(shape)) for shape in self.parameter_shapes().values())


def init_params(shape: Shape, seed: int) -> Params:
    """Normal weights scaled by fan-in, smaller by the depth where they add to the residual stream; norms are one.

    Query and key norms start larger: at head widths this small, attention could not be sharp enough to copy.
    """
    rng = np.random.default_rng(seed)
    params: Params = {}
    for name, dims in shape.parameter_shapes().items():
        if len(dims) == 1:
            params[name] = jnp.full(dims, 1.5 if "q_norm" in name or "k_norm" in name else 1.0, jnp.float32)
            continue
        scale = 0.02 if "embed" in name else dims[1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            scale /= (2 * shape.layers) ** 0.5
        params[name] = jnp.asarray(rng.normal(0.0, scale, dims), jnp.float32)
    return params


def _norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def _rotate(x_BSNH: jax.Array, theta: float) -> jax.Array:
    positions, half = jnp.arange(x_BSNH.shape[1], dtype=jnp.float32), x_BSNH.shape[-1] // 2
    angles = positions[:, None] * theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angles)[:, None, :], jnp.sin(angles)[:, None, :]
    first, second = x_BSNH[..., :half], x_BSNH[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _linear(x: jax.Array, weight: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ())))


def _attention(shape: Shape, params: Params, prefix: str, x_BSD: jax.Array, document_BS: jax.Array) -> jax.Array:
    B, S, _ = x_BSD.shape
    K, G, H = shape.kv_heads, shape.heads // shape.kv_heads, shape.head_dim
    q = _linear(x_BSD, params[prefix + "q_proj.weight"]).reshape(B, S, K * G, H)
    k = _linear(x_BSD, params[prefix + "k_proj.weight"]).reshape(B, S, K, H)
    v_BSKH = _linear(x_BSD, params[prefix + "v_proj.weight"]).reshape(B, S, K, H)
    q = _rotate(_norm(q, params[prefix + "q_norm.weight"], shape.norm_eps), shape.rope_theta) * H**-0.5
    k_BSKH = _rotate(_norm(k, params[prefix + "k_norm.weight"], shape.norm_eps), shape.rope_theta)
    q_BSKGH = q.reshape(B, S, K, G, H)
    blocks = [
        _attend(
            q_BSKGH[:, start : start + BLOCK],
            k_BSKH[:, : start + BLOCK],
            v_BSKH[:, : start + BLOCK],
            _visible(document_BS, start)[:, None, None],
        )
        for start in range(0, S, BLOCK)
    ]
    return _linear(jnp.concatenate(blocks, axis=1).reshape(B, S, K * G * H), params[prefix + "o_proj.weight"])


def _visible(document_BS: jax.Array, start: int) -> jax.Array:
    """Mask [B, block, T]: queries from position `start` on see the keys before them in their own document."""
    queries, keys = document_BS[:, start : start + BLOCK], document_BS[:, : start + BLOCK]
    causal = jnp.arange(keys.shape[1])[None, :] <= start + jnp.arange(queries.shape[1])[:, None]
    return causal & (queries[:, :, None] == keys[:, None, :])


def _attend(q_BSKGH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, visible: jax.Array) -> jax.Array:
    scores = jnp.einsum("bskgh,btkh->bkgst", q_BSKGH, k_BTKH)
    weights = jax.nn.softmax(jnp.where(visible, scores, -1e30), axis=-1)
    return jnp.einsum("bkgst,btkh->bskgh", weights, v_BTKH)


def _mlp(params: Params, prefix: str, x_BSD: jax.Array) -> jax.Array:
    gate = jax.nn.silu(_linear(x_BSD, params[prefix + "gate_proj.weight"]))
    return _linear(gate * _linear(x_BSD, params[prefix + "up_proj.weight"]), params[prefix + "down_proj.weight"])


def forward(shape: Shape, params: Params, tokens_BS: jax.Array, document_BS: jax.Array | None = None) -> jax.Array:
    """Logits [B, S, V] of rows that start at position 0.

    `document_BS` numbers the documents of packed rows; tokens see only their own. Without it, a row is one document.
    """
    if document_BS is None:
        document_BS = jnp.zeros(tokens_BS.shape, jnp.int32)
    embedding = params["model.embed_tokens.weight"]
    x_BSD = embedding[tokens_BS]
    for i in range(shape.layers):
        p = f"model.layers.{i}."
        normed = _norm(x_BSD, params[p + "input_layernorm.weight"], shape.norm_eps)
        x_BSD = x_BSD + _attention(shape, params, p + "self_attn.", normed, document_BS)
        normed = _norm(x_BSD, params[p + "post_attention_layernorm.weight"], shape.norm_eps)
        x_BSD = x_BSD + _mlp(params, p + "mlp.", normed)
    return _linear(_norm(x_BSD, params["model.norm.weight"], shape.norm_eps), embedding)


def loss(shape: Shape, params: Params, tokens_BS: jax.Array, *, isolated: bool = True) -> jax.Array:
    """Mean cross-entropy, in nats, of each token after the first; padding (negative ids) does not count.

    With `isolated`, the documents of a row, each of which begins with <s>, do not see each other.
    """
    inputs, targets = jnp.maximum(tokens_BS[:, :-1], 0), tokens_BS[:, 1:]
    logits = forward(shape, params, inputs, jnp.cumsum(inputs == BOS_ID, axis=1) if isolated else None)
    chosen = jnp.take_along_axis(logits, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    counted = targets >= 0
    return jnp.sum(jnp.where(counted, jax.nn.logsumexp(logits, axis=-1) - chosen, 0.0)) / jnp.sum(counted)
