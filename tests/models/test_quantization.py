"""Quantised weights: what checkpoints store, what is computed from it, and that tokens stay reproducible.

The fixtures hold every format with ragged blocks; their expected logits are the float64 reference's with the
dequantised weights. Products are cut into small tiles here, as those of large matrices are.
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxserve import models
from jaxserve.errors import ModelLoadError
from jaxserve.models import parameters, quantization
from jaxserve.models.config import WeightFormat
from jaxserve.models.kernels import products
from jaxserve.models.quantization import Weight

FAST_COMPILATION = {"xla_backend_optimization_level": 0}
FIXTURES = ("deepseek_v3_fp8", "glm4_moe_fp8_rows", "gpt_oss_mxfp4", "minimax_m2_fp8")
GOLDEN = ("deepseek_v3_fp8", "deepseek_v3_fp8_ragged", "gpt_oss_mxfp4", "minimax_m2_fp8")
FORMATS = (
    WeightFormat("int8"),
    WeightFormat("int8", 64),
    WeightFormat("e4m3"),
    WeightFormat("e4m3", 96),
    WeightFormat("e2m1", 32, "e8m0"),
)


@pytest.fixture(scope="module")
def small_tiles():
    """Tiles of 16 rows, of which the last one begins before the one before it ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_TILE", 512)
        yield


@pytest.fixture(scope="module")
def kept(model_fixtures, make_session, small_tiles):
    """Sessions of models whose weights stay as they are stored."""
    return lru_cache(maxsize=None)(lambda name: make_session(models.load_model(model_fixtures / name)))


@pytest.mark.parametrize("name", FIXTURES)
def test_fixture(name, model_fixtures, kept, poison):
    """The reference's logits and experts; the same bits in chunks, stepwise, beside other rows."""
    expected = np.load(model_fixtures / name / "expected.npz")
    ids, session = expected["ids"], kept(name)
    poison(session)
    whole = session.run([(0, 0, ids)], 64)[0]
    np.testing.assert_allclose(whole, expected["logits"], atol=1e-3, rtol=0)
    np.testing.assert_array_equal(np.sort(session.routing, axis=-1), expected["routing"])
    np.testing.assert_array_equal(session.chunks(ids, [7] * 6 + [3], 8, sequence=1), whole)
    np.testing.assert_array_equal(session.chunks(ids, [1] * 45, 8), whole)
    mixed = session.run([(0, 44, ids[44:]), (1, 3, ids[3:20])], 64)
    np.testing.assert_array_equal(mixed[0], whole[44:])
    np.testing.assert_array_equal(mixed[1], whole[3:20])


@pytest.mark.parametrize("name", FIXTURES)
def test_kept_weights_are_the_dequantised_ones(name, model_fixtures, make_session, kept):
    """Within the order of float32 additions; in memory they are bytes."""
    ids = np.load(model_fixtures / name / "expected.npz")["ids"]
    plain = make_session(models.load_model(model_fixtures / name, weights="dequantize"), options=FAST_COMPILATION)
    assert {leaf.dtype.name for leaf in plain.model.leaves} <= {"bfloat16", "float32"}
    assert "uint8" in {leaf.dtype.name for leaf in kept(name).model.leaves}
    wanted = plain.run([(0, 0, ids)], 64)[0]
    got = kept(name).run([(0, 0, ids)], 64)[0]
    assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", ["gpt_oss_mxfp4", "minimax_m2_fp8"])
def test_scanned_layers_are_the_same(name, model_fixtures, make_session, kept):
    """Also where one layer keeps projections unquantised, and so is no repetition of its neighbours."""
    ids = np.load(model_fixtures / name / "expected.npz")["ids"][:8]
    scanned = make_session(models.load_model(model_fixtures / name, layer_loop="scan"))
    np.testing.assert_array_equal(scanned.run([(0, 0, ids)], 8)[0], kept(name).run([(0, 0, ids)], 8)[0])


@pytest.mark.parametrize("mode", ["keep", pytest.param("dequantize", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, mode, shared_dir, make_session):
    """Logits of another implementation with the dequantised weights."""
    folder = shared_dir / "golden" / name
    golden = np.load(folder / "golden.npz")
    model = models.load_model(folder, layer_loop="scan", weights=mode)
    session = make_session(model, options=FAST_COMPILATION)
    np.testing.assert_allclose(session.run([(0, 0, golden["ids_a"])], 64)[0], golden["logits_a"], atol=1e-3, rtol=0)
    np.testing.assert_array_equal(np.sort(session.routing, axis=-1), golden["route_ids_a"])
    assert session.greedy(golden["ids_a"], 16) == golden["greedy_a"].tolist()


INT8_ERRORS = {
    "deepseek_v3": 0.05,
    "gemma2": 0.005,
    "glm4_moe": 0.03,
    "gpt_oss": 0.065,
    "llama_one_kv_head": 0.03,
    "phi3": 0.035,
    "qwen3_moe": 0.03,
}
"""Bounds of the relative error of a token's logits, median over tokens (those whose experts change differ by more).
Random weights in rows of 48 are a hard case; docs/quantisation.md has figures of trained models."""


@pytest.mark.parametrize("name", INT8_ERRORS)
def test_int8_is_close_to_the_reference(name, model_fixtures, make_session, small_tiles):
    """And its tokens have the same bits in chunks."""
    expected = np.load(model_fixtures / name / "expected.npz")
    ids, wanted = expected["ids"], expected["logits"]
    session = make_session(models.load_model(model_fixtures / name, quantize="int8"), options=FAST_COMPILATION)
    types = {leaf.dtype.name for leaf in session.model.leaves}
    assert types - {"bfloat16"} == {"int8", "float32"}
    got = session.run([(0, 0, ids)], 64)[0]
    errors = np.linalg.norm(got - wanted, axis=-1) / np.linalg.norm(wanted, axis=-1)
    assert 1e-4 < np.median(errors) < INT8_ERRORS[name]
    assert np.mean(got.argmax(-1) == wanted.argmax(-1)) >= 0.8
    np.testing.assert_array_equal(session.chunks(ids, [7] * 6 + [3], 64, sequence=1), got)


def test_int8_scans_as_it_unrolls(model_fixtures, make_session):
    path = model_fixtures / "glm4_moe"
    ids = np.load(path / "expected.npz")["ids"][:8]
    loaded = [models.load_model(path, quantize="int8", layer_loop=loop) for loop in ("scan", "unroll")]
    first, second = (make_session(model, options=FAST_COMPILATION).run([(0, 0, ids)], 8)[0] for model in loaded)
    np.testing.assert_array_equal(first, second)


def test_int8_again(model_fixtures):
    """Weights that are stored quantised are quantised anew only on demand."""
    path = model_fixtures / "gpt_oss_mxfp4"
    with pytest.raises(ModelLoadError, match=r"stored quantised .* add --weights dequantize"):
        models.load_model(path, quantize="int8")
    model = models.load_model(path, quantize="int8", weights="dequantize")
    assert {leaf.dtype.name for leaf in model.leaves} - {"bfloat16"} == {"int8", "float32"}


def test_description(model_fixtures):
    def words(name):
        return models.describe_weights(models.load_config(model_fixtures / name))

    assert words("gpt_oss_mxfp4") == "fp4, blocks of 32"
    assert words("glm4_moe_fp8_rows") == "fp8, a scale per row"
    assert words("gpt_oss") is None


def test_codes_mean_what_the_standards_say():
    bytes_ = np.arange(256, dtype=np.uint8)
    fp8 = bytes_.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    finite = np.isfinite(fp8)
    for dtype in (jnp.float32, jnp.bfloat16):
        got = quantization.decode(jnp.asarray(bytes_), WeightFormat("e4m3"), dtype)
        np.testing.assert_array_equal(np.asarray(got.astype(jnp.float32))[finite], fp8[finite])
    fp4 = np.stack([bytes_ & 15, bytes_ >> 4], axis=-1).view(ml_dtypes.float4_e2m1fn).astype(np.float32).reshape(-1)
    form = WeightFormat("e2m1", 32, "e8m0")
    np.testing.assert_array_equal(np.asarray(quantization.decode(jnp.asarray(bytes_), form, jnp.float32)), fp4)
    exponents = np.arange(1, 255, dtype=np.uint8)
    powers = np.asarray(quantization.scales(jnp.asarray(exponents), form))
    np.testing.assert_array_equal(powers, exponents.view(ml_dtypes.float8_e8m0fnu).astype(np.float32))


def weight_of(form, outputs, inputs, seed=0):
    rng = np.random.default_rng(seed)
    shape = (outputs, inputs)
    codes = rng.integers(0, 120, quantization.code_shape(shape, form)).astype(quantization.code_dtype(form))
    scale = rng.random(quantization.scale_shape(shape, form)) + 0.5
    scale = rng.integers(120, 130, scale.shape) if form.scale == "e8m0" else scale
    return Weight(codes, scale.astype(quantization.scale_dtype(form)), form)


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_host_and_device_agree(form):
    weight = weight_of(form, 24, 160)
    device = np.asarray(jax.jit(lambda w: w.dequantised(jnp.float32))(weight))
    np.testing.assert_array_equal(device, quantization.dequantise_host(weight.values, weight.scale, form))


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_rows_of_a_product_do_not_depend_on_their_number(form):
    """In the tiles that a served model has; and the product is right."""
    outputs, inputs = 1100, 992
    assert outputs * inputs > 2 * products._TILE - 1000
    weight = weight_of(form, outputs, inputs)
    x = np.random.default_rng(1).standard_normal((64, inputs)).astype(np.float32)
    multiply = jax.jit(products.multiply)
    whole = np.asarray(multiply(x, weight))
    wide = quantization.dequantise_host(weight.values, weight.scale, form).astype(np.float64)
    np.testing.assert_allclose(whole, x @ wide.T, rtol=0, atol=1e-5 * np.abs(wide).max() * inputs)
    for rows in (2, 3, 4, 16):
        np.testing.assert_array_equal(np.asarray(multiply(x[5 : 5 + rows], weight)), whole[5 : 5 + rows])


def test_shorter_blocks_are_the_same_weight():
    weight = weight_of(WeightFormat("e4m3", 96), 8, 160)
    finer = quantization.align_blocks(jax.tree.map(jnp.asarray, weight), 4)
    assert finer.format.block == 8
    np.testing.assert_array_equal(
        finer.dequantised(jnp.float32), jax.tree.map(jnp.asarray, weight).dequantised("float32")
    )


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_random_weights_are_as_large_as_unquantised_ones(form):
    codes, scale = parameters._random_codes(form, 96)
    shape, key = (64, 96), jax.random.key(0)
    weight = Weight(
        codes(key, quantization.code_shape(shape, form), quantization.code_dtype(form)),
        scale(key, quantization.scale_shape(shape, form), quantization.scale_dtype(form)),
        form,
    )
    assert 0.7 < np.std(np.asarray(weight.dequantised(jnp.float32))) * 96**0.5 < 1.4


def test_random_models_of_quantised_checkpoints_run(model_fixtures, make_session):
    """With the same parameters whatever the layer loop."""
    config = models.load_config(model_fixtures / "minimax_m2_fp8")
    loaded = [models.random_model(config, layer_loop=loop, dtype="bfloat16") for loop in ("scan", "unroll")]
    first, second = (make_session(model, options=FAST_COMPILATION).run([(0, 0, [5, 6])], 8)[0] for model in loaded)
    assert {leaf.dtype.name for leaf in loaded[0].leaves} == {"uint8", "bfloat16", "float32"}
    assert np.isfinite(first).all()
    assert np.std(first) > 0.1
    np.testing.assert_allclose(first, second, atol=0.1)


@pytest.mark.parametrize("name", ["gpt_oss_mxfp4", pytest.param("glm4_moe_fp8_rows", marks=pytest.mark.slow)])
def test_bfloat16_is_close(name, model_fixtures, make_session):
    expected = np.load(model_fixtures / name / "expected.npz")
    session = make_session(models.load_model(model_fixtures / name, dtype="bfloat16"), options=FAST_COMPILATION)
    logits = session.run([(0, 0, expected["ids"])], 64)[0]
    errors = np.linalg.norm(logits - expected["logits"], axis=-1) / np.linalg.norm(expected["logits"], axis=-1)
    assert 0 < np.median(errors) < 0.03
