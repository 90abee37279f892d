"""An option is declared once: what its field says is what is checked, whoever gives the value."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from jaxserve.errors import ModelLoadError
from jaxserve.options import ApiOptions, EngineOptions, HostsOptions, Limits, ServeOptions, build, declared
from jaxserve.options.engine import platform_defaults
from jaxserve.options.values import parse_bytes, parse_mesh, show_bytes

CLASSES = (ServeOptions, EngineOptions, HostsOptions, ApiOptions)
EVERY = list(declared(*CLASSES))
BOUNDED = [each for each in EVERY if each.range and not each.repeatable]


def make(name, value):
    """The option class that declares `name`, with this value."""
    cls = next(cls for cls in (*CLASSES, Limits) if name in {field.name for field in fields(cls)})
    return cls(**({"model_dir": Path("model")} if cls is EngineOptions else {}), **{name: value})


def test_no_name_stands_for_two_options():
    names = [each.name for each in EVERY]
    assert len(names) == len(set(names))
    assert len({each.flag for each in EVERY}) == len(names)
    assert {"max_waiting", "max_body_bytes", "model", "kv_memory"} <= set(names), "limits are options too"


@pytest.mark.parametrize("each", EVERY, ids=lambda each: each.name)
def test_each_option_tells_what_it_is(each):
    assert each.option.help.endswith(".")
    assert each.default is not None or each.option.default_text, "None says nothing to a reader"
    assert each.default_words


@pytest.mark.parametrize("each", BOUNDED, ids=lambda each: each.name)
def test_values_out_of_range_are_refused_with_the_flag(each):
    bounds = [(each.option.least, -1), (each.option.most, 1)]
    for bound, step in bounds:
        if bound is not None:
            make(each.name, bound)
            with pytest.raises(ModelLoadError, match=f"{each.flag} must be {each.range}, not "):
                make(each.name, bound + step)


@pytest.mark.parametrize("each", [each for each in EVERY if each.choices], ids=lambda each: each.name)
def test_values_that_are_no_choice_are_refused(each):
    for choice in each.choices:
        make(each.name, choice)
    with pytest.raises(ModelLoadError, match=f"{each.flag} must be one of {', '.join(each.choices)}, not 'other'"):
        make(each.name, "other")


def test_build_fills_nested_classes_and_leaves_defaults():
    api = build(ApiOptions, {"max_prompts": 3, "lenient": True, "api_keys": ["a", "b"], "port": 1, "deployment": None})
    assert api == ApiOptions(limits=Limits(max_prompts=3), lenient=True, api_keys=("a", "b"))
    assert build(ApiOptions, {}) == ApiOptions()


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_what_was_chosen_takes_the_place_of_the_platforms(platform):
    defaults = platform_defaults(platform)
    assert EngineOptions(Path("m")).chosen(platform) == defaults
    chosen = EngineOptions(Path("m"), max_num_seqs=3, layer_loop="scan").chosen(platform)
    assert (chosen.max_num_seqs, chosen.layer_loop) == (3, "scan")
    assert (chosen.dtype, chosen.max_num_batched_tokens) == (defaults.dtype, defaults.max_num_batched_tokens)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("2GiB", 2 << 30), ("2gib", 2 << 30), ("1.5 M", 1_500_000), ("512MB", 512_000_000), ("3k", 3000)],
)
def test_sizes_are_read(text, size):
    assert parse_bytes(text) == size
    assert parse_bytes(show_bytes(size)) == size


@pytest.mark.parametrize("text", ["", "lots", "-1GiB", "0", "1 TiB of it", "GiB", "1e9"])
def test_other_texts_are_no_sizes(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "mesh"), [("8", 8), ("kv=4", (1, 4, 1)), ("replica=2, kv=4,group=2", (2, 4, 2)), ("group=1", (1, 1, 1))]
)
def test_meshes_are_read(text, mesh):
    assert parse_mesh(text) == mesh


@pytest.mark.parametrize("text", ["", "banana", "0", "-1", "kv=0", "kv=x", "tp=2", "kv=4;group=2", "2.5"])
def test_other_texts_are_no_meshes(text):
    with pytest.raises(ValueError, match="neither a number of devices nor axes"):
        parse_mesh(text)
