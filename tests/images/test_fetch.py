"""The fetcher of images: what it brings, where it does not go, and when it stops."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address

import pytest
from file_server import PICTURE, PUBLIC, FileServer, permits, redirect

from jaxserve.images.addresses import Address, is_public
from jaxserve.images.fetch import ImageFetcher, Unfetchable


def fetch(url: str, resolve=None, most: int = 100_000, seconds: float = 0.7) -> bytes:
    async def run() -> bytes:
        fetcher = ImageFetcher(most, seconds, permits=permits, resolve=resolve)
        try:
            return await fetcher.fetch(url)
        finally:
            fetcher.close()

    return asyncio.run(run())


@pytest.mark.parametrize("path", ["/image.png", "/octets", "/bucket", "/typed", "/gzip", "/moved", "/twice", "/cookie"])
def test_what_is_brought(shown: FileServer, path: str) -> None:
    shown.asked.clear()
    assert fetch(shown.url(path)) == PICTURE
    for _, headers in shown.asked:
        assert headers["Host"] == f"{PUBLIC}:{shown.port}"
        assert not {"Cookie", "Authorization", "Referer"} & headers.keys()


REFUSED = {
    "/html": "of type 'text/html', not an image",
    "/untyped": "of type ''",
    "/missing": "status 404",
    "/failing": "status 500",
    "/nowhere": "status 302",
    "/large": "more than 100000 bytes",
    "/lying": "more than 100000 bytes",
    "/endless": "more than 100000 bytes",
    "/bomb": "more than 100000 bytes",
    "/no_gzip": "gzip, and is none",
    "/brotli": "'br', which was not asked for",
    "/drip": "within 0.7 seconds",
    "/slow_head": "within 0.7 seconds",
    "/silent": "within 0.7 seconds",
    "/loop": "more than 3 times",
    "/broken_off": "broke off",
    "/no_http": "broke off",
    "/to_file": "http and https only",
    "/to_ftp": "http and https only",
    "/to_user": "no user or password",
}


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_refused(shown: FileServer, path: str) -> None:
    with pytest.raises(Unfetchable, match=REFUSED[path]):
        fetch(shown.url(path))


PRIVATE = (
    "127.0.0.1",
    "localhost",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "0",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fd00::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "１２７.０.０.１",
)


NOT_PUBLIC = r"public addresses only|unknown|malformed"


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses_in_any_spelling(hidden: FileServer, shown: FileServer, host: str) -> None:
    hidden.asked.clear()
    url = hidden.url("/image.png", host)
    with pytest.raises(Unfetchable, match=NOT_PUBLIC):
        fetch(url)
    shown.answers["/away"] = redirect(url.encode().decode("latin-1"))
    with pytest.raises(Unfetchable, match=NOT_PUBLIC):
        fetch(shown.url("/away"))
    assert not hidden.asked


@pytest.mark.parametrize(
    "url",
    [
        "http://{shown}@{hidden}/image.png",
        "http://{shown}:80@{hidden}/image.png",
        "http://user:password@{shown}/image.png",
        "http://{shown}\\@{hidden}/image.png",
        "http://{hidden}#@{shown}/image.png",
        "http://{hidden}?@{shown}/image.png",
        "http:///{hidden}/image.png",
        "http:{hidden}/image.png",
        "http://",
        "http://{hidden}/a\r\nHost: b",
        "gopher://{hidden}/",
        "file:///etc/passwd",
        "http://[::1/",
        "http://{shown}:99999/",
        "http://{shown}/" + "a" * 5000,
        "http://" + "a" * 300 + ".example/",
    ],
)
def test_crooked_addresses(shown: FileServer, hidden: FileServer, url: str) -> None:
    hidden.asked.clear()
    places = {"shown": f"{PUBLIC}:{shown.port}", "hidden": f"127.0.0.1:{hidden.port}"}
    with pytest.raises(Unfetchable):
        fetch(url.format_map(places))
    assert not hidden.asked


def test_a_name_that_changes_its_mind(shown: FileServer, hidden: FileServer) -> None:
    """DNS rebinding: the connection goes to the address that was checked, and each redirect is checked anew."""
    answers, looked_up = [PUBLIC], []

    async def resolve(host: str, port: int) -> list[Address]:
        looked_up.append(host)
        return [ip_address(answers[min(len(looked_up), len(answers)) - 1])]

    hidden.asked.clear()
    answers = [PUBLIC, "127.0.0.1"]
    assert fetch(shown.url("/image.png", "rebinding.example"), resolve) == PICTURE
    assert looked_up == ["rebinding.example"]
    looked_up.clear()
    with pytest.raises(Unfetchable, match="public addresses only"):
        fetch(shown.url("/moved", "rebinding.example"), resolve)
    assert looked_up == ["rebinding.example"] * 2
    assert not hidden.asked


def test_one_private_address_among_public_ones(shown: FileServer) -> None:
    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address(PUBLIC), ip_address("10.0.0.1")]

    with pytest.raises(Unfetchable, match="public addresses only"):
        fetch(shown.url("/image.png", "two.example"), resolve)


def test_names_without_addresses(shown: FileServer) -> None:
    async def nobody(host: str, port: int) -> list[Address]:
        return []

    async def slow(host: str, port: int) -> list[Address]:
        await asyncio.sleep(5)
        return []

    with pytest.raises(Unfetchable, match="unknown"):
        fetch(shown.url("/image.png", "nobody.example"), nobody)
    with pytest.raises(Unfetchable, match="within"):
        fetch(shown.url("/image.png", "slow.example"), slow, seconds=0.2)


def test_proxies_of_the_environment_are_not_used(shown: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    assert fetch(shown.url("/image.png")) == PICTURE


def test_tls_keeps_the_name(shown: FileServer) -> None:
    """The server's name goes into the handshake although the connection goes to an address."""
    names: list[str | None] = []

    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = lambda _, name, __: names.append(name)  # type: ignore[assignment]
        server = await asyncio.start_server(lambda *_: None, PUBLIC, 0, ssl=context)
        port = server.sockets[0].getsockname()[1]

        async def resolve(host: str, port: int) -> list[Address]:
            return [ip_address(PUBLIC)]

        fetcher = ImageFetcher(1000, 2.0, permits=permits, resolve=resolve)
        with pytest.raises(Unfetchable, match="reached"):
            await fetcher.fetch(f"https://pictures.example:{port}/a.png")
        fetcher.close()
        server.close()

    asyncio.run(run())
    assert names == ["pictures.example"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("2a00:1450::1", True),
        ("192.0.0.192", False),
        ("198.18.0.1", False),
        ("192.88.99.1", False),
        ("168.63.129.16", False),
        ("2001::1", False),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("fec0::1", False),
        ("::ffff:8.8.8.8", False),
        ("2606:4700::1%eth0", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public
