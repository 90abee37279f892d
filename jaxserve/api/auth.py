"""API keys: where they come from and how they are compared."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

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


class ApiKeys:
    """The accepted keys, as digests. No keys: everyone may enter."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode()) for key in keys)

    @property
    def required(self) -> bool:
        """Whether requests need a key at all."""
        return bool(self._digests)

    def accepts(self, authorization: bytes | None) -> bool:
        """Whether an `Authorization` header carries an accepted bearer key; takes equally long for any wrong key."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or b"").partition(b" ")
        presented = _digest(key.strip())
        matches = [hmac.compare_digest(presented, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
