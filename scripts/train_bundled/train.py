"""Trains the bundled story model and writes it in hub layout.

    python scripts/train_bundled/train.py --out jaxserve/_bundled/story

Everything follows from the plan in `training.py`: same seed, same machine type, same model.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_ARENA_MAX": "1"}
"""glibc keeps the memory of a step for the next one: without this, a third of the time goes into page faults."""


def main() -> None:
    """Parses the command line, trains, exports, reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write the model to")
    parser.add_argument("--checkpoint", type=Path, help="file to write every 50 steps")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--steps", type=int, help="steps of the main phase, if not those of the plan")
    arguments = parser.parse_args()
    if not os.environ.keys() >= _ALLOCATOR.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_ALLOCATOR})
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    train(arguments)


def train(arguments: argparse.Namespace) -> None:
    """Runs the plan and writes the model."""
    from dataclasses import replace

    from train_bundled.export import export
    from train_bundled.training import Plan, run

    plan = Plan()
    if arguments.steps:
        *first, main, last = plan.phases
        plan = replace(plan, phases=(*first, replace(main, steps=arguments.steps), last))
    result = run(plan, arguments.checkpoint, resume=arguments.resume)
    export(arguments.out, plan.shape, result.params, result.tokenizer_model)
    print(
        f"held-out loss {result.held_out_loss:.4f} nats per token after {result.tokens} tokens "
        f"and {result.seconds / 60:.1f} minutes"
    )


if __name__ == "__main__":
    main()
