"""Muon for the matrices, Adam for the rest, one schedule for both.

Muon: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), as optax has it.
"""

from __future__ import annotations

import optax
import optax.contrib

from train_bundled.model import Params


def schedule(peak: float, steps: int, warmup: int, decay: int) -> optax.Schedule:
    """Linear warm-up, a plateau, and a cosine to 2 % of the peak over the last `decay` steps.

    With a plateau, the length of a run may be decided late: a checkpoint of the plateau belongs to every longer run.
    """
    return optax.join_schedules(
        [
            optax.linear_schedule(peak / 10, peak, warmup),
            optax.constant_schedule(peak),
            optax.cosine_decay_schedule(peak, decay, alpha=0.02),
        ],
        [warmup, steps - decay],
    )


def make(
    params: Params, matrix_rate: optax.ScalarOrSchedule, other_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformation:
    """Muon for weight matrices; Adam for the embedding and the norms."""
    labels = {name: "matrix" if value.ndim == 2 and "embed" not in name else "other" for name, value in params.items()}
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.partition(
            {
                "matrix": optax.contrib.muon(matrix_rate, weight_decay=0.02, consistent_rms=0.2),
                "other": optax.adam(other_rate, b2=0.98),
            },
            labels,
        ),
    )
