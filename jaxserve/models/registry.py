"""model_type -> family. Adding a family is one file in `families/` and one line here."""

from __future__ import annotations

from importlib import import_module

from jaxserve.errors import ModelLoadError
from jaxserve.models.family import Family
from jaxserve.models.hub import HubConfig

_FAMILIES: dict[str, tuple[str, str]] = {
    "deepseek_v2": ("deepseek_v2", "DeepseekV2ForCausalLM"),
    "deepseek_v3": ("deepseek_v3", "DeepseekV3ForCausalLM"),
    "deepseek_v32": ("deepseek_v32", "DeepseekV32ForCausalLM"),
    "gemma2": ("gemma2", "Gemma2ForCausalLM"),
    "gemma3": ("gemma3", "Gemma3ForConditionalGeneration"),
    "gemma3_text": ("gemma3", "Gemma3ForCausalLM"),
    "glm4": ("glm4", "Glm4ForCausalLM"),
    "glm4_moe": ("glm4_moe", "Glm4MoeForCausalLM"),
    "glm4_moe_lite": ("deepseek_v3", "Glm4MoeLiteForCausalLM"),
    "glm_moe_dsa": ("deepseek_v32", "GlmMoeDsaForCausalLM"),
    "gpt_oss": ("gpt_oss", "GptOssForCausalLM"),
    "kimi_k2": ("deepseek_v3", "DeepseekV3ForCausalLM"),
    "llama": ("llama", "LlamaForCausalLM"),
    "llava": ("llava", "LlavaForConditionalGeneration"),
    "minimax_m2": ("minimax_m2", "MiniMaxM2ForCausalLM"),
    "mistral": ("mistral", "MistralForCausalLM"),
    "mixtral": ("mixtral", "MixtralForCausalLM"),
    "phi3": ("phi3", "Phi3ForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen2_5_vl": ("qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "qwen3_moe": ("qwen3_moe", "Qwen3MoeForCausalLM"),
    "qwen3_vl": ("qwen3_vl", "Qwen3VLForConditionalGeneration"),
    "qwen3_vl_moe": ("qwen3_vl", "Qwen3VLMoeForConditionalGeneration"),
}
"""`model_type` of config.json -> (module in `models.families`, the name that `architectures` gives it)."""


def supported_model_types() -> tuple[str, ...]:
    """All model types that can be loaded."""
    return tuple(sorted(_FAMILIES))


def find_family(model_type: str) -> Family:
    """The family of a `model_type` that the registry has.

    Raises:
        ModelLoadError: the model type is unknown.
    """
    if model_type not in _FAMILIES:
        known = ", ".join(supported_model_types())
        raise ModelLoadError(f"Model type {model_type!r} is not supported (supported: {known}).")
    module = f"jaxserve.models.families.{_FAMILIES[model_type][0]}"
    family = import_module(module).FAMILY
    if not isinstance(family, Family):
        raise TypeError(f"{module} defines no Family")
    return family


def model_type_of(raw: HubConfig) -> str:
    """`model_type` of a configuration, else the one its `architectures` imply.

    Raises:
        ModelLoadError: neither is known.
    """
    model_type = raw.fields.get("model_type")
    architectures = raw.fields.get("architectures") or []
    if not isinstance(architectures, list):
        raise raw.bad("architectures", "must be a list")
    if isinstance(model_type, str):
        return model_type
    for name, (_, architecture) in _FAMILIES.items():
        if architecture in architectures:
            return name
    if architectures:
        raise ModelLoadError(f"{raw.path}: architecture {architectures[0]!r} is not supported.")
    raise raw.bad("model_type", "is missing")
