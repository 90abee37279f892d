"""The life of host 0 in a group, around its server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxserve.errors import exit_code
from jaxserve.hosts.devices import connect_devices
from jaxserve.hosts.facts import facts
from jaxserve.hosts.leader import Leader
from jaxserve.hosts.place import Place
from jaxserve.options import EngineOptions


@contextmanager
def leading(place: Place, options: EngineOptions) -> Iterator[Leader]:
    """The leader of a group whose devices are connected; the other hosts end of what ends the block.

    Raises:
        ModelLoadError: a host is missing or differs.
        HostLost: one is gone.
    """
    leader = Leader(place, facts(options, place.hosts))
    try:
        leader.gather()
        connect_devices(place)
        yield leader
    except BaseException as error:
        leader.end(exit_code(error), str(error))
        raise
