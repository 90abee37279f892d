"""Searches without a sort: against NumPy, with ties, NaN, -0 and infinities; both ways to find the likeliest."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxserve.sampling import chunks, masses


def awkward(vocab: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.integers(-6, 7, size=(8, vocab)).astype(np.float32)
    x[0] = -np.inf
    x[1, ::2] = -0.0
    x[2] = np.inf
    x[3, : vocab // 2] = np.nan
    x[4] = rng.normal(size=vocab)
    return x


@pytest.mark.parametrize("vocab", [7, 200, 5000])
def test_likeliest_tokens_in_order(vocab: int) -> None:
    x = awkward(vocab, np.random.default_rng(vocab))
    k = min(vocab, 100)
    values = np.where(np.isnan(x), -np.inf, x)
    expected = np.stack([np.lexsort((np.arange(vocab), -row)) for row in values])[:, :k]

    def both(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        cut = chunks.to_chunks(x)
        maxima = chunks.chunk_maxima(cut)
        two_level = chunks._top_k_two_level(cut, maxima, k)[1]
        return two_level, chunks._top_k_whole(cut, k)[1], chunks.argmax(cut, maxima)

    two_level, whole, first = jax.jit(both)(x)
    np.testing.assert_array_equal(two_level, expected)
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(first, expected[:, 0])


def test_masses_are_python_integers() -> None:
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 2**30, size=(4, 3000), dtype=np.uint32)
    fractions = rng.integers(0, 2**32, size=4, dtype=np.uint32)

    def compute(w: jax.Array, f: jax.Array) -> tuple[masses.Mass, masses.Mass, masses.Mass]:
        total = masses.total(w)
        part = masses.scale(total, f)
        return total, part, masses.subtract(total, part)

    def integers(mass: masses.Mass) -> list[int]:
        assert (np.asarray(mass.low) < 2**16).all()
        return [int(h) * 2**16 + int(low) for h, low in zip(mass.high, mass.low, strict=True)]

    total, part, rest = (integers(mass) for mass in jax.jit(compute)(weights, fractions))
    assert total == [int(row.sum(dtype=np.uint64)) for row in weights]
    assert part == [t * int(f) >> 32 for t, f in zip(total, fractions, strict=True)]
    assert rest == [t - p for t, p in zip(total, part, strict=True)]


def test_weights_are_the_same_in_every_layout() -> None:
    """The exponential of a value has one result, whatever is computed around it."""
    d = -np.abs(np.random.default_rng(2).normal(scale=8, size=(64, 1024))).astype(np.float32)
    flat = np.asarray(jax.jit(lambda d: masses.weigh(d, 30))(d))
    for shape in ((64, 8, 128), (1, 512, 128), (2, 32768)):
        np.testing.assert_array_equal(
            jax.jit(lambda d: masses.weigh(d * 1.0, 30))(d.reshape(shape)), flat.reshape(shape)
        )
    sums = jax.jit(lambda d: masses.total(masses.weigh(d, 30)))(d)
    np.testing.assert_array_equal(
        np.asarray(sums.high).astype(np.uint64) * 2**16 + np.asarray(sums.low), flat.sum(-1, dtype=np.uint64)
    )
    for length in (1, 3, 7):  # the scalar tail of a vectorised loop
        np.testing.assert_array_equal(jax.jit(lambda d: masses.weigh(d, 30))(d[0, :length]), flat[0, :length])


def test_a_vocabulary_too_large_to_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        masses.fraction_bits(1 << 20)
