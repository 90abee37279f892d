"""Programs in files: they run when loaded, and what does not fit is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_configs import engine_config
from program_cache import cached_programs

from jaxserve import models
from jaxserve.engine import compilations
from jaxserve.engine.stored_programs import StoredPrograms, write
from jaxserve.errors import ModelLoadError
from jaxserve.resolve import bundled_model_dir
from jaxserve.sampling.state import abstract_state, init_state


@pytest.fixture(scope="module")
def model():
    return models.load_config(bundled_model_dir())


@pytest.fixture
def stored(tmp_path, model):
    """One program over a slot state, whose tree definition can't be pickled."""
    device = jax.devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    state = abstract_state(2, 8, sharding)

    def compile_program():
        return jax.jit(lambda state, x: (state, x + 1)).lower(state, jax.ShapeDtypeStruct((3,), jnp.float32)).compile()

    with cached_programs(tmp_path / "cache"):
        compile_program()
        with compilations.afresh():
            compiled = compile_program()
    write(tmp_path / "out", [("step", compiled)], engine_config(), model, device)
    return tmp_path / "out"


def test_a_loaded_program_runs_and_nothing_is_compiled(stored, model):
    opened = StoredPrograms.open(stored, model, jax.devices()[0])
    state, x = jax.device_put((init_state(2, 8), np.ones(3, np.float32)))
    compilations.listen()
    before = compilations.count()
    kept, out = opened.load("step", jax.devices()[:1])(state, x)
    assert compilations.count() == before
    assert out.tolist() == [2, 2, 2]
    assert jax.tree.structure(kept) == jax.tree.structure(state)


def test_sizes_are_those_of_the_programs(stored, model):
    opened = StoredPrograms.open(stored, model, jax.devices()[0])
    other = replace(engine_config(), num_pages=99)
    assert opened.sizes(other, ()) == engine_config()
    with pytest.raises(ModelLoadError, match="compiled with --num-pages"):
        opened.sizes(other, ["num_pages"])


def test_what_does_not_fit_is_named(stored, model):
    manifest = json.loads((stored / "programs.json").read_text())
    with pytest.raises(ModelLoadError, match="another model"):
        StoredPrograms.open(stored, replace(model, vocab_size=7), jax.devices()[0])
    manifest["environment"]["jaxlib"] = "0.0.1"
    (stored / "programs.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelLoadError, match=r"compiled for jaxlib 0\.0\.1, here is"):
        StoredPrograms.open(stored, model, jax.devices()[0])
    (stored / "programs.json").unlink()
    with pytest.raises(ModelLoadError, match=r"no readable programs\.json"):
        StoredPrograms.open(stored, model, jax.devices()[0])


def test_a_program_that_is_missing_is_named(stored, model):
    opened = StoredPrograms.open(stored, model, jax.devices()[0])
    with pytest.raises(ModelLoadError, match="forward-8 can't be loaded"):
        opened.load("forward-8", jax.devices()[:1])
