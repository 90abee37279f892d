"""One of two processes that load a model together, and count what they read. Usage: reading_process.py PORT HOST"""

from __future__ import annotations

import json
import math
import sys

import jax

from jaxserve.hosts.devices import connect_devices, disconnect_devices
from jaxserve.hosts.place import Place
from jaxserve.models import load_model, loading, make_mesh
from jaxserve.models.config_file import load_config
from jaxserve.prepared import mesh_shape
from jaxserve.resolve import bundled_model_dir

read = 0


def counting(leaf, source, counter, real=loading._load_leaf):
    class Counted:
        def read(self, index, out, progress):
            global read
            read += out.size
            source.read(index, out, progress)

    return real(leaf, Counted(), counter)


def main() -> None:
    port, host = sys.argv[1:]
    connect_devices(Place(f"127.0.0.1:{port}", 2, int(host), b"", 60.0))
    loading._load_leaf = counting
    directory = bundled_model_dir()
    model = load_model(directory, mesh=make_mesh(mesh_shape(load_config(directory), 1)))
    held = sum(math.prod(shard.data.shape) for leaf in model.parameters for shard in leaf.addressable_shards)
    print(json.dumps({"read": read, "held": held, "all": sum(leaf.size for leaf in model.parameters)}))
    jax.block_until_ready(model.leaves)
    disconnect_devices()


main()
