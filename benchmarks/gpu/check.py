"""The engine's kernels on a device: are they right, and how near the device's own limits.

    python -m benchmarks.gpu.check [--tiny] [--models NAME ...] [--layers N] [--stages NAME ...] [--json FILE]

Stages, each of which may fail without stopping the next: `ceilings` (copy bandwidth, matmul rate), `families` (every
fixture against its float64 logits, in float32 and bfloat16), `attention` (each attention backend against the float64
softmax, and its time alone), `steps` (decode and prefill of a random model for each pair of backends, as shares of the
ceilings). Results are written after every stage. `--tiny` runs everything on any device in a minute: a test of this
script. Run it from the repository; XLA's flags are those of the server.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from benchmarks.gpu.families import check_families
from benchmarks.gpu.kernels import check_attention
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.steps import Sizes, measure_steps
from benchmarks.gpu.timing import copy_bandwidth, matmul_rate
from jaxserve.engine import gpu

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "fixtures" / "models"
FULL = Sizes(batches=(1, 8, 64), contexts=(1024, 8192), prefill=2048, steps=30)
TINY = Sizes(batches=(1, 3), contexts=(40,), prefill=96, steps=3)


@dataclass
class Check:
    """One run, and what it found so far."""

    options: argparse.Namespace
    results: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """All stages asked for."""
        self.results["device"] = _device()
        for name, stage in STAGES.items():
            if name in self.options.stages:
                self._guarded(name, stage)
                self.save()

    def _guarded(self, name: str, stage: Callable[[Check], Any]) -> None:
        started = time.perf_counter()
        try:
            self.results[name] = stage(self)
        except Exception as error:  # noqa: BLE001  whatever breaks, the next stage may tell why
            traceback.print_exc()
            self.results[name] = {"failed": f"{type(error).__name__}: {error}"[:1000]}
        print(f"{name}: {time.perf_counter() - started:.0f} s {json.dumps(self.results[name])[:4000]}", flush=True)

    def save(self) -> None:
        """To the file that was asked for."""
        if self.options.json is not None:
            self.options.json.write_text(json.dumps(self.results, indent=1) + "\n")


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    command = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        driver = ""
    return {"kind": device.device_kind, "platform": device.platform, "jax": jax.__version__, "driver": driver} | {
        "settings": gpu.describe()
    }


def _ceilings(check: Check) -> dict[str, float]:
    tiny = check.options.tiny
    return {"copy": copy_bandwidth(8 if tiny else 2048), "matmul": matmul_rate(256 if tiny else 8192)}


def _attention(check: Check) -> Any:
    return check_attention(check.options.attention, tiny=check.options.tiny)


def _families(check: Check) -> Any:
    names = check.options.families[: 1 if check.options.tiny else None]
    return check_families(FIXTURES, names, check.options.attention, check.options.matmul)


def _steps(check: Check) -> Any:
    options, ceilings = check.options, check.results.get("ceilings", {})
    pairs = [(attention, matmul) for attention, matmul in zip(options.attention, options.matmul, strict=True)]
    sizes = TINY if options.tiny else FULL
    layers = 1 if options.tiny else options.layers
    return {
        f"{name} {attention} {matmul}": measure_steps(
            name, layers, sizes, attention, matmul, ceilings, tiny=options.tiny, note=print
        )
        for name in options.models
        for attention, matmul in pairs
    }


STAGES: dict[str, Callable[[Check], Any]] = {
    "ceilings": _ceilings,
    "attention": _attention,
    "families": _families,
    "steps": _steps,
}
FAMILIES = ["llama_linear_rope", "qwen3_one_layer", "gemma3", "gpt_oss", "mistral_window", "qwen3_moe", "phi3", "glm4"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--models", nargs="+", default=["llama-3.1-8b"], choices=SHAPES)
    parser.add_argument("--families", nargs="+", default=FAMILIES)
    parser.add_argument("--layers", type=int, help="default: all of them")
    parser.add_argument("--attention", nargs="+", default=["blocked"], help="backends, paired with those of --matmul")
    parser.add_argument("--matmul", nargs="+", default=["xla"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gpu.prepare()
    Check(options).run()


if __name__ == "__main__":
    main()
