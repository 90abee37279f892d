"""From options and memory to sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jaxserve.engine.sizing import DeviceFacts, ModelFacts, derive_config
from jaxserve.errors import ModelLoadError
from jaxserve.options import EngineOptions

CPU = DeviceFacts("cpu")
MODEL = ModelFacts(context=4096, page_bytes=1 << 20, step_bytes=1 << 30)
ONE = (1, 1, 1)


def options(**more):
    return EngineOptions(model_dir=Path("model"), **more)


def test_pages_follow_from_the_memory_asked_for():
    config = derive_config(options(kv_memory=1 << 30, max_num_seqs=4), MODEL, CPU, ONE)
    assert config.num_pages == 1024
    assert config.max_model_len == 4096
    assert config.dtype == "float32"
    assert config.layer_loop == "switch"


def test_an_accelerator_gives_what_weights_and_temporaries_leave():
    device = DeviceFacts("tpu", memory_limit=16 << 30, memory_in_use=4 << 30)
    config = derive_config(options(max_num_seqs=256), MODEL, device, ONE)
    assert config.num_pages == (int((16 << 30) * 0.9) - (5 << 30)) // (1 << 20)
    assert config.dtype == "bfloat16"
    assert config.layer_loop == "scan"


def test_no_more_pages_than_the_slots_and_the_prefix_cache_can_use():
    config = derive_config(options(max_num_seqs=1, max_model_len=64), MODEL, DeviceFacts("gpu", 80 << 30, 0), ONE)
    assert config.num_pages == 2 * 1 * 4 + 1
    small = ModelFacts(context=4096, page_bytes=1 << 10, step_bytes=0)
    config = derive_config(options(max_num_seqs=4, max_model_len=64), small, CPU, ONE)
    assert config.num_pages == 4 * 4 * 5 // 4 + 1, "on CPU a bounded prefix cache, however large the machine"
    assert derive_config(options(max_model_len=256), MODEL, CPU, ONE).num_pages == 20 * 16 + 1
    assert derive_config(options(max_model_len=1024), MODEL, CPU, ONE).num_pages == 1024, "a GiB"


def test_a_step_holds_a_token_of_each_slot():
    config = derive_config(options(max_num_seqs=300, kv_memory=8 << 30), MODEL, CPU, ONE)
    assert config.token_buckets == (4, 8, 16, 32, 64, 128, 256, 300)


def test_the_context_shrinks_to_the_memory_unless_it_was_asked_for():
    small = 100 << 20
    assert derive_config(options(kv_memory=small), MODEL, CPU, ONE).max_model_len == 99 * 16
    with pytest.raises(ModelLoadError, match="--kv-memory"):
        derive_config(options(kv_memory=small, max_model_len=4096), MODEL, CPU, ONE)


def test_page_groups_share_the_memory_and_windows_need_a_bounded_part():
    window = ModelFacts(4096, 1 << 20, 1 << 30, page_windows=(None, 128, 128))
    sizes = {"max_num_batched_tokens": 256, "max_num_seqs": 4}
    ring = -(-(128 - 1 + 256) // 16) + 1
    config = derive_config(options(kv_memory=512 << 20, **sizes), window, CPU, ONE)
    assert config.page_windows == (None, 128, 128)
    assert config.table_columns == (256, ring, ring)
    assert (config.max_model_len, config.num_pages) == (4096, 512)
    config = derive_config(options(kv_memory=200 << 20, **sizes), window, CPU, ONE)
    assert config.max_model_len == (200 - 1 - 2 * ring) * 16, "what the rings leave"
    assert sum(config.table_columns) == 199
    config = derive_config(options(kv_memory=40 << 20, **sizes), window, CPU, ONE)
    assert config.table_columns == (13, 13, 13), "shorter than the rings"
    free = DeviceFacts("gpu", 80 << 30, 0)
    assert derive_config(options(**sizes), window, free, ONE).num_pages == 2 * 4 * (256 + 2 * ring) + 1
    with pytest.raises(ModelLoadError, match="holds 208 tokens, fewer than one sequence of 4096: raise --kv-memory"):
        derive_config(options(kv_memory=40 << 20, max_model_len=4096, **sizes), window, CPU, ONE)


def test_windows_alone_fit_any_context():
    window = ModelFacts(131072, 1 << 20, 1 << 30, page_windows=(1024,))
    config = derive_config(options(kv_memory=100 << 20, max_num_batched_tokens=256), window, CPU, ONE)
    assert (config.max_model_len, config.table_columns) == (131072, (81,))


@pytest.mark.parametrize(
    ("more", "flag"),
    [
        ({"max_model_len": 5000}, "--max-model-len"),
        ({"kv_memory": 1000}, "--kv-memory"),
        ({"max_num_batched_tokens": 8, "max_num_seqs": 2}, "--max-num-batched-tokens"),
        ({"max_num_seqs": 600, "max_num_batched_tokens": 512}, "--max-num-seqs"),
        ({"token_buckets": (64, 32)}, "token_buckets"),
        ({"context_buckets": (64, 64)}, "context_buckets"),
        ({"context_buckets": (0, 64)}, "context_buckets"),
    ],
)
def test_contradictions_name_their_flag(more, flag):
    with pytest.raises(ModelLoadError, match=flag):
        derive_config(options(**more), MODEL, CPU, ONE)


def test_buckets_end_with_the_budget_and_are_never_one():
    for platform in ("cpu", "tpu"):
        for budget in (16, 17, 100, 512):
            config = derive_config(
                options(max_num_batched_tokens=budget, max_num_seqs=2, kv_memory=8 << 30),
                MODEL,
                DeviceFacts(platform),
                ONE,
            )
            buckets = config.token_buckets
            assert buckets[-1] == budget == config.max_num_batched_tokens
            assert list(buckets) == sorted(set(buckets))
            assert buckets[0] >= 2


def test_rows_have_two_sizes():
    config = derive_config(options(max_num_seqs=16, kv_memory=8 << 30), MODEL, CPU, ONE)
    assert {config.row_bucket(tokens) for tokens in config.token_buckets} == {4, 16}
    assert config.row_bucket(4) == 4
    assert config.row_bucket(8) == 16


def test_native_kernels_have_a_bucket_of_one_token_without_a_sampler_of_its_own():
    config = derive_config(options(), replace(MODEL, single_tokens=True), CPU, ONE)
    assert config.token_buckets[:3] == (1, 4, 8)
    assert [config.row_bucket(size) for size in (1, 4, 8)] == [4, 4, 16]
