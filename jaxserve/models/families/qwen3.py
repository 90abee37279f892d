"""Qwen3 dense (`qwen3`): RMSNorm on each head of q and k, optional attention bias."""

from __future__ import annotations

from jaxserve.models.config import ModelConfig
from jaxserve.models.families.qwen2 import read_qwen
from jaxserve.models.family import Family
from jaxserve.models.hub import HubConfig


def _read(raw: HubConfig) -> ModelConfig:
    bias = raw.boolean("attention_bias", False)
    return read_qwen(raw, qkv_bias=bias, out_bias=bias, qk_norm="head")


FAMILY = Family(_read)
