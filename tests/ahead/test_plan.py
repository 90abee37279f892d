"""`jaxserve plan` beside arithmetic by hand."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from jaxserve.ahead.chips import parse_topology
from jaxserve.ahead.plan import make_plan
from jaxserve.cli.commands import app
from jaxserve.errors import ExitCode, ModelLoadError
from jaxserve.options import EngineOptions

QWEN3_8B = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "eos_token_id": 151645,
}
MOE = {
    **QWEN3_8B,
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
TABLE = 151936 * 4096
LAYER = 4096 * (32 + 8 + 8) * 128 + 32 * 128 * 4096 + 3 * 4096 * 12288
"""Matrices of a layer: q, k, v; o; gate, up, down."""
POSITION = 36 * 2 * 8 * 128 * 2
"""Bytes of keys and values of a position."""


@pytest.fixture
def folder(tmp_path):
    def write(config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


def planned(folder, config, topology, **options):
    return make_plan(EngineOptions(folder(config), **options), parse_topology(topology))


def decoding(plan, sequences, context):
    return next(
        s for s in plan.steps if s.kind == "decode" and (s.work.sequences, s.work.context) == (sequences, context)
    )


def test_a_dense_model_on_one_chip(folder):
    plan = planned(folder, QWEN3_8B, "v6e")
    assert plan.problem is None
    assert plan.memory.weights == pytest.approx(2 * (36 * LAYER + 2 * TABLE), rel=1e-3)
    assert plan.memory.position == POSITION
    step = decoding(plan, 8, 1024)
    read = 2 * (36 * LAYER + TABLE) + 8 * 1024 * POSITION
    assert step.bound.memory == pytest.approx(read / 1640e9, rel=1e-3)
    assert step.bound.holds == "memory"
    assert step.tokens_per_second == pytest.approx(8 / step.bound.seconds)
    prefill = plan.steps[-1]
    products = 2 * 2048 * 36 * LAYER + 2 * TABLE
    attention = 36 * 2 * 32 * 2 * 128 * 2048 * 1024.5
    assert prefill.bound.compute == pytest.approx((products + attention) / 918e12, rel=1e-3)
    assert prefill.collectives == ()


def test_what_does_not_fit_is_told_with_a_way_out(folder):
    plan = planned(folder, QWEN3_8B, "v5e")
    assert plan.engine is None
    assert "fewer than one sequence" in plan.problem
    assert any(each.startswith("--quantize int8 fits here: 9.4 GB") for each in plan.advice)
    assert any("--topology v5e:2x2" in each for each in plan.advice)


def test_tensor_parallelism_exchanges_two_sums_a_layer(folder):
    plan = planned(folder, QWEN3_8B, "v5e:2x4")
    step = decoding(plan, 64, 1024)
    sums = {one.where: (one.times, one.bytes) for one in step.collectives if one.kind == "all-reduce"}
    assert sums == {"attention": (36, 64 * 4096 * 2), "mlp": (36, 64 * 4096 * 2), "embedding": (1, 64 * 4096 * 2)}
    sent = 2 * 7 / 8 * 73 * 64 * 4096 * 2 + 7 / 8 * 64 * 151936 * 4
    assert step.bound.links == pytest.approx(sent / 200e9)
    assert plan.memory.position == POSITION / 8


def test_of_experts_those_are_read_that_are_chosen(folder):
    plan = planned(folder, MOE, "v6e:2x2")
    expert = 2 * 3 * 2048 * 768 * 128 * 48 / 4
    one, many = (decoding(plan, sequences, 1024).bound.memory * 1640e9 for sequences in (1, 64))
    hit = 1 - (1 - 8 / 128) ** 64
    kv = 63 * 1024 * 48 * 2 * 4 * 128 * 2 / 4
    assert many - one == pytest.approx(expert * (hit - 8 / 128) + kv, rel=0.01)


@pytest.mark.parametrize(
    ("text", "words"), [("v9:2x2", "chips are v4, v5e"), ("v5e:2x2x2", "v5e is written like v5e:2x4"), ("v5p:8", None)]
)
def test_topologies(text, words):
    if words is None:
        assert parse_topology(text).devices == 8
    else:
        with pytest.raises(ModelLoadError, match=words):
            parse_topology(text)


def test_the_command(folder):
    path = str(folder(QWEN3_8B))
    told = CliRunner().invoke(app, ["plan", path, "--topology", "v5e:2x4", "--json", "--max-num-seqs", "16"])
    assert told.exit_code == 0, told.output
    plan = json.loads(told.stdout)
    assert (plan["devices"], plan["max_num_seqs"], plan["fits"]) == (8, 16, True)
    refused = CliRunner().invoke(app, ["plan", path, "--topology", "v5e"])
    assert refused.exit_code == ExitCode.CANNOT_SERVE
    assert "does not fit" in refused.stdout
