"""Reading the parts that all families share from `config.json`: attention, feed-forward, layer kinds, the model."""

from __future__ import annotations

from collections.abc import Callable

from jaxserve.models.config import (
    AttentionSpec,
    GluSpec,
    LatentSpec,
    LayerSpec,
    MlpSpec,
    ModelConfig,
    MoeSpec,
    QKNorm,
    RouterSpec,
)
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_rope import read_rope, read_yarn_sharpening, stretched_context


def read_attention(
    raw: HubConfig,
    *,
    window: int | None = None,
    qkv_bias: bool = False,
    out_bias: bool = False,
    qk_norm: QKNorm = "none",
    layer_type: str | None = None,
    interleaved: bool = False,
) -> AttentionSpec:
    """Grouped-query attention with the customary field names and scale 1/sqrt(H)."""
    heads = raw.integer("num_attention_heads")
    kv_heads = raw.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise raw.bad("num_key_value_heads", f"({kv_heads}) must divide num_attention_heads ({heads})")
    head_dim = raw.integer("head_dim", raw.integer("hidden_size") // heads)
    return AttentionSpec(
        heads,
        kv_heads,
        head_dim,
        scale=head_dim**-0.5,
        rope=read_rope(raw, head_dim, layer_type=layer_type, interleaved=interleaved),
        window=window,
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        qk_norm=qk_norm,
    )


def read_latent_attention(raw: HubConfig) -> LatentSpec:
    """Multi-head latent attention with DeepSeek's field names; YaRN's `mscale_all_dim` sharpens the scores.

    Raises:
        ModelLoadError: the shared key would rotate in part only, or a field is missing or malformed.
    """
    raw.only("attention_bias", False)
    nope, size = raw.integer("qk_nope_head_dim"), raw.integer("qk_rope_head_dim")
    rope = read_rope(raw, size, interleaved=raw.boolean("rope_interleave", True))
    if rope.rotary_dim != size:
        raise raw.bad("partial_rotary_factor", f"must leave all {size} dimensions of qk_rope_head_dim rotating")
    return LatentSpec(
        raw.integer("num_attention_heads"),
        raw.optional_integer("q_lora_rank"),
        raw.integer("kv_lora_rank"),
        nope,
        raw.integer("v_head_dim"),
        scale=(nope + size) ** -0.5 * read_yarn_sharpening(raw) ** 2,
        rope=rope,
    )


def read_mlp(raw: HubConfig, *, bias: bool = False) -> MlpSpec:
    """The dense gated feed-forward layer with the customary field names."""
    return MlpSpec(raw.integer("intermediate_size"), raw.activation(), bias)


def read_moe(
    raw: HubConfig, router: RouterSpec, *, experts: str = "num_local_experts", width: str = "moe_intermediate_size"
) -> MoeSpec:
    """A mixture of experts; `experts` and `width` are the fields of their number and inner width.

    `num_local_experts` stands in where transformers v5 renamed the family's field.

    Raises:
        ModelLoadError: more experts per token than there are, or groups that do not divide them.
    """
    renamed = experts not in raw.fields and "num_local_experts" in raw.fields
    count, top_k = raw.integer("num_local_experts" if renamed else experts), raw.integer("num_experts_per_tok")
    allowed = count // router.groups * router.top_groups
    if count % router.groups or router.top_groups > router.groups:
        raise raw.bad("n_group", f"({router.groups}) must divide {experts} ({count}) and be at least topk_group")
    if top_k > allowed:
        raise raw.bad("num_experts_per_tok", f"must be at most {allowed}, not {top_k}")
    shared = raw.integer("n_shared_experts", 0, least=0)
    inner = raw.integer(width)
    return MoeSpec(
        count, top_k, inner, router, GluSpec(raw.activation()), shared_width=shared * inner if shared else None
    )


def read_layer_types(raw: HubConfig, default: Callable[[int], str]) -> tuple[str, ...]:
    """Kind of attention per layer: `layer_types` where present, else `default(layer index)`.

    Raises:
        ModelLoadError: the list has another length than the model, or a kind that is not supported.
    """
    count = raw.integer("num_hidden_layers")
    kinds = raw.fields.get("layer_types") or [default(layer) for layer in range(count)]
    if not isinstance(kinds, list) or len(kinds) != count:
        raise raw.bad("layer_types", f"must list {count} layers")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise raw.bad("layer_types", f"names {kind!r}, which is not supported")
    return tuple(kinds)


def read_model(
    raw: HubConfig, layers: tuple[LayerSpec, ...], *, tie_embeddings: bool = False, states_stretched: bool = False
) -> ModelConfig:
    """The fields that are not per layer, with the customary names.

    Args:
        raw: the configuration.
        layers: already read.
        tie_embeddings: the family's default.
        states_stretched: whether `max_position_embeddings` counts the stretching of the context in, whatever its kind.
    """
    stated = raw.integer("max_position_embeddings")
    bos = raw.integers("bos_token_id")
    return ModelConfig(
        model_type=str(raw.fields["model_type"]),
        vocab_size=raw.integer("vocab_size"),
        hidden_size=raw.integer("hidden_size"),
        layers=layers,
        norm_eps=raw.number("rms_norm_eps", 1e-6),
        max_position_embeddings=stated
        if states_stretched
        else max(stretched_context(layer.attention.rope, stated) for layer in layers),
        tie_embeddings=raw.boolean("tie_word_embeddings", tie_embeddings),
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=raw.integers("eos_token_id"),
    )
