"""The port to what executes plans."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from jaxserve.engine.plan import Plan, RowResult

Masks = npt.NDArray[np.int32]
"""[N, ceil(V / 32)], a line for each sample of a step: bit i % 32 of word i // 32 allows token i."""
MaskMaker = Callable[[Plan, int], Masks]
"""(plan, N) -> the masks of its samples."""
Ticket = TypeVar("Ticket")


class StepRunner(Protocol[Ticket]):
    """Executes plans. Everything but `fetch` returns at once; `fetch` waits for the device."""

    def launch(self, plan: Plan, *, held: bool, masks: MaskMaker | None) -> Ticket:
        """Enqueues the step and returns a ticket for it; `held`: the sampling is left to `sample`."""

    def sample(self, ticket: Ticket, masks: MaskMaker) -> None:
        """Enqueues the sampling of a held step, under masks."""

    def sample_again(self, ticket: Ticket, again: Collection[int], masks: MaskMaker) -> None:
        """Enqueues a second draw of some rows of a step that was not held, under masks, as if it were the first."""

    def fetch(self, ticket: Ticket) -> list[RowResult]:
        """Results of a sampled step, aligned with its plan's rows."""

    @property
    def compilations(self) -> int:
        """XLA compilations of this process so far."""
