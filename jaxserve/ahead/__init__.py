"""Programs for devices that are elsewhere: what a model would need on them, and its programs, compiled on this machine.

In: a model's `config.json` and the name of a topology. Out: plans (`plan.py`), measurements of compiled programs
(`measured.py`) and compiled programs for `serve --programs`. Uses the engine's own step and sizes, so that what is
measured is what would run; no device is touched.
"""
