"""Kernels for CPUs in C++, called by XLA through its foreign function interface (FFI).

In: arrays of jax, inside jitted functions (`calls.py`). Out: arrays. `build.py` finds or compiles the library for the
instruction set at hand, `library.py` loads it. Knows nothing of models; imports jax, numpy and the standard library.
"""
