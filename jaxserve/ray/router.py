"""Ray's router of requests to replicas, by the affinity that the gateway sends as first argument."""

from __future__ import annotations

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from jaxserve.ray.affinity import in_order


class PrefixRouter(RequestRouter):
    """The first replica in a request's order that has room for it. Ray asks each whether it has."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each, the most wanted first."""
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        key = str(pending_request.args[0]) if pending_request is not None and pending_request.args else ""
        return [[by_name[name]] for name in in_order(key, by_name)]
