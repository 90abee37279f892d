"""A host that serves nobody: it loads its part of the model and executes what host 0 sends."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from types import FrameType

from jaxserve.engine.device import Pending
from jaxserve.engine.runner import Runner
from jaxserve.errors import DeviceLost, ExitCode, HostLost, JaxserveError
from jaxserve.hosts.devices import connect_devices, disconnect_devices
from jaxserve.hosts.facts import facts
from jaxserve.hosts.follower import Follower
from jaxserve.hosts.place import Place
from jaxserve.models import LoadedModel
from jaxserve.options import EngineOptions
from jaxserve.prepared import prepare
from jaxserve.startup import Progress, load, make_runner

_log = logging.getLogger(__name__)


def follow(
    place: Place, options: EngineOptions, *, progress: Progress, on_ready: Callable[[dict[str, str]], None]
) -> ExitCode:
    """Executes host 0's commands until it ends the group. SIGTERM here ends them all in order.

    Args:
        place: this host's.
        options: the same as host 0's.
        progress: see `startup.Progress`.
        on_ready: gets what this host holds.

    Raises:
        ModelLoadError: the model can't be served, by whichever host.
        HostLost: host 0 is gone, or another host, or the devices failed.
    """
    follower = Follower(place, facts(options, place.hosts))
    follower.join()
    connect_devices(place)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: _leave(follower, number, frame))
    try:
        prepared = prepare(options)
        model = load(prepared, progress)
        _, runner = make_runner(model, options, prepared.mesh_shape, progress, follower)
        on_ready(_summary(place, model))
        _execute(follower, runner)
    except JaxserveError as error:
        _give_up(follower, error)
        raise
    disconnect_devices()
    return ExitCode.FINE


def _execute(follower: Follower, runner: Runner) -> None:
    """At most one step is enqueued behind the one that runs, as on host 0: so a failure is noticed when it happens."""
    before: Pending | None = None
    for command in follower.commands():
        pending = runner.execute(command)
        if before is not None and before is not pending:
            runner.wait(before)
        before = pending


def _leave(follower: Follower, number: int, frame: FrameType | None) -> None:
    """The first signal; a second one ends this process as signals do."""
    signal.signal(number, signal.SIG_DFL)
    follower.leave()


def _give_up(follower: Follower, error: JaxserveError) -> None:
    """Host 0 says what the group ends of: a device that fails here often fails of what another host did."""
    follower.fail(error)
    if isinstance(error, DeviceLost) and not isinstance(error, HostLost):
        for _ in follower.commands():
            pass


def _summary(place: Place, model: LoadedModel) -> dict[str, str]:
    shards = [shard.data.nbytes for leaf in model.parameters for shard in leaf.addressable_shards]
    whole = sum(leaf.nbytes for leaf in model.parameters)
    return {
        "host": f"{place.host} of {place.hosts}, behind {place.coordinator}",
        "weights": f"{sum(shards) / 1e6:,.1f} MB of {whole / 1e6:,.1f} MB",
    }
