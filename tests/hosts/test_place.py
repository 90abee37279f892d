"""Which host this is: from options, from what a pod says, or refused."""

from __future__ import annotations

import pytest

from jaxserve.errors import ModelLoadError
from jaxserve.hosts import place as place_module
from jaxserve.hosts.place import find_place
from jaxserve.options import HostsOptions

SECRET = "a secret of enough length"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("JAXSERVE_HOST_SECRET", SECRET)


def options(coordinator="10.0.0.1:8476", hosts=2, host=1, **more):
    return HostsOptions(coordinator, hosts, host, **more)


def test_options_say_it():
    place = find_place(options())
    assert (place.coordinator, place.hosts, place.host, place.leads) == ("10.0.0.1:8476", 2, 1, False)
    assert place.address == ("10.0.0.1", 8477)
    assert find_place(options("[fd00::1]:8476", host=0)).address == ("fd00::1", 8477)


def test_one_host_is_none():
    assert find_place(options(hosts=1, host=0)) is None
    assert find_place(HostsOptions()) is None


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (options(hosts=None), "--coordinator, --num-hosts and --host-id are given together"),
        (options(host=2), "--host-id must be less than --num-hosts 2, not 2"),
        (options("10.0.0.1"), "--coordinator must be HOST:PORT"),
        (options("10.0.0.1:65535"), "a port below 65535"),
        (options("10.0.0.1:http"), "--coordinator must be HOST:PORT"),
    ],
)
def test_contradictions_are_refused(chosen, message):
    with pytest.raises(ModelLoadError, match=message):
        find_place(chosen)


def test_without_a_secret_there_is_no_group(monkeypatch, tmp_path):
    for short in ("", "short"):
        monkeypatch.setenv("JAXSERVE_HOST_SECRET", short)
        with pytest.raises(ModelLoadError, match="at least 16 characters"):
            find_place(options())
    with pytest.raises(ModelLoadError, match="can't be read"):
        find_place(options(host_secret_file=tmp_path / "none"))
    (tmp_path / "secret").write_text(SECRET + "\n")
    assert find_place(options(host_secret_file=tmp_path / "secret")).secret == SECRET.encode()


class Pod:
    """As jax's clusters tell it."""

    hosts = 4

    @staticmethod
    def is_env_present():
        return True

    @classmethod
    def get_process_count(cls):
        return cls.hosts

    @staticmethod
    def get_coordinator_address(timeout, port):
        return "t1v-n-0:8482"

    @staticmethod
    def get_process_id():
        return 3


def test_a_pod_says_it_by_itself(monkeypatch):
    monkeypatch.setattr(place_module, "_tpu_clusters", lambda: (Pod,))
    place = find_place(HostsOptions())
    assert (place.coordinator, place.hosts, place.host) == ("t1v-n-0:8482", 4, 3)
    assert find_place(options(host=0)).coordinator == "10.0.0.1:8476"  # what was said counts first
    monkeypatch.setattr(Pod, "hosts", 1)
    assert find_place(HostsOptions()) is None


def test_jaxs_detection_is_what_it_was(monkeypatch):
    """Its classes have no public name: this tells when they change."""
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert place_module._tpu_clusters() == () or place_module._has_tpu()
    monkeypatch.setattr(place_module, "_has_tpu", lambda: True)
    gke, gce = place_module._tpu_clusters()
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost,localhost")
    monkeypatch.setenv("TPU_WORKER_ID", "1")
    for name, value in (("COORDINATOR_ADDRESS", "localhost:1"), ("NUM_SLICES", "1"), ("SLICE_ID", "0")):
        monkeypatch.setenv(f"MEGASCALE_{name}", value)  # else it asks the machine's metadata
    for cluster in (gke, gce):
        assert all(callable(getattr(cluster, name)) for name in vars(Pod) if name.startswith(("get_", "is_")))
    assert gke.get_process_count() == 2
    assert gke.get_process_id() == 1
    assert gke.get_coordinator_address(5, None) == "localhost:8482"
