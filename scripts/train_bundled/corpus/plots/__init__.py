"""Plots: each tells one kind of little story with a given teller and notes its facts.

A plot is a function of a `Teller`; `PLOTS` names all of them.
"""

from __future__ import annotations

from train_bundled.corpus.plots import adventures, friends, growing, making, things

PLOTS = {**things.PLOTS, **friends.PLOTS, **making.PLOTS, **growing.PLOTS, **adventures.PLOTS}
