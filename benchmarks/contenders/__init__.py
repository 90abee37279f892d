"""One program per engine: `python -m benchmarks.contenders.NAME MODEL_DIR`, speaking the protocol of `turns`.

They may run under a Python in which jaxserve is not installed, so they import only what they measure.
"""
