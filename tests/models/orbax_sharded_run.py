"""Run by test_orbax.py in its own process, with 8 virtual CPU devices: loads stores, and writes others."""

import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxserve import models
from jaxserve.models import orbax_store
from jaxserve.models.model import plan_model

sys.path.insert(0, str(Path(__file__).parent))
from model_session import Session

WITH_LOGITS = ("mistral_window", "gpt_oss")
"""Compiling costs seconds; equal parameters are enough for the others."""


class CountingArray(orbax_store.StoredArray):
    """Counts the bytes that are read."""

    total = 0

    def read(self, index, out):
        CountingArray.total += out.nbytes
        super().read(index, out)


def shards(leaf):
    """What each device holds, by what part of the array it is."""
    return {str(shard.index): np.asarray(shard.data) for shard in leaf.addressable_shards}


def same(one, other):
    pairs = [(shards(a), shards(b)) for a, b in zip(one.leaves, other.leaves, strict=True)]
    return all(
        a.keys() == b.keys() and all(a[key].tobytes() == b[key].tobytes() for key in a) and len(a) > 0 for a, b in pairs
    )


def same_logits(one, other):
    """Of 8 tokens, by one compiled step."""
    session = Session(one, options={"xla_backend_optimization_level": 0})
    logits = []
    for session.model in (one, other):
        logits += session.run([(0, 0, range(8))], 8)
    return bool((logits[0] == logits[1]).all())


def compare(hub, store, loop):
    """One model loaded from both directories onto 8 devices."""
    mesh = models.make_mesh(models.derive_mesh_shape(models.load_config(hub), 8))
    CountingArray.total = 0
    ours = models.load_model(store, mesh=mesh, layer_loop=loop)
    read = CountingArray.total
    theirs = models.load_model(hub, mesh=mesh, layer_loop=loop)
    report = {
        "same_parameters": same(ours, theirs),
        "same_logits": same_logits(ours, theirs) if loop == "scan" and hub.name in WITH_LOGITS else None,
        "split": sum(not leaf.is_fully_replicated for leaf in ours.leaves),
        "read": read,
        "held": sum(part.nbytes for leaf in ours.leaves for part in shards(leaf).values()),
    }
    return ours, report


def save(model, hub, out):
    """As another program on 8 devices would: orbax writes jax arrays, one layer each, in shards."""
    unrolled = {"layer_loop": "unroll", "dtype": "float32"}
    plan = plan_model(model.config, mesh=model.mesh, **unrolled)
    names = [orbax_store.array_names(leaf)[0] for leaf in plan.leaves]
    out.mkdir(parents=True)
    shutil.copy(hub / "config.json", out)
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(out / "params", dict(zip(names, model.leaves, strict=True)))


if __name__ == "__main__":
    fixtures, folder = Path(sys.argv[1]), Path(sys.argv[2])
    orbax_store.StoredArray = CountingArray
    runs = {}
    for store in sorted((folder / "from_1").iterdir()):
        hub = fixtures / store.name
        for loop in ("scan", "unroll"):
            model, runs[f"{store.name} {loop}"] = compare(hub, store, loop)
        save(model, hub, folder / "from_8" / store.name)  # the unrolled one
    print(json.dumps({"devices": len(jax.devices()), "runs": runs}))
