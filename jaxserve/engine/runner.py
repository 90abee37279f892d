"""Carries plans out: encodes them, has the device execute the commands, and reads what comes back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from jaxserve.config import EngineConfig
from jaxserve.engine import compilations
from jaxserve.engine.command import Draw, Launch, StepCommand
from jaxserve.engine.device import Device, Pending
from jaxserve.engine.encode import Encoder
from jaxserve.engine.host_memory import trim
from jaxserve.engine.image_batch import ImageEncoder
from jaxserve.engine.plan import Plan, RowResult
from jaxserve.engine.programs import Programs
from jaxserve.engine.results import row_results
from jaxserve.engine.step_runner import MaskMaker
from jaxserve.engine.stored_programs import StoredPrograms
from jaxserve.models import LoadedModel


@dataclass(frozen=True)
class Ticket:
    """A launched step."""

    plan: Plan
    launch: Launch
    pending: Pending


class Runner:
    """The device's face to the engine. `launch` enqueues, `fetch` waits.

    Args:
        config: sizes.
        model: parameters on their mesh.
        programs: those of another runner of this model, to share them; None = its own, which `compile` makes.
        relay: gets every command before this device does: other hosts execute them as well.
    """

    def __init__(
        self,
        config: EngineConfig,
        model: LoadedModel,
        programs: Programs | None = None,
        relay: Callable[[StepCommand], None] = lambda command: None,
    ) -> None:
        compilations.listen()
        self.model = model
        self.programs = Programs(config, model) if programs is None else programs
        self._device = Device(config, model, self.programs)
        self._relay = relay
        images = self.programs.image_layouts
        self._encoder = Encoder(self.programs.layouts, ImageEncoder(images) if images else None)

    @property
    def compilations(self) -> int:
        """XLA compilations of this process so far."""
        return compilations.count()

    def compile(
        self, progress: Callable[[int, int], None] = lambda done, total: None, stored: StoredPrograms | None = None
    ) -> None:
        """Compiles every program, or loads them; `progress` gets (done, total). Unused memory is given back."""
        self.programs.compile(progress, stored)
        self._device.settle()
        trim()

    def execute(self, command: StepCommand) -> Pending:
        """Enqueues a command, here and wherever it is relayed to."""
        self._relay(command)
        return self._device.execute(command)

    def wait(self, pending: Pending) -> None:
        """Waits for a step without reading it, as hosts do that only execute.

        Raises:
            DeviceLost: the device failed.
        """
        self._device.wait(pending)

    def launch(self, plan: Plan, *, held: bool = False, masks: MaskMaker | None = None) -> Ticket:
        """Enqueues one step and returns at once. The sampling of a held step is left to `sample`."""
        command = self._encoder.launch(plan, draw=not held and masks is None)
        ticket = Ticket(plan, command, self.execute(command))
        if masks is not None and not held:
            self.sample(ticket, masks)
        return ticket

    def sample(self, ticket: Ticket, masks: MaskMaker) -> None:
        """Enqueues the sampling of a held step, under masks: only before the next launch."""
        self.execute(Draw(masks(ticket.plan, ticket.launch.layout.samples)))

    def sample_again(self, ticket: Ticket, again: Collection[int], masks: MaskMaker) -> None:
        """Enqueues a second draw of some rows of a sampled step, as if the first: only before the next launch."""
        layout = ticket.launch.layout
        self.execute(self._encoder.redraw(ticket.plan, layout, again, masks(ticket.plan, layout.samples)))

    def fetch(self, ticket: Ticket) -> list[RowResult]:
        """Waits for a step and unpacks it, one result for each planned row."""
        return row_results(self._device.fetch(ticket.pending), ticket.plan, self._encoder.remember_mu)
