"""Options of a group of hosts that serve one model together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxserve.options.declaration import Options, option

_FOUND = "found out on TPU pods; else one host"


@dataclass(frozen=True)
class HostsOptions(Options):
    """This host's place among others; every host gets the same options but for `host_id`."""

    coordinator: str | None = option(
        None,
        "HOST:PORT of host 0 that the others reach; commands take the port after it.",
        "Hosts",
        default_text=_FOUND,
    )
    num_hosts: int | None = option(None, "Hosts that serve the model together.", "Hosts", least=1, default_text=_FOUND)
    host_id: int | None = option(
        None, "Which of them this is; host 0 schedules and serves.", "Hosts", least=0, default_text=_FOUND
    )
    host_secret_file: Path | None = option(
        None,
        "File with the secret that the hosts share, at least 16 characters.",
        "Hosts",
        default_text="the environment's JAXSERVE_HOST_SECRET",
    )
    hosts_timeout: float = option(600.0, "Seconds that hosts wait for each other at start.", "Hosts", least=1)
