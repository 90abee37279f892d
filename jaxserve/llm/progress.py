"""Progress in a notebook or a terminal, by tqdm: loading, compiling, batches."""

from __future__ import annotations

from tqdm.auto import tqdm

_UNITS = {"weights": ("loading weights", "B"), "programs": ("compiling programs", "program")}


class Bars:
    """As `startup.Progress`: a bar for each stage."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[None]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """As `startup.Progress`: a stage has come so far."""
        if stage not in self._bars:
            label, unit = _UNITS.get(stage, (stage, "it"))
            self._bars[stage] = tqdm(total=total, desc=label, unit=unit, unit_scale=unit == "B", leave=False)
        bar = self._bars[stage]
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
