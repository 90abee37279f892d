"""An authenticated connection between two hosts: frames of a JSON header and raw bytes. Nothing is ever unpickled.

Both sides prove that they know the secret before either reads a frame (HMAC-SHA256 of both sides' nonces). Each frame
then carries a code over its content and its number, so that none can be changed, repeated or left out. Frames are not
encrypted: they hold token ids.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Any

from jaxserve.errors import HostLost, ModelLoadError

PROTOCOL = b"jaxserve hosts 1"
"""Sent first; another version of the protocol ends here."""
SHORTEST_SECRET = 16
"""Bytes."""
_CODE, _NONCE = 32, 32
_SIZES = struct.Struct("!IQ")
"""Bytes of header and body."""
_MOST_HEADER, _MOST_BODY = 1 << 20, 1 << 30
_HANDSHAKE_SECONDS = 10.0


@dataclass(frozen=True)
class Frame:
    """One message."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""


class Link:
    """One side of a connection whose other side has proved itself. `send` from any thread, `receive` from one.

    Args:
        connection: the socket; its timeout is the silence, in seconds, after which the other side counts as lost.
        key_out: signs what is sent.
        key_in: proves what is received.
        peer: the other side in words.
    """

    def __init__(self, connection: socket.socket, key_out: bytes, key_in: bytes, peer: str) -> None:
        self.peer = peer
        self._socket = connection
        self._keys = key_out, key_in
        self._counts = [0, 0]
        self._lock = threading.Lock()

    def allow_silence(self, seconds: float) -> None:
        """From now on."""
        self._socket.settimeout(seconds)

    def send(self, kind: str, body: bytes = b"", **fields: Any) -> None:
        """Sends a frame.

        Raises:
            HostLost: the other side is gone, or reads nothing.
        """
        header = json.dumps({"kind": kind, **fields}).encode()
        content = b"".join((_SIZES.pack(len(header), len(body)), header, body))
        try:
            with self._lock:
                self._socket.sendall(self._code(0, content) + content)
        except OSError as error:
            raise HostLost(f"{self.peer} is gone: {_words(error)}") from None

    def receive(self) -> Frame:
        """The next frame.

        Raises:
            HostLost: the other side is gone, silent, or not who it was.
        """
        try:
            return self._receive()
        except TimeoutError:
            raise HostLost(f"{self.peer} has been silent for {self._socket.gettimeout():.0f} s") from None
        except OSError as error:
            raise HostLost(f"{self.peer} is gone: {_words(error)}") from None

    def _receive(self) -> Frame:
        code, sizes = _read(self._socket, _CODE), _read(self._socket, _SIZES.size)
        header_size, body_size = _SIZES.unpack(sizes)
        if header_size > _MOST_HEADER or body_size > _MOST_BODY:
            raise HostLost(f"{self.peer} announced a frame of {header_size + body_size} bytes")
        content = sizes + _read(self._socket, header_size + body_size)
        if not hmac.compare_digest(code, self._code(1, content)):
            raise HostLost(f"a frame that claims to be of {self.peer} is not authentic")
        start = _SIZES.size + header_size
        fields = json.loads(content[_SIZES.size : start])
        return Frame(fields.pop("kind"), fields, content[start:])

    def _code(self, direction: int, content: bytes) -> bytes:
        number = self._counts[direction].to_bytes(8)
        self._counts[direction] += 1
        return hmac.digest(self._keys[direction], number + content, "sha256")


def greet(connection: socket.socket, secret: bytes, peer: str) -> Link:
    """The side that connected: proves itself once the other side has.

    Raises:
        HostLost: nobody answers.
        ModelLoadError: the other side has another secret, or speaks another protocol.
    """
    with _Handshake(connection, peer) as talk:
        ours = talk.nonce()
        connection.sendall(PROTOCOL + ours)
        talk.check_protocol(_read(connection, len(PROTOCOL)))
        theirs = _read(connection, _NONCE)
        talk.check(_read(connection, _CODE), _proof(secret, b"leader", ours, theirs))
        connection.sendall(_proof(secret, b"follower", ours, theirs))
        return Link(connection, _proof(secret, b"up", ours, theirs), _proof(secret, b"down", ours, theirs), peer)


def admit(connection: socket.socket, secret: bytes, peer: str) -> Link:
    """The side that was connected to; raises as `greet`."""
    with _Handshake(connection, peer) as talk:
        talk.check_protocol(_read(connection, len(PROTOCOL)))
        theirs, ours = _read(connection, _NONCE), talk.nonce()
        connection.sendall(PROTOCOL + ours + _proof(secret, b"leader", theirs, ours))
        talk.check(_read(connection, _CODE), _proof(secret, b"follower", theirs, ours))
        return Link(connection, _proof(secret, b"down", theirs, ours), _proof(secret, b"up", theirs, ours), peer)


class _Handshake:
    """Bounds its time, and names the other side in what goes wrong."""

    def __init__(self, connection: socket.socket, peer: str) -> None:
        self._socket, self._peer = connection, peer

    def __enter__(self) -> _Handshake:
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(_HANDSHAKE_SECONDS)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, OSError):
            raise HostLost(f"{self._peer} did not finish its greeting: {_words(error)}") from None

    @staticmethod
    def nonce() -> bytes:
        return secrets.token_bytes(_NONCE)

    def check_protocol(self, spoken: bytes) -> None:
        if spoken != PROTOCOL:
            raise ModelLoadError(f"{self._peer} speaks another protocol: is the same version installed there?")

    def check(self, proof: bytes, expected: bytes) -> None:
        if not hmac.compare_digest(proof, expected):
            raise ModelLoadError(f"{self._peer} has another host secret")


def _proof(secret: bytes, purpose: bytes, follower: bytes, leader: bytes) -> bytes:
    return hmac.digest(secret, purpose + b"\0" + follower + leader, "sha256")


def _read(connection: socket.socket, size: int) -> bytes:
    whole = bytearray(size)
    view = memoryview(whole)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise ConnectionResetError("it closed the connection")
        view = view[count:]
    return bytes(whole)


def _words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
