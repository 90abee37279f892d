"""The seams for kernels: another backend gives the same logits, prepares once for each page group, and is chosen by
name or by device."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from dense_backend import Dense

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models.config import MoeSpec
from jaxserve.models.kernels import choice
from jaxserve.models.kernels.xla import Xla
from jaxserve.resolve import bundled_model_dir


class Counting(Xla):
    """Multiplies as `Xla`, and counts what it is asked while programs are traced."""

    def multiply(self, x_TI, weight, dtype=None, *, local=True):
        calls["multiply"] += 1
        return super().multiply(x_TI, weight, dtype, local=local)

    def apply_experts(self, *arguments):
        calls["experts"] += 1
        return super().apply_experts(*arguments)


calls: Counter[str] = Counter()


def prompts(config):
    ids = np.random.default_rng(1).integers(0, config.vocab_size, 80)
    return ids[:50].tolist(), ids[50:].tolist()


def logits(session, config):
    """Two sequences: prefill in two chunks beside each other, then steps that decode both."""
    one, two = prompts(config)
    steps = [
        session.run([(0, 0, one[:30]), (1, 0, two[:11])], 64),
        session.run([(0, 30, one[30:48]), (1, 11, two[11:12])], 64),
        session.run([(0, 48, one[48:49]), (1, 12, two[12:13])], 64),
        session.run([(0, 49, one[49:50]), (1, 13, two[13:14])], 64),
    ]
    return np.concatenate([row for step in steps for row in step])


@pytest.mark.parametrize(
    ("name", "loop", "groups"),
    [
        ("qwen2_bias", "unroll", 1),
        ("mistral_window", "scan", 1),
        ("gpt_oss", "scan", 2),
        ("gemma3", "unroll", 3),
        ("deepseek_v3", "scan", 1),
    ],
)
def test_whole_models_through_another_backend(name, loop, groups, model_fixtures, make_session, poison):
    """Another cache layout, another computation: the same logits, with stale pages that hold NaN."""
    dense = Dense()
    backends = models.Backends(dense, Xla())
    ours = make_session(models.load_model(model_fixtures / name, layer_loop=loop))
    theirs = make_session(models.load_model(model_fixtures / name, layer_loop=loop, backends=backends))
    assert set(theirs.cache).isdisjoint(ours.cache)
    poison(theirs)
    config = ours.model.config
    np.testing.assert_allclose(logits(theirs, config), logits(ours, config), atol=1e-4)
    assert len(dense.prepared) == groups, "prepared once per traced step and page group, whatever the layers"
    assert len(models.cache_layout(config).groups) == groups
    assert {shape.window for shape, _ in dense.prepared} == set(models.cache_layout(config).windows)


def test_products_go_through_the_matmul_backend(model_fixtures, make_session):
    backends = models.choose_backends(None, None, "cpu")
    calls.clear()
    session = make_session(
        models.load_model(model_fixtures / "qwen3_moe", backends=replace(backends, matmul=Counting()))
    )
    session.run([(0, 0, [1, 2, 3])], 64)
    kinds = set(session.model.config.layers)  # alike layers are traced once
    assert calls["experts"] == sum(isinstance(layer.mlp, MoeSpec) for layer in kinds)
    assert calls["multiply"] >= 4 * len(kinds) + 1, "q, k, v, o of each kind of layer, and the logits"


@pytest.mark.parametrize("flag", ["attention", "matmul"])
def test_unknown_names_are_refused_by_name(flag):
    names = {"attention": None, "matmul": None, flag: "nonsense"}
    with pytest.raises(ModelLoadError, match=rf"--{flag} nonsense is unknown; there are: .*(blocked|xla)"):
        models.choose_backends(names["attention"], names["matmul"], "cpu")


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_every_platform_has_kernels(platform):
    """Names that are asked for are taken; and a choice is equal to the same choice made again."""
    assert models.choose_backends(None, None, platform) == models.choose_backends(None, None, platform)
    asked = models.choose_backends("blocked", "xla", platform)
    assert (asked.attention.name, asked.matmul.name) == ("blocked", "xla")


def test_a_backend_that_cannot_serve_is_passed_over_or_refused(monkeypatch, model_fixtures):
    capped = models.load_config(model_fixtures / "gemma2").layers
    plain = models.load_config(model_fixtures / "qwen2_bias").layers
    entry = choice.Entry("dense_backend", "Dense", ("cpu",))
    monkeypatch.setattr(choice, "ATTENTION", {"dense": entry, **choice.ATTENTION})
    assert models.choose_backends(None, None, "cpu", plain).attention.name == "dense"
    assert models.choose_backends(None, None, "cpu", capped).attention.name != "dense"
    assert models.choose_backends(None, None, "tpu", plain).attention.name != "dense"
    with pytest.raises(ModelLoadError, match="--attention dense has no soft cap"):
        models.choose_backends("dense", None, "cpu", capped)


@pytest.mark.parametrize(("attention", "size"), [("blocked", 24), ("dense", 32)])
def test_page_sizes_that_a_backend_does_not_know_are_refused(attention, size):
    backends = (
        models.Backends(Dense(), Xla()) if attention == "dense" else models.choose_backends(attention, None, "cpu")
    )
    config = models.load_config(bundled_model_dir())
    with pytest.raises(ModelLoadError, match=rf"--attention {attention} works with pages of .*16.* not of {size}"):
        models.cache_spec(config, num_pages=4, page_size=size, dtype="float32", backends=backends)


def test_a_cache_holds_what_its_backend_asks_for(model_fixtures):
    config = models.load_config(model_fixtures / "qwen2_bias")
    spec = models.cache_spec(
        config, num_pages=4, page_size=16, dtype="float32", backends=models.Backends(Dense(), Xla())
    )
    shape = (config.num_layers * 4, config.num_kv_heads, 16, config.head_dim)
    assert {name: leaf.shape for name, leaf in spec.items()} == {"keys": shape, "values": shape}
    assert all(leaf.dtype == jnp.float32 for leaf in spec.values())
