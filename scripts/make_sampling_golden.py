"""Makes tests/fixtures/sampling/processors.npz: what the logits processors of Hugging Face transformers keep.

    python scripts/make_sampling_golden.py

Needs torch and transformers, which neither the package nor its tests use. Every case is one row of float64 logits
(without ties, which the processors break differently) and one processor; stored are the logits and the probabilities
after the processor. Frequency and presence penalties, which transformers lacks, follow the formula of OpenAI's guide:
mu[j] - c[j] * alpha_frequency - [c[j] > 0] * alpha_presence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

TARGET = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "sampling" / "processors.npz"
VOCAB = 300


def processors() -> list[tuple[str, float, Any]]:
    """(knob, value, processor)."""
    cases: list[tuple[str, float, Any]] = []
    cases += [("temperature", t, TemperatureLogitsWarper(t)) for t in (0.25, 0.7, 1.6)]
    cases += [("top_k", k, TopKLogitsWarper(k)) for k in (1, 7, 50, 100)]
    cases += [("top_p", p, TopPLogitsWarper(p)) for p in (0.05, 0.33, 0.9, 0.99)]
    cases += [("min_p", p, MinPLogitsWarper(p)) for p in (0.01, 0.2, 0.7)]
    cases += [("typical_p", p, TypicalLogitsWarper(p)) for p in (0.1, 0.5, 0.92)]
    cases += [("repetition_penalty", r, RepetitionPenaltyLogitsProcessor(r)) for r in (0.6, 1.2, 1.9)]
    return cases


def main() -> None:
    """Writes the file."""
    rng = np.random.default_rng(2024)
    knobs, values, logits, probabilities, histories = [], [], [], [], []
    for knob, value, processor in processors():
        for scale in (0.3, 1.0, 3.0):
            x = rng.normal(scale=scale, size=VOCAB).astype(np.float32).astype(np.float64)
            history = rng.integers(VOCAB, size=30)
            after = processor(torch.from_numpy(history)[None], torch.from_numpy(x)[None])
            knobs.append(knob)
            values.append(float(value))
            logits.append(x.astype(np.float32))
            histories.append(history)
            probabilities.append(torch.softmax(after, -1)[0].numpy())
    for frequency, presence in ((0.5, 0.0), (0.0, 0.9), (-1.1, 0.3)):
        x = rng.normal(scale=2, size=VOCAB).astype(np.float32).astype(np.float64)
        history = rng.integers(40, size=30)
        count = np.bincount(history, minlength=VOCAB)
        after = torch.from_numpy(x - count * frequency - (count > 0) * presence)
        knobs.append(f"frequency {frequency} presence {presence}")
        values.append(0.0)
        logits.append(x.astype(np.float32))
        histories.append(history)
        probabilities.append(torch.softmax(after, -1).numpy())
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        TARGET,
        knob=np.array(knobs),
        value=np.array(values),
        logits=np.stack(logits),
        history=np.stack(histories).astype(np.int32),
        probability=np.stack(probabilities).astype(np.float32),
        versions=np.array([f"transformers {transformers.__version__}", f"torch {torch.__version__}"]),
    )
    print(f"{len(knobs)} cases, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
