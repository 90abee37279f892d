"""API keys: where they come from and how they are compared."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

from starlette.datastructures import Headers

from jaxserve.api.settings import Settings


def load_api_keys(values: Sequence[str] = (), file: Path | None = None) -> tuple[str, ...]:
    """Collects the accepted keys, without duplicates, those of the file last.

    Args:
        values: keys given directly.
        file: one key per line; empty lines and lines that start with # are skipped.

    Raises:
        ValueError: the file can't be read or holds no key, or a key has characters no header can carry.
    """
    keys = [*values, *_from_file(file)]
    keys = [key.strip() for key in keys]
    for key in keys:
        if not key or not all("!" <= char <= "~" for char in key):
            raise ValueError("an API key must consist of visible ASCII characters without spaces")
    return tuple(dict.fromkeys(keys))


def _from_file(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the API key file {file} can't be read: {error}") from error
    keys = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    if not keys:
        raise ValueError(f"the API key file {file} holds no key")
    return keys


OTHER_KEY_HEADERS = ("api-key", "x-api-key")


class ApiKeys:
    """The accepted keys, as digests. No keys: everyone may enter."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode()) for key in keys)

    @property
    def required(self) -> bool:
        """Whether requests need a key at all."""
        return bool(self._digests)

    def accepts(self, key: bytes | None) -> bool:
        """Whether it is an accepted key; takes equally long for any wrong one."""
        if not self._digests:
            return True
        presented = _digest(key or b"")
        matches = [hmac.compare_digest(presented, digest) for digest in self._digests]
        return key is not None and any(matches)


def cache_owner(headers: Headers, settings: Settings) -> str:
    """Whose cached prompts a request may use: a digest of the key it came with; "" without one, or where all share.

    How fast an answer begins tells whether its prompt was cached, so a shared cache tells what others have asked.
    """
    key = presented_key(headers)
    return "" if settings.share_prompt_cache or key is None else _digest(key).hex()


def client_of(headers: Headers, address: str | None) -> str:
    """Whose turn a request takes where many wait: its key's, without one its address's."""
    key = presented_key(headers)
    return f"address {address}" if key is None else _digest(key).hex()


def presented_key(headers: Headers) -> bytes | None:
    """The key that a request came with, None without one: a bearer's, or as clients of Azure or Anthropic send it."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip().encode("latin-1")
    others = (headers.get(name) for name in OTHER_KEY_HEADERS)
    return next((other.strip().encode("latin-1") for other in others if other is not None), None)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
