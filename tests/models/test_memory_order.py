"""How parameters lie in memory where the platform is one that has a say: here CPUs are told to be."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxserve import models
from jaxserve.models import memory_order
from jaxserve.models.model import plan_model

NAME = "gpt_oss_mxfp4"


@pytest.fixture
def ordered(monkeypatch):
    monkeypatch.setattr(memory_order, "_PLATFORMS", ("cpu",))


def loaded(model_fixtures):
    return models.load_model(model_fixtures / NAME, layer_loop="scan")


def orders(model):
    plan = plan_model(model.config, mesh=model.mesh, dtype=model.dtype, layer_loop="scan", backends=model.backends)
    found = zip(plan.leaves, model.leaves, strict=True)
    return {leaf.name: array.format.layout.major_to_minor for leaf, array in found}


def test_tables_lie_in_rows_and_codes_turned(ordered, model_fixtures):
    found = orders(loaded(model_fixtures))
    assert found["embed"] == (0, 1)
    for part in ("gate", "up", "down"):
        for name in (f"mlp.experts.{part}_proj.weight", f"mlp.experts.{part}_proj.weight_scale"):
            *leading, last, other = found[name]
            assert (tuple(leading), last, other) == (tuple(range(len(leading))), len(leading) + 1, len(leading)), name


def test_elsewhere_nothing_is_asked_for(model_fixtures):
    model = loaded(model_fixtures)
    assert all(order == tuple(range(len(order))) for order in orders(model).values())
    assert all(memory_order.placement(leaf) == leaf.sharding for leaf in model.leaves)


def test_programs_are_compiled_for_arrays_as_they_lie(ordered, model_fixtures, monkeypatch):
    model = loaded(model_fixtures)
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=models.placement(a)) for a in model.leaves]
    total = jax.jit(lambda leaves: [leaf.astype("float32").sum() for leaf in leaves]).lower(shapes).compile()
    sums = [float(one) for one in total(model.leaves)]
    monkeypatch.setattr(memory_order, "_PLATFORMS", ())
    plain = loaded(model_fixtures)
    np.testing.assert_allclose(
        sums, [float(np.asarray(a, np.float32).sum()) for a in plain.leaves], rtol=1e-4, atol=1e-4
    )
    for ours, theirs in zip(model.leaves, plain.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
