"""Hugging Face transformers on torch: static batches, its own generate loop."""

from __future__ import annotations

import os

import torch
import transformers

from benchmarks.turns import Generate, take_turns


def load(directory: str) -> tuple[Generate, dict[str, str]]:
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    device = "cuda" if os.environ["BENCH_DEVICE"] == "gpu" else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).to(device).eval()

    @torch.inference_mode()
    def generate(prompts: list[list[int]], new: int) -> list[list[int]]:
        ids = torch.tensor(prompts, device=device)
        settings = transformers.GenerationConfig(max_new_tokens=new, do_sample=False, use_cache=True, pad_token_id=0)
        output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        tokens: list[list[int]] = output[:, ids.shape[1] :].tolist()
        return tokens

    return generate, {"transformers": transformers.__version__, "torch": torch.__version__}


if __name__ == "__main__":
    take_turns(load)
