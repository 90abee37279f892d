"""llama.cpp's server through xllamacpp: `python xllamacpp_server.py FILE PORT THREADS SEQUENCES CONTEXT`."""

from __future__ import annotations

import sys
import time

import xllamacpp


def main() -> None:
    path, *numbers = sys.argv[1:]
    port, threads, sequences, context = map(int, numbers)
    params = xllamacpp.CommonParams()
    params.model.path, params.port, params.hostnames = path, port, ["127.0.0.1"]
    params.n_ctx, params.n_parallel = context * sequences, sequences
    params.n_batch, params.n_ubatch = 2048, 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.warmup, params.kv_unified, params.ui = True, False, False
    params.cache_prompt, params.cache_ram_mib = False, 0
    server = xllamacpp.Server(params)
    print("ready", flush=True)
    while server:
        time.sleep(3600)


if __name__ == "__main__":
    main()
