"""DeepSeek V2, V2.5, V2-Lite and Coder-V2 (`deepseek_v2`): V3's layers behind the router that came before it."""

from __future__ import annotations

from jaxserve.models.config import ModelConfig, RouterSpec
from jaxserve.models.families.deepseek_v3 import NAMES, layers_around
from jaxserve.models.family import Family
from jaxserve.models.hub import HubConfig
from jaxserve.models.hub_layers import read_latent_attention


def _read_router(raw: HubConfig) -> RouterSpec:
    """Softmax over all experts, then the best of all, or of the groups that hold the best experts.

    Raises:
        ModelLoadError: another router, or a malformed field.
    """
    raw.only("scoring_func", "softmax")
    raw.only("norm_topk_prob", False)
    scaling = raw.number("routed_scaling_factor", 1.0)
    if raw.fields.get("topk_method", "greedy") == "greedy":
        return RouterSpec("softmax", scaling=scaling)
    raw.only("topk_method", "group_limited_greedy")
    groups, top = raw.integer("n_group"), raw.integer("topk_group")
    return RouterSpec("softmax", scaling=scaling, groups=groups, top_groups=top, group_best=1)


def _read(raw: HubConfig) -> ModelConfig:
    return layers_around(raw, read_latent_attention(raw), _read_router(raw))


FAMILY = Family(_read, NAMES, more_layers=True)
