"""llama.cpp through its Python binding's C interface: all sequences in one batch, greedy, float32."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import llama_cpp as ll
import numpy as np

from benchmarks.contenders.gguf_file import write_gguf
from benchmarks.turns import Generate, take_turns

MAX_SEQUENCES = 16
STEP_TOKENS = 512


class Session:
    """One context that holds up to `MAX_SEQUENCES` sequences."""

    def __init__(self, path: Path, threads: int, context: int) -> None:
        ll.llama_backend_init()
        model_params = ll.llama_model_default_params()
        model_params.n_gpu_layers = 999 if os.environ["BENCH_DEVICE"] == "gpu" else 0
        self.model = ll.llama_model_load_from_file(str(path).encode(), model_params)
        params = ll.llama_context_default_params()
        params.n_ctx = MAX_SEQUENCES * context
        params.n_seq_max = MAX_SEQUENCES
        params.n_batch = params.n_ubatch = STEP_TOKENS
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = ll.GGML_TYPE_F32
        params.no_perf = True
        self.context = ll.llama_init_from_model(self.model, params)
        if not self.model or not self.context:
            raise SystemExit("llama.cpp can't load the model")
        self.vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        self.batch = ll.llama_batch_init(STEP_TOKENS, 0, 1)

    def generate(self, prompts: list[list[int]], new: int) -> list[list[int]]:
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)
        entries = [
            (token, position, sequence, position == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        latest: dict[int, int] = {}
        for start in range(0, len(entries), STEP_TOKENS):
            latest |= self._step(entries[start : start + STEP_TOKENS])
        outputs = [[latest[sequence]] for sequence in range(len(prompts))]
        for step in range(new - 1):
            position = len(prompts[0]) + step
            latest = self._step([(latest[sequence], position, sequence, True) for sequence in range(len(prompts))])
            for sequence, tokens in enumerate(outputs):
                tokens.append(latest[sequence])
        return outputs

    def _step(self, entries: list[tuple[int, int, int, bool]]) -> dict[int, int]:
        """Runs (token, position, sequence, wanted) entries; the most likely next token of each wanted sequence."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for index, (token, position, sequence, wanted) in enumerate(entries):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wanted
        if ll.llama_decode(self.context, batch) != 0:
            raise SystemExit("llama.cpp could not run a batch")
        return {entry[2]: self._argmax(index) for index, entry in enumerate(entries) if entry[3]}

    def _argmax(self, index: int) -> int:
        pointer = ll.llama_get_logits_ith(self.context, index)
        logits = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.vocab,))
        return int(logits.argmax())


def load(directory: str) -> tuple[Generate, dict[str, str]]:
    path = Path(directory) / "model-f32.gguf"
    context = write_gguf(Path(directory), path)
    session = Session(path, int(os.environ["BENCH_THREADS"]), context)
    return session.generate, {"llama-cpp-python": ll.__version__}


if __name__ == "__main__":
    take_turns(load)
