import socket
import time
import urllib.request

import pytest

from charlm_fast.text import network
from charlm_fast.text.network import can_find


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", dict)


def test_a_name_that_resolves(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a: [])
    assert can_find("example.org")


def test_a_name_that_does_not(monkeypatch):
    def no_name(*args):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    assert not can_find("example.org")


def test_a_resolver_that_never_answers(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a: time.sleep(5))
    monkeypatch.setattr(network, "TIMEOUT", 0.05)
    start = time.monotonic()
    assert not can_find("example.org")
    assert time.monotonic() - start < 4


def test_a_proxy_looks_up_by_itself(monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a: pytest.fail("looked up"))
    assert can_find("example.org")
