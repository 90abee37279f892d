"""Logits of every family against our float64 reference, and other people's golden checkpoints where present."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from jaxserve import models

FIXTURES = ("llama_one_kv_head", "llama_linear_rope", "mistral_window", "qwen2_bias", "qwen3_one_layer")
GOLDEN = ("llama2", "llama3", "mistral", "qwen2", "qwen3")


@pytest.mark.parametrize("loop", ["unroll", "scan"])
@pytest.mark.parametrize("name", FIXTURES)
def test_fixture_logits(name, loop, model_fixtures, make_session, poison):
    expected = np.load(model_fixtures / name / "expected.npz")
    session = make_session(models.load_model(model_fixtures / name, layer_loop=loop))
    poison(session)
    logits = session.run([(0, 0, expected["ids"])], 64)[0]
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", FIXTURES)
def test_chunks_steps_and_prefix_agree_bit_for_bit(name, model_fixtures, make_session):
    ids = np.load(model_fixtures / name / "expected.npz")["ids"]
    session = make_session(models.load_model(model_fixtures / name))
    whole = session.run([(0, 0, ids)], 64)[0]
    sevens = session.chunks(ids, [7] * 6 + [3], 8, sequence=1)
    np.testing.assert_array_equal(sevens, whole)
    np.testing.assert_array_equal(session.chunks(ids, [1] * 45, 4), whole)
    resumed = session.run([(0, 40, ids[40:]), (1, 32, ids[32:])], 64)
    np.testing.assert_array_equal(resumed[0], whole[40:])
    np.testing.assert_array_equal(resumed[1], whole[32:])
    mixed = session.run([(0, 44, ids[44:]), (1, 3, ids[3:20])], 64)
    np.testing.assert_array_equal(mixed[0], whole[44:])
    np.testing.assert_array_equal(mixed[1], whole[3:20])


def test_scan_and_unroll_agree(model_fixtures, make_session):
    ids = np.load(model_fixtures / "mistral_window" / "expected.npz")["ids"]
    logits = [
        make_session(models.load_model(model_fixtures / "mistral_window", layer_loop=loop)).run([(0, 0, ids)], 64)[0]
        for loop in ("scan", "unroll")
    ]
    np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("style", ["config.json", "config_v5.json"])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, style, shared_dir, make_session, tmp_path):
    source = shared_dir / "golden" / name
    shutil.copy(source / style, tmp_path / "config.json")
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    golden = np.load(source / "golden.npz")
    session = make_session(models.load_model(tmp_path, layer_loop="scan" if style == "config.json" else "unroll"))
    ids = golden["ids_a"]
    whole = session.run([(0, 0, ids)], 32)[0]
    np.testing.assert_allclose(whole, golden["logits_a"], atol=1e-3, rtol=0)
    assert session.greedy(ids, 16) == golden["greedy_a"].tolist()
    if style == "config.json":
        both = session.run([(0, 0, golden["ids_b"]), (1, 0, ids)], 64)
        np.testing.assert_allclose(both[0], golden["logits_b"], atol=1e-3, rtol=0)
        np.testing.assert_allclose(both[1], golden["logits_a"], atol=1e-3, rtol=0)
        sevens = session.chunks(ids, [7] * 4, 8)
        np.testing.assert_allclose(sevens, golden["logits_a"], atol=1e-3, rtol=0)
        steps = session.chunks(ids, [1] * 28, 4, sequence=1)
        np.testing.assert_allclose(steps, golden["logits_a"], atol=1e-3, rtol=0)
        hit = session.run([(1, 16, ids[16:])], 32)[0]
        np.testing.assert_allclose(hit, golden["logits_a"][16:], atol=1e-3, rtol=0)


def test_bfloat16_is_close(model_fixtures, make_session):
    expected = np.load(model_fixtures / "qwen3_one_layer" / "expected.npz")
    session = make_session(models.load_model(model_fixtures / "qwen3_one_layer", dtype="bfloat16"))
    logits = session.run([(0, 0, expected["ids"])], 64)[0]
    error = np.linalg.norm(logits - expected["logits"]) / np.linalg.norm(expected["logits"])
    assert 0 < error < 0.02


def test_both_config_styles_read_alike(shared_dir, tmp_path):
    for name in GOLDEN:
        configs = []
        for style in ("config.json", "config_v5.json"):
            shutil.copy(shared_dir / "golden" / name / style, tmp_path / "config.json")
            configs.append(models.load_config(tmp_path))
        assert configs[0] == configs[1]


def test_architecture_stands_in_for_model_type(model_fixtures, tmp_path):
    fields = json.loads((model_fixtures / "qwen2_bias" / "config.json").read_text())
    del fields["model_type"]
    (tmp_path / "config.json").write_text(json.dumps({**fields, "architectures": ["Qwen2ForCausalLM"]}))
    assert models.load_config(tmp_path) == models.load_config(model_fixtures / "qwen2_bias")
