"""Images at http(s) addresses that strangers name: one bounded fetcher.

A name is looked up once for each connection, all that it stands for must be public, and the connection goes to the
address that was checked: there is no second look-up that could say something else. TLS and the Host header keep the
name. A redirect is another connection. No cookies, no credentials, no proxies; nothing is kept between two images.
"""

from __future__ import annotations

import asyncio
import socket
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from ipaddress import ip_address
from ssl import SSLContext
from typing import Any

import httpcore
import httpx

from jaxserve.images.addresses import Address, is_public

Resolve = Callable[[str, int], Awaitable[Iterable[Address]]]
"""(host, port) to the addresses of a host."""
_REDIRECTS = 3
_AT_ONCE = 32
"""Images that are fetched at a time; others wait, and their time has not begun."""
_LOOKING_UP = 8
"""Threads for names: those that answer slowly keep one each beyond the time of their image."""
_TRIES = 2
"""Addresses of a host that are tried."""
_LONGEST = 4096
_HEADERS: Mapping[bytes | str, bytes | str] = {
    "User-Agent": "jaxserve",
    "Accept": "image/*",
    "Accept-Encoding": "identity",
}
_TYPES = ("image/", "application/octet-stream", "binary/octet-stream")
_MOVED = frozenset({301, 302, 303, 307, 308})
_BROKEN = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)


class Unfetchable(Exception):
    """An image can't be fetched; says why, as the end of a sentence that names the part of the request."""


class ImageFetcher:
    """Fetches images. Use from one event loop.

    Args:
        most_bytes: of an image, decoded as its Content-Encoding says.
        seconds: for an image, from the look-up of its host to its last byte, redirects included.
        permits: the addresses that connections may go to.
        resolve: looks hosts up; None = as the system does.
    """

    def __init__(
        self,
        most_bytes: int,
        seconds: float,
        *,
        permits: Callable[[Address], bool] = is_public,
        resolve: Resolve | None = None,
    ) -> None:
        self._most, self._seconds = most_bytes, seconds
        self._threads = ThreadPoolExecutor(_LOOKING_UP, thread_name_prefix="jaxserve-names")
        self._connector = _Connector(resolve or self._look_up, permits)
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def fetch(self, url: str, hold: Callable[[int], None] = lambda size: None) -> bytes:
        """The bytes that are found at an address.

        Args:
            url: as a client sent it.
            hold: told of every part's size; what it raises ends the fetching.

        Raises:
            Unfetchable: it is none of http(s), not public, not an image, too large, too slow, or not there.
        """
        async with self._room:
            try:
                async with asyncio.timeout(self._seconds):
                    return await self._follow(url, hold)
            except TimeoutError:
                raise Unfetchable(f"the image had not come within {self._seconds:g} seconds") from None
            except _BROKEN:
                raise Unfetchable("the server at the image's address can't be reached, or broke off") from None

    def close(self) -> None:
        """Starts nothing any more, and waits for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _follow(self, url: str, hold: Callable[[int], None]) -> bytes:
        place = _checked(url)
        for _ in range(_REDIRECTS + 1):
            found = await self._get(place, hold)
            if isinstance(found, bytes):
                return found
            place = _checked(found, place)
        raise Unfetchable(f"the image's address redirects more than {_REDIRECTS} times")

    async def _get(self, url: httpx.URL, hold: Callable[[int], None]) -> bytes | str:
        """What is there, or where it is instead."""
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers = {b"Host": url.netloc, **_HEADERS}
        tls = self._tls if url.scheme == "https" else None
        async with (
            httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=self._connector) as pool,
            pool.stream("GET", target, headers=headers) as response,
        ):
            told = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _MOVED and "location" in told:
                return told["location"]
            if response.status != 200:
                raise Unfetchable(f"the server at the image's address answered with status {response.status}")
            return await self._body(response, told, hold)

    async def _body(self, response: httpcore.Response, told: dict[str, str], hold: Callable[[int], None]) -> bytes:
        _check_type(told.get("content-type", ""))
        expand = _expander(told.get("content-encoding", ""))
        announced = told.get("content-length", "")
        body = bytearray()
        if announced.isdecimal() and int(announced[:20]) > self._most:
            raise self._too_large()
        async for chunk in response.aiter_stream():
            part = expand(chunk, self._most + 1 - len(body))
            hold(len(part))
            body += part
            if len(body) > self._most:
                raise self._too_large()
        return bytes(body)

    def _too_large(self) -> Unfetchable:
        return Unfetchable(f"the image has more than {self._most} bytes")

    @cached_property
    def _tls(self) -> SSLContext:
        return httpx.create_ssl_context(trust_env=False)

    async def _look_up(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [ip_address(entry[4][0]) for entry in found]


class _Connector(httpcore.AsyncNetworkBackend):
    """Connects to addresses that are permitted, and to none else."""

    def __init__(self, resolve: Resolve, permits: Callable[[Address], bool]) -> None:
        self._resolve, self._permits = resolve, permits
        self._plain = httpcore.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, **more: Any) -> httpcore.AsyncNetworkStream:  # type: ignore[override]
        """A connection to one of the host's addresses."""
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (socket.gaierror, UnicodeError, ValueError):
            addresses = []
        if not addresses:
            raise Unfetchable("the host of the image's address is unknown")
        if not all(map(self._permits, addresses)):
            raise Unfetchable("images are fetched from public addresses only")
        failures = []
        for address in addresses[:_TRIES]:
            try:
                return await self._plain.connect_tcp(str(address), port, **more)
            except httpcore.ConnectError as failure:
                failures.append(failure)
        raise failures[0]


def _checked(url: str, base: httpx.URL | None = None) -> httpx.URL:
    """An address in its parts; relative to the one that redirected there."""
    try:
        parts = httpx.URL(url[: _LONGEST + 1]) if base is None else base.join(url[: _LONGEST + 1])
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise Unfetchable("the image's address is malformed") from None
    if parts.scheme not in ("http", "https"):
        raise Unfetchable("images are fetched by http and https only")
    if len(url) > _LONGEST:
        raise Unfetchable(f"the image's address is longer than {_LONGEST} characters")
    if parts.userinfo or not parts.host:
        raise Unfetchable("the image's address must have a host, and no user or password")
    return parts


def _check_type(said: str) -> None:
    kind = said.partition(";")[0].strip().lower()
    if not kind.startswith(_TYPES):
        raise Unfetchable(f"what is at the image's address is of type {kind[:64]!r}, not an image")


def _expander(said: str) -> Callable[[bytes, int], bytes]:
    """(part of the body, bytes to make of it at most) to bytes."""
    encoding = said.strip().lower()
    if encoding in ("", "identity"):
        return lambda data, most: data
    if encoding not in ("gzip", "x-gzip"):
        raise Unfetchable(f"the image came with Content-Encoding {encoding[:32]!r}, which was not asked for")
    reader = zlib.decompressobj(wbits=31)

    def expand(data: bytes, most: int) -> bytes:
        try:
            return reader.decompress(data, most)
        except zlib.error:
            raise Unfetchable("the image came as gzip, and is none") from None

    return expand
