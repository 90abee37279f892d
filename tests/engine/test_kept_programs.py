"""Programs that an earlier start kept: found, run, renewed where they can't be read, and told apart."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_configs import engine_config
from program_cache import cached_programs

from jaxserve import models
from jaxserve.engine import compilations, kept_programs, step
from jaxserve.engine.kept_programs import KeptPrograms
from jaxserve.engine.programs import Programs
from jaxserve.resolve import bundled_model_dir
from jaxserve.sampling.packing import BIAS_COLUMNS
from jaxserve.sampling.state import init_state


@pytest.fixture(scope="module")
def model():
    return models.load_model(bundled_model_dir())


CONFIG = engine_config(max_num_seqs=2, max_num_batched_tokens=8, page_size=16, num_pages=9)


def started(model, config=CONFIG):
    """Programs as a start makes them, and how many were compiled for it."""
    compilations.listen()
    jax.clear_caches()
    before = compilations.count()
    programs = Programs(config, model)
    programs.compile()
    return programs, compilations.count() - before


def output(model, programs):
    """What the forward program says of a step."""
    layout = programs.layouts[-1]
    packed = np.zeros(layout.size, np.int32)
    views = layout.split(packed)
    views.tokens_T[:3], views.cu_q_lens[1:], views.kv_lens_R[0] = (5, 6, 7), 3, 3
    for table in views.page_tables:
        table[0, 0] = 1
    last = jnp.zeros(CONFIG.max_num_seqs, jnp.int32)
    result = programs.forward[layout](model.leaves, models.init_cache(programs.cache), last, packed)
    return [np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(result)]


@pytest.fixture(scope="module")
def first(model, tmp_path_factory):
    """The first start's programs, and where they were kept."""
    with cached_programs(tmp_path_factory.mktemp("kept")) as directory:
        programs, compiled = started(model)
    assert compiled >= len(programs.by_name) == len(list(directory.iterdir()))
    return programs, directory


@pytest.fixture
def cache(first, tmp_path):
    """What the first start kept, to be damaged."""
    shutil.copytree(first[1], tmp_path / "programs")
    with cached_programs(tmp_path) as directory:
        yield directory


def test_the_second_start_compiles_nothing_and_runs_the_same(model, first, cache):
    second, compiled = started(model)
    assert compiled == 0
    for a, b in zip(output(model, first[0]), output(model, second), strict=True):
        assert np.array_equal(a, b)


def test_what_cannot_be_read_is_compiled_anew(model, cache, caplog):
    damaged, cut, *_ = small = sorted(cache.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert started(model)[1] == 2
    assert sum("can't be read" in record.message for record in caplog.records) == 2
    assert started(model)[1] == 0
    assert sorted(cache.iterdir()) == sorted(small)


def test_what_jax_has_kept_is_compiled_afresh(model, tmp_path, monkeypatch):
    """On CPUs a program that came from jax's cache, written again, fails when it runs."""
    jobs = Programs._jobs
    monkeypatch.setattr(Programs, "_jobs", lambda self: (job for job in jobs(self) if job.name == "write_bias"))
    with cached_programs(tmp_path) as directory:
        with monkeypatch.context() as patch:
            patch.setattr(KeptPrograms, "of", lambda model: None)
            started(model)
        assert not directory.exists()
        started(model)
        programs, compiled = started(model)
    assert compiled == 0
    state = init_state(CONFIG.max_num_seqs, model.config.vocab_size)
    words = np.zeros(BIAS_COLUMNS, np.int32)
    jax.block_until_ready(programs.write_bias(jax.device_put(state, programs.replicated), words))


def test_a_directory_that_takes_no_files_costs_one_warning(model, first, tmp_path, caplog):
    (tmp_path / "programs").write_text("a file where the directory should be")
    with cached_programs(tmp_path), caplog.at_level(logging.WARNING):
        kept = KeptPrograms.of(model)
    for name, compiled in first[0].by_name.items():
        assert kept.find(tmp_path / "programs" / name) is None
        kept.keep(tmp_path / "programs" / name, compiled)
    assert ["can't be kept" in record.message for record in caplog.records] == [True]


def test_names_tell_apart_what_programs_depend_on(model, tmp_path, monkeypatch):
    shape = (jax.ShapeDtypeStruct((3,), jnp.float32),)
    plain, score = partial(step.sample, None), partial(step.score, model.graphdef)

    def name(function=plain, arguments=shape, donate=(0,), model=model):
        with cached_programs(tmp_path):
            path = KeptPrograms.of(model).path(function, arguments, donate)
        return None if path is None else path.name

    names = {
        name(),
        name(function=step.score),
        name(arguments=(jax.ShapeDtypeStruct((4,), jnp.float32),)),
        name(arguments=(jax.ShapeDtypeStruct((3,), jnp.bfloat16),)),
        name(donate=()),
        name(function=score),
        name(function=score, model=replace(model, dtype="bfloat16")),
        name(function=score, model=replace(model, config=replace(model.config, vocab_size=7))),
        name(function=partial(step.forward, Programs(CONFIG, model).layouts[0], 16)),
        name(function=partial(step.forward, Programs(CONFIG, model).layouts[0], 8)),
    }
    for variable in ("XLA_FLAGS", "JAXSERVE_NATIVE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "other")
            names.add(name())
    with monkeypatch.context() as patch:
        patch.setattr(kept_programs, "_sources", lambda: "other sources")
        names.add(name())
    assert len(names) == 13
    assert name() == name() == name(model=replace(model, dtype="bfloat16")), "samplers know no model"
    assert name(function=partial(step.sample, lambda logits, rows: logits)) is None, "a rule of one's own has no name"


def test_sources_of_programs_are_told_apart_and_no_others(tmp_path):
    def digest(**changed):
        for name in ("config.py", "models/deep/a.py", "native/src/b.h", "api/c.py", "models/notes.txt"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(changed.get(path.stem, "before"))
        kept_programs._sources.cache_clear()
        return kept_programs._sources(tmp_path)

    assert digest() == digest(c="after") == digest(notes="after")
    assert len({digest(), digest(config="after"), digest(a="after"), digest(b="after")}) == 4


def test_without_jaxs_cache_nothing_is_kept(model, tmp_path):
    with cached_programs(tmp_path):
        with compilations.afresh():
            assert KeptPrograms.of(model) is None
        for directory in (None, "gs://bucket/cache"):
            jax.config.update("jax_compilation_cache_dir", directory)
            assert KeptPrograms.of(model) is None


def test_the_oldest_files_go_first(tmp_path):
    files = [tmp_path / name for name in "abc"]
    for age, file in enumerate(files):
        file.write_bytes(bytes(10))
        os.utime(file, (1000 - age, 1000 - age))
    kept_programs._prune(tmp_path.iterdir(), 20)
    assert sorted(tmp_path.iterdir()) == files[:2]
