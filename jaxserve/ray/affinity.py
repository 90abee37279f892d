"""Which replica a request should meet: the one that has its beginning in the prefix cache. No Ray in here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

_BEGINNING = 512
"""Characters of a prompt that decide: later turns of a conversation share them, other conversations mostly don't."""
_OWNERS = ("prompt_cache_isolation_key", "prompt_cache_key")


def affinity(body: bytes, api_key: bytes) -> str:
    """A key that is equal where replicas could reuse the prompt's beginning.

    Args:
        body: of the request; what isn't a JSON object has a key all the same.
        api_key: what it came with: different API keys share no cached prompts.
    """
    told = _read(body)
    beginning = json.dumps([told.get(name) for name in ("system", "messages", "prompt", "input")])[:_BEGINNING]
    owners = [told.get(name) for name in _OWNERS]
    text = json.dumps([api_key.decode("latin-1"), owners, beginning])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def in_order(key: str, replicas: Iterable[str]) -> list[str]:
    """Replicas as a key prefers them: each key has an order of its own, of which a lost replica is only left out
    (rendezvous hashing)."""
    return sorted(replicas, key=lambda replica: hashlib.blake2b(f"{key} {replica}".encode()).digest())


def _read(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
