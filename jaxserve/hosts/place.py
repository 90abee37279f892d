"""Which host this is, of how many: from the options, or from what a TPU pod says of itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxserve.errors import ModelLoadError
from jaxserve.hosts.link import SHORTEST_SECRET
from jaxserve.options import HostsOptions

SECRET_VARIABLE = "JAXSERVE_HOST_SECRET"
_LAST_PORT = 65535


@dataclass(frozen=True)
class Place:
    """A host's place in its group."""

    coordinator: str
    """HOST:PORT of jax's coordinator on host 0."""
    hosts: int
    host: int
    secret: bytes
    patience: float
    """Seconds that hosts wait for each other at start."""

    @property
    def address(self) -> tuple[str, int]:
        """Where host 0 gives its commands: at the port after the coordinator's."""
        name, _, port = self.coordinator.rpartition(":")
        return name.strip("[]"), int(port) + 1

    @property
    def leads(self) -> bool:
        """Whether this host schedules and serves."""
        return self.host == 0


def find_place(options: HostsOptions) -> Place | None:
    """This host's place; None = it serves alone.

    Raises:
        ModelLoadError: options are missing or contradict each other.
    """
    found = _from_options(options) or _from_pod()
    if found is None:
        return None
    coordinator, hosts, host = found
    if not 0 <= host < hosts:
        raise ModelLoadError(f"--host-id must be less than --num-hosts {hosts}, not {host}")
    if hosts == 1:
        return None
    return Place(coordinator, hosts, host, _secret(options), options.hosts_timeout)


def _from_options(options: HostsOptions) -> tuple[str, int, int] | None:
    match options.coordinator, options.num_hosts, options.host_id:
        case None, None, None:
            return None
        case str(coordinator), int(hosts), int(host):
            name, _, port = coordinator.rpartition(":")
            if name and port.isdecimal() and 0 < int(port) < _LAST_PORT:
                return coordinator, hosts, host
            raise ModelLoadError(f"--coordinator must be HOST:PORT with a port below {_LAST_PORT}, not {coordinator!r}")
        case _:
            raise ModelLoadError("--coordinator, --num-hosts and --host-id are given together, or found on a TPU pod")


def _from_pod() -> tuple[str, int, int] | None:
    """What jax's own detection says on a TPU VM or in a pod of GKE; None on any other machine."""
    clusters = _tpu_clusters()
    cluster = next((each for each in clusters if each.is_env_present()), None)
    if cluster is None or cluster.get_process_count() == 1:
        return None
    return cluster.get_coordinator_address(60, None), cluster.get_process_count(), cluster.get_process_id()


def _tpu_clusters() -> tuple[Any, ...]:
    """jax has no public name for what `jax.distributed.initialize()` detects, and initialising waits for the others:
    too late to tell a host that its flags differ."""
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu" or not _has_tpu():
        return ()
    from jax._src.clusters import cloud_tpu_cluster as tpu

    return (tpu.GkeTpuCluster, tpu.GceTpuCluster)


def _has_tpu() -> bool:
    """Whether device nodes say so: jax is not imported for the question."""
    return any(True for pattern in ("accel[0-9]*", "vfio/[0-9]*") for _ in Path("/dev").glob(pattern))


def _secret(options: HostsOptions) -> bytes:
    if options.host_secret_file is not None:
        try:
            secret = options.host_secret_file.read_bytes().strip()
        except OSError as error:
            raise ModelLoadError(
                f"--host-secret-file {options.host_secret_file} can't be read: {error.strerror}"
            ) from None
    else:
        secret = os.environ.get(SECRET_VARIABLE, "").strip().encode()
    if len(secret) < SHORTEST_SECRET:
        raise ModelLoadError(
            f"several hosts need a secret that they share, of at least {SHORTEST_SECRET} characters: "
            f"--host-secret-file, or {SECRET_VARIABLE} in the environment"
        )
    return secret
