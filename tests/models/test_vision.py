"""Models that read images: embeddings, logits and continuations of our float64 reference, and of other people's golden
checkpoints."""

import shutil

import numpy as np
import pytest
from image_inputs import ImageSession, Prompt, embeddings

from jaxserve import models
from jaxserve.models import choose_backends
from jaxserve.native.library import unavailable

FIXTURES = ("llava", "qwen2_5_vl", "qwen3_vl")
GOLDEN = ("llava", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
FAST_COMPILATION = {"xla_backend_optimization_level": 0}
CLOSE = {"atol": 1e-3, "rtol": 0}


def check_golden(folder, loop, arrays="golden.npz", backends=None):
    model = models.load_model(folder, layer_loop=loop, backends=backends)
    golden = np.load(folder / arrays)
    width, embedded = model.config.hidden_size, embeddings(model, golden)
    np.testing.assert_allclose(embedded[:, :width], golden["image_embeds"], **CLOSE)
    for tap in range(len(model.config.vision.taps)):
        part = embedded[:, (1 + tap) * width : (2 + tap) * width]
        np.testing.assert_allclose(part, golden["deepstack_embeds"][tap], **CLOSE)
    prompt = Prompt(model, golden, embedded)
    if prompt.rotary is not None:
        np.testing.assert_array_equal(prompt.rotary, golden["position_ids_a"])
        assert prompt.delta == golden["rope_delta_a"]
    ids, wanted = golden["ids_a"], golden["logits_a"]
    session = ImageSession(model, prompt, options=FAST_COMPILATION)
    np.testing.assert_allclose(session.run([(0, 0, ids)], 64)[0], wanted, **CLOSE)
    np.testing.assert_allclose(session.chunks(ids, sevens(prompt), 64, sequence=1), wanted, **CLOSE)
    middle = 21 if prompt.whole else 16
    after_prefix = session.run([(0, 16, ids[16:]), (1, 9, ids[9:middle])], 64)
    np.testing.assert_allclose(after_prefix[0], wanted[16:], **CLOSE)
    np.testing.assert_allclose(after_prefix[1], wanted[9:middle], **CLOSE)
    assert session.greedy(ids, len(golden["greedy_a"])) == golden["greedy_a"].tolist()


def sevens(prompt):
    """Lengths of chunks of seven tokens, of others where seven would cut an image that is read in one piece."""
    lengths, start, count = [], 0, len(prompt.ids)
    while start < count:
        end = min(start + 7, count)
        if prompt.whole and (last := prompt.lasts[end - 1]) > end - 1:
            first = int(np.flatnonzero(prompt.lasts == last)[0])
            end = first if first > start else int(last) + 1
        lengths.append(end - start)
        start = end
    return lengths


@pytest.mark.parametrize(("attention", "loop"), [("blocked", "scan"), ("native", "switch")])
def test_images_in_one_piece(attention, loop, model_fixtures):
    """Gemma 3, by transformers' own golden: an image's tokens see each other, within the window of sliding layers."""
    if attention == "native" and (reason := unavailable()) is not None:
        pytest.skip(reason)
    check_golden(model_fixtures / "gemma3_images", loop, backends=choose_backends(attention, "xla", "cpu"))


@pytest.mark.parametrize("name", FIXTURES)
def test_fixture(name, model_fixtures):
    check_golden(model_fixtures / name, "unroll", "expected.npz")


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, shared_dir):
    check_golden(shared_dir / "golden" / name, "scan")


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_unrolled(name, shared_dir):
    check_golden(shared_dir / "golden" / name, "unroll")


@pytest.mark.parametrize("name", GOLDEN)
def test_both_config_styles_read_alike(name, shared_dir, tmp_path):
    folder = shared_dir / "golden" / name
    shutil.copy(folder / "config_v5.json", tmp_path / "config.json")
    assert models.load_config(tmp_path) == models.load_config(folder)
