"""Logits and routing of every family against our float64 reference, and other people's golden checkpoints.

Compiling costs the time here: a fixture is compiled for two buckets (64 and 8 tokens), a golden checkpoint for one, and
all checks share them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from jaxserve import models

FIXTURES = (
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "gemma2",
    "gemma3",
    "glm4",
    "glm4_moe",
    "gpt_oss",
    "kimi_k2",
    "llama_linear_rope",
    "llama_one_kv_head",
    "minimax_m2",
    "mistral_window",
    "mixtral",
    "phi3",
    "qwen2_bias",
    "qwen3_moe",
    "qwen3_one_layer",
)
GOLDEN = (
    "deepseek_v3",
    "deepseek_v32",
    "gemma2",
    "gemma3",
    "glm4",
    "glm4_5",
    "glm4_5_air",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "gpt_oss",
    "kimi_k2",
    "llama2",
    "llama3",
    "minimax_m2",
    "mistral",
    "mixtral",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
)
SLOW_FIXTURES = ("kimi_k2", "mixtral")
"""Whose layers others have too; their golden checkpoints are read either way."""
FAST_COMPILATION = {"xla_backend_optimization_level": 0}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW_FIXTURES else name for name in FIXTURES]
)
def test_fixture(name, model_fixtures, served, poison):
    """The reference's logits and experts; then the same bits in chunks, stepwise, after a prefix, beside others."""
    expected = np.load(model_fixtures / name / "expected.npz")
    ids, session = expected["ids"], served(name)
    poison(session)
    whole = session.run([(0, 0, ids)], 64)[0]
    np.testing.assert_allclose(whole, expected["logits"], atol=1e-3, rtol=0)
    if "routing" in expected:
        np.testing.assert_array_equal(np.sort(session.routing, axis=-1), expected["routing"])
    else:
        assert session.routing is None
    np.testing.assert_array_equal(session.chunks(ids, [7] * 6 + [3], 8, sequence=1), whole)
    np.testing.assert_array_equal(session.chunks(ids, [1] * 45, 8), whole)
    resumed = session.run([(0, 40, ids[40:]), (1, 32, ids[32:])], 64)
    np.testing.assert_array_equal(resumed[0], whole[40:])
    np.testing.assert_array_equal(resumed[1], whole[32:])
    mixed = session.run([(0, 44, ids[44:]), (1, 3, ids[3:20])], 64)
    np.testing.assert_array_equal(mixed[0], whole[44:])
    np.testing.assert_array_equal(mixed[1], whole[3:20])


LOOPED = [
    *((name, "scan") for name in ("mistral_window", "glm4_moe", "gpt_oss")),
    pytest.param("deepseek_v32", "scan", marks=pytest.mark.slow),
    *((name, "switch") for name in ("gemma3", "qwen2_bias", "glm4_moe")),
]


@pytest.mark.parametrize(("name", "loop"), LOOPED)
def test_looped_layers_are_the_same(name, loop, model_fixtures, make_session, served):
    """One group, two groups (dense layers first), a period of two kinds of layers: bit for bit as unrolled."""
    ids = np.load(model_fixtures / name / "expected.npz")["ids"][:8]
    looped = make_session(models.load_model(model_fixtures / name, layer_loop=loop))
    np.testing.assert_array_equal(looped.run([(0, 0, ids)], 8)[0], served(name).run([(0, 0, ids)], 8)[0])
    np.testing.assert_array_equal(looped.routing, served(name).routing)


def check_golden(folder, session):
    golden = np.load(folder / "golden.npz")
    ids, wanted = golden["ids_a"], golden["logits_a"]
    close = {"atol": 1e-3, "rtol": 0}
    np.testing.assert_allclose(session.run([(0, 0, ids)], 64)[0], wanted, **close)
    assert (session.routing is not None) == ("route_ids_a" in golden)
    if session.routing is not None:
        np.testing.assert_array_equal(np.sort(session.routing, axis=-1), golden["route_ids_a"])
    np.testing.assert_allclose(session.chunks(ids, [7] * 4, 64), wanted, **close)
    np.testing.assert_allclose(session.chunks(ids, [1] * 28, 64, sequence=1), wanted, **close)
    np.testing.assert_allclose(session.run([(1, 16, ids[16:])], 64)[0], wanted[16:], **close)
    both = session.run([(0, 0, golden["ids_b"]), (1, 0, ids)], 64)
    np.testing.assert_allclose(both[0], golden["logits_b"], **close)
    np.testing.assert_allclose(both[1], wanted, **close)
    assert session.greedy(ids, 16) == golden["greedy_a"].tolist()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, shared_dir, make_session):
    """Logits of another implementation; compiled without optimisation, which the fixtures are checked with."""
    folder = shared_dir / "golden" / name
    check_golden(folder, make_session(models.load_model(folder, layer_loop="scan"), options=FAST_COMPILATION))


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_as_served(name, shared_dir, make_session):
    folder = shared_dir / "golden" / name
    check_golden(folder, make_session(models.load_model(folder)))


@pytest.mark.parametrize("name", GOLDEN)
def test_both_config_styles_read_alike(name, shared_dir, tmp_path):
    folder = shared_dir / "golden" / name
    shutil.copy(folder / "config_v5.json", tmp_path / "config.json")
    hub, modern = models.load_config(folder), models.load_config(tmp_path)
    assert replace(modern, model_type=hub.model_type) == hub  # the golden Kimi K2 is saved as a deepseek_v3


@pytest.mark.parametrize(("name", "bound"), [("qwen3_one_layer", 0.02), ("minimax_m2", 0.02), ("kimi_k2", 0.03)])
def test_bfloat16_is_close(name, bound, model_fixtures, make_session):
    expected = np.load(model_fixtures / name / "expected.npz")
    session = make_session(models.load_model(model_fixtures / name, dtype="bfloat16"), options=FAST_COMPILATION)
    logits = session.run([(0, 0, expected["ids"])], 64)[0]
    error = np.linalg.norm(logits - expected["logits"]) / np.linalg.norm(expected["logits"])
    assert 0 < error < bound


def test_architecture_stands_in_for_model_type(model_fixtures, tmp_path):
    fields = json.loads((model_fixtures / "qwen2_bias" / "config.json").read_text())
    del fields["model_type"]
    (tmp_path / "config.json").write_text(json.dumps({**fields, "architectures": ["Qwen2ForCausalLM"]}))
    assert models.load_config(tmp_path) == models.load_config(model_fixtures / "qwen2_bias")
