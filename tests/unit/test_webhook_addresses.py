"""Where webhooks may go: the networks allowed, and never what a cloud or the link keeps for itself."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from services.errors import InvalidRequest
from services.settings import Settings, load_settings
from services.webhook_addresses import checked_url, resolve

EVERYWHERE = Settings(webhook_networks="0.0.0.0/0, ::/0").webhook_allowed
DEFAULT = Settings().webhook_allowed


def resolved(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def answer(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "fd12::1", "::ffff:10.0.0.1"]
)
def test_a_firms_own_networks_are_allowed(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolved(monkeypatch, address)
    assert resolve(checked_url("http://cases.firm.example/hook"), DEFAULT) == [address]


@pytest.mark.parametrize("address", ["8.8.8.8", "172.32.0.1", "2001:4860::1", "100.64.0.1", "::ffff:8.8.8.8"])
def test_the_world_is_not_unless_it_is_listed_and_then_by_tls(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolved(monkeypatch, address)
    url = checked_url("https://cases.firm.example/hook")
    with pytest.raises(InvalidRequest, match="CASEMILL_WEBHOOK_NETWORKS") as refused:
        resolve(url, DEFAULT)
    assert refused.value.code == "webhook_address_refused"
    assert resolve(url, EVERYWHERE) == [address]
    if address != "100.64.0.1":  # a carrier's own network is not the open internet
        with pytest.raises(InvalidRequest, match="use https"):
            resolve(checked_url("http://cases.firm.example/hook"), EVERYWHERE)


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "::ffff:169.254.169.254", "100.100.100.200"),
        *("0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
    ],
)
def test_some_addresses_are_never_allowed(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolved(monkeypatch, address)
    with pytest.raises(InvalidRequest) as refused:
        resolve(checked_url("https://cases.firm.example/hook"), EVERYWHERE)
    assert refused.value.code == "webhook_address_refused"


def test_one_address_that_is_refused_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, "10.0.0.1", "8.8.8.8")
    with pytest.raises(InvalidRequest, match=r"8\.8\.8\.8"):
        resolve(checked_url("https://cases.firm.example/hook"), DEFAULT)


@pytest.mark.parametrize("url", ["http://2130706433/", "http://127.1/", "http://0x7f.1/"])
def test_other_ways_to_write_an_address_are_judged_as_what_they_are(url: str) -> None:
    with pytest.raises(InvalidRequest):
        resolve(checked_url(url), Settings(webhook_networks="10.0.0.0/8").webhook_allowed)


@hypothesis.given(
    st.one_of(
        st.text(),
        st.text().map("http://".__add__),
        st.from_regex(r"https?://[^/]{0,20}(:[0-9]{0,7})?/.{0,5}", fullmatch=True),
        st.from_regex(r"http://\[[0-9a-f:.%]{0,30}\](:[0-9]{0,7})?/", fullmatch=True),
    )
)
@hypothesis.example("http://xn--/")
@hypothesis.example("http://localhost:99999/")
@hypothesis.example("http://" + "a" * 300 + "/")
def test_any_text_is_an_endpoint_or_refused(text: str) -> None:
    real = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *names, **kind: real(*names, **kind, flags=socket.AI_NUMERICHOST))
        with contextlib.suppress(InvalidRequest):
            resolve(checked_url(text), DEFAULT)


def test_a_network_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CASEMILL_WEBHOOK_NETWORKS", "10.0.0.0/8,lan")
    with pytest.raises(SystemExit, match=r"CASEMILL_WEBHOOK_NETWORKS.*lan"):
        load_settings()
