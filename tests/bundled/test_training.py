"""The trainer on a tiny model: packing, learning, export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def test_packing_keeps_every_token_and_fills_rows() -> None:
    from train_bundled.packing import PADDING, pack

    rng = np.random.default_rng(0)
    documents = [[int(i)] * int(rng.integers(5, 60)) for i in range(1, 300)]
    rows = pack(documents, 63, seed=3)
    assert rows.shape[1] == 64
    kept = np.bincount(rows[rows != PADDING], minlength=300)
    assert [len(document) for document in documents] == kept[1:].tolist()
    assert (rows != PADDING).mean() > 0.95
    np.testing.assert_array_equal(rows, pack(documents, 63, seed=3))


@pytest.mark.slow
def test_padding_does_not_count() -> None:
    from train_bundled.model import Shape, init_params, loss

    shape = Shape(vocab_size=64, hidden=16, layers=1, heads=2, kv_heads=1, head_dim=8, feed_forward=16)
    params = init_params(shape, 0)
    tokens = np.arange(1, 41, dtype=np.int32)[None]
    padded = np.concatenate([tokens, np.full((1, 24), -1, np.int32)], axis=1)
    np.testing.assert_allclose(loss(shape, params, padded), loss(shape, params, tokens), rtol=1e-5)


@pytest.mark.slow
def test_documents_of_a_row_do_not_see_each_other() -> None:
    from train_bundled.model import Shape, forward, init_params, loss

    shape = Shape(vocab_size=64, hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, feed_forward=16)
    params = init_params(shape, 0)
    rng = np.random.default_rng(1)
    first, second = ([1, *rng.integers(3, 64, size)] for size in (150, 90))
    row = np.asarray([first + second], np.int32)
    document = np.asarray([[0] * len(first) + [1] * len(second)], np.int32)
    alone = forward(shape, params, np.asarray([second], np.int32))
    together = forward(shape, params, row, document)[:, len(first) :]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    parts = [float(loss(shape, params, np.asarray([part], np.int32))) * (len(part) - 1) for part in (first, second)]
    border = float(loss(shape, params, row)) * (len(first) + len(second) - 1) - sum(parts)
    assert 0 < border < 20, "only the step from one document to the next is added"
    assert float(loss(shape, params, row)) != float(loss(shape, params, row, isolated=False))


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory):
    """A tiny plan, what its run left, and its checkpoint of step 50."""
    from train_bundled.model import Shape
    from train_bundled.training import Phase, Plan, run

    shape = Shape(vocab_size=512, hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, feed_forward=64)
    phases = (Phase(45, 4, 96, isolated=False), Phase(10, 4, 96))
    plan = Plan(shape=shape, phases=phases, warmup=4, decay=20, tokenizer_documents=150, held_out_documents=8)
    checkpoint = tmp_path_factory.mktemp("run") / "checkpoint.npz"
    return plan, run(plan, checkpoint), checkpoint


@pytest.mark.slow
def test_a_tiny_model_learns(tiny_run) -> None:
    plan, result, _ = tiny_run
    assert result.held_out_loss < 5.2 < np.log(plan.shape.vocab_size)


@pytest.mark.slow
def test_a_resumed_run_ends_like_one_that_was_never_stopped(tiny_run) -> None:
    from train_bundled.training import run

    plan, result, checkpoint = tiny_run
    resumed = run(plan, resume=checkpoint)
    assert 0 < resumed.tokens < result.tokens / 5, "only the last five steps are done again"
    for name, value in result.params.items():
        np.testing.assert_allclose(resumed.params[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_export_is_a_model_directory(tiny_run, tmp_path: Path) -> None:
    import sentencepiece as spm
    from train_bundled.export import export

    plan, result, _ = tiny_run
    export(tmp_path, plan.shape, result.params, result.tokenizer_model)
    tokenizer = spm.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    assert tokenizer.vocab_size() == plan.shape.vocab_size
    assert (tmp_path / "model.safetensors").stat().st_size < 4 * plan.shape.parameter_count()
