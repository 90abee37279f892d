"""jaxserve's engine in this process, through its notebook face."""

from __future__ import annotations

import os
from importlib.metadata import version

import jaxserve
from benchmarks.turns import Generate, take_turns


def load(directory: str) -> tuple[Generate, dict[str, str]]:
    dtype = "bfloat16" if os.environ["BENCH_DEVICE"] == "gpu" else "float32"
    llm = jaxserve.LLM(directory, dtype=dtype, max_num_seqs=16)
    greedy = jaxserve.SamplingParams(temperature=0)

    def generate(prompts: list[list[int]], new: int) -> list[list[int]]:
        results = llm.generate(prompts, greedy, max_tokens=new, ignore_eos=True)
        return [result.token_ids for result in results]

    return generate, {name: version(name) for name in ("jaxserve", "jax", "jaxlib", "flax")}


if __name__ == "__main__":
    take_turns(load)
