"""The connection between hosts, in the hands of strangers and of who stands in the middle."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxserve.errors import HostLost, ModelLoadError
from jaxserve.hosts.link import PROTOCOL, admit, greet

SECRET = b"a secret of enough length"


def both_ends() -> tuple[socket.socket, socket.socket]:
    """The accepted end first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        there = socket.create_connection(listening.getsockname())
        return listening.accept()[0], there


@pytest.fixture
def pair():
    """Both sides of a connection, and their sockets."""
    ours, theirs = both_ends()
    with ours, theirs:
        with ThreadPoolExecutor() as pool:
            there = pool.submit(greet, theirs, SECRET, "host 0")
            here = pool.submit(admit, ours, SECRET, "host 1")
        yield here.result(), there.result(), ours, theirs


def test_frames_arrive_as_they_were_sent(pair):
    here, there, *_ = pair
    body = bytes(range(256)) * 4096
    sender = threading.Thread(target=lambda: [here.send("command", body, number=n) for n in range(3)])
    sender.start()
    frames = [there.receive() for _ in range(3)]
    sender.join()
    assert [(frame.kind, frame.fields, frame.body) for frame in frames] == [
        ("command", {"number": n}, body) for n in range(3)
    ]
    there.send("ready")
    assert here.receive().kind == "ready"


def test_another_secret_is_refused_by_both():
    ours, theirs = both_ends()
    with ours, theirs, ThreadPoolExecutor() as pool:
        there = pool.submit(greet, theirs, b"another secret of length", "host 0")
        here = pool.submit(admit, ours, SECRET, "host 1")
        assert str(there.exception(20)) == "host 0 has another host secret"
        theirs.close()
        assert "did not finish its greeting" in str(here.exception(20))


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", PROTOCOL[:-1] + b"0" + bytes(32)])
def test_strangers_get_nothing_but_a_closed_door(said):
    ours, theirs = both_ends()
    with ours, theirs:
        theirs.sendall(said)
        with pytest.raises(ModelLoadError, match="speaks another protocol"):
            admit(ours, SECRET, "the host at 10.0.0.9")
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


def test_an_echo_of_the_leaders_proof_is_no_proof():
    """Who knows no secret can send back what it was sent."""
    ours, theirs = both_ends()
    with ours, theirs, ThreadPoolExecutor() as pool:
        here = pool.submit(admit, ours, SECRET, "a stranger")
        theirs.sendall(PROTOCOL + bytes(32))
        greeting = theirs.recv(1024)
        theirs.sendall(greeting[-32:])
        assert isinstance(here.exception(20), ModelLoadError)


def test_a_changed_frame_is_noticed(pair):
    here, there, ours, theirs = pair
    here.send("command", b"\0" * 64)
    raw = bytearray(theirs.recv(1 << 16))
    raw[-1] ^= 1
    ours.sendall(raw)  # what was taken out of the stream goes in again
    with pytest.raises(HostLost, match="not authentic"):
        there.receive()


def test_a_repeated_frame_is_noticed(pair):
    here, there, ours, theirs = pair
    here.send("command", b"once")
    raw = theirs.recv(1 << 16, socket.MSG_PEEK)
    assert there.receive().body == b"once"
    ours.sendall(raw)
    with pytest.raises(HostLost, match="not authentic"):
        there.receive()


def test_a_frame_sent_back_is_noticed(pair):
    here, there, ours, theirs = pair
    here.send("command", b"mine")
    theirs.sendall(theirs.recv(1 << 16))
    with pytest.raises(HostLost, match="not authentic"):
        here.receive()
    del there, ours


def test_an_endless_frame_is_not_waited_for(pair):
    here, there, ours, _ = pair
    ours.sendall(bytes(32) + b"\xff" * 12)
    with pytest.raises(HostLost, match="announced a frame of"):
        there.receive()
    del here


def test_silence_and_a_closed_connection_are_told_apart(pair):
    here, there, ours, _ = pair
    there.allow_silence(0.1)
    with pytest.raises(HostLost, match="host 0 has been silent for 0 s"):
        there.receive()
    ours.close()
    with pytest.raises(HostLost, match="host 0 is gone"):
        there.receive()
    with pytest.raises(HostLost, match="host 1 is gone"):
        here.send("command")
