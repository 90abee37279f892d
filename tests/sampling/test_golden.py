"""Truncations and penalties against stored results of Hugging Face transformers and OpenAI's formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampling_oracle import Row, distribution
from sampling_stage import outputs, run

GOLDEN = Path(__file__).resolve().parents[1] / "fixtures" / "sampling" / "processors.npz"


def row_of(knob: str, value: float, history: np.ndarray) -> Row:
    tokens = [int(token) for token in history]
    if knob.startswith("frequency"):
        _, frequency, _, presence = knob.split()
        return Row(frequency_penalty=float(frequency), presence_penalty=float(presence), output=tokens)
    row = Row(prompt=tokens)
    setattr(row, knob, int(value) if knob == "top_k" else value)
    return row


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(GOLDEN) as file:
        return dict(file)


def test_oracle_agrees_with_transformers(golden: dict[str, Any]) -> None:
    cases = zip(
        golden["knob"], golden["value"], golden["logits"], golden["history"], golden["probability"], strict=True
    )
    for knob, value, logits, history, expected in cases:
        p, _ = distribution(logits, row_of(str(knob), float(value), history))
        np.testing.assert_allclose(p, expected, atol=1e-6, err_msg=f"{knob} {value}")


def test_stage_draws_with_the_probabilities_of_transformers(golden: dict[str, Any]) -> None:
    """sampling_logprob is the stored probability of the token drawn; a token outside the support is never drawn."""
    cases = list(zip(golden["knob"], golden["value"], golden["history"], strict=True))
    rows: list[Row | None] = [row_of(str(knob), float(value), history) for knob, value, history in cases]
    logits = np.full((64, 1000), -np.inf, np.float32)
    logits[: len(rows), : golden["logits"].shape[1]] = golden["logits"]
    for seed in range(8):
        for row in rows:
            assert row is not None
            row.seed = seed
        _, out = run(logits, [*rows, *[None] * (64 - len(rows))])
        for index, got in enumerate(outputs(out)[: len(rows)]):
            expected = golden["probability"][index, got.token]
            assert np.exp(got.sampling_logprob) == pytest.approx(expected, rel=1e-3), cases[index][:2]
