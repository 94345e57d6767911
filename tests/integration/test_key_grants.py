"""What an admin's key may give to others, over HTTP: never more than it may itself."""

from __future__ import annotations

from typing import Any

import pytest

from services.audit import SYSTEM
from services.jobs import Priority
from services.principal import Limits
from tests.integration.test_keys import GENERATE, Served, gateway, installation, refused
from tests.integration.test_lifecycle import tidy

__all__ = ["gateway", "installation", "tidy"]  # fixtures


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"scopes": ["read", "operator"]}, 403),
        ({"priority_ceiling": "critical"}, 403),
        ({"requests_per_minute": 101}, 403),
        ({"requests_per_minute": None}, 403),
        ({"tokens_per_minute": None}, 403),
        ({"stored_bytes": 11}, 403),
        ({"expires_at": None}, 403),
        ({"expires_at": "2033-05-18T03:33:21Z"}, 403),
        ({"tenant": "rival"}, 403),
        ({"scopes": ["read", "everything"]}, 422),
        ({"scopes": ["read", "admin"], "matters": ["M-1"]}, 422),
        ({"matters": []}, 422),
        ({"matters": ["../x"]}, 422),
        ({"name": "a\u0000b"}, 422),
        ({"requests_per_minute": 0}, 422),
    ],
)
def test_nobody_makes_a_key_that_may_more(gateway: Served, body: dict[str, Any], status: int) -> None:
    scopes = ("submit", "read", "admin")
    limits = Limits(requests=100, tokens=1000, stored_bytes=10, expires=2e9)
    most = {
        "requests_per_minute": 100,
        "tokens_per_minute": 1000,
        "stored_bytes": 10,
        "expires_at": "2033-05-18T03:33:20Z",
    }
    admin = gateway.make(scopes=scopes, ceiling=Priority.HIGH, limits=limits)
    before = len(gateway.access.list())
    assert admin.post("/v1/keys", json={"name": "k"} | most | body).status_code == status
    assert len(gateway.access.list()) == before
    assert admin.post("/v1/keys", json={"name": "k"} | most).status_code == 201


def test_nobody_takes_over_a_key_that_may_more(gateway: Served) -> None:
    limited = gateway.make(scopes=("read", "admin"), ceiling=Priority.LOW, limits=Limits(tokens=10, expires=2e9))
    within = Limits(tokens=9, expires=1.9e9)
    for may_more, code in (
        (
            gateway.access.create("k", tenant="acme", scopes=("submit", "read"), ceiling=Priority.LOW, limits=within),
            "forbidden",
        ),
        (gateway.access.create("k", tenant="acme", scopes=("read",), limits=within), "priority_forbidden"),
        (gateway.access.create("k", tenant="acme", scopes=("read",), ceiling=Priority.LOW), "limits_forbidden"),
    ):
        refused(limited.post(f"/v1/keys/{may_more.split('_')[1]}/rotate"), 403, code)
        assert gateway.as_key(may_more).get("/v1/jobs").status_code == 200
        assert limited.delete(f"/v1/keys/{may_more.split('_')[1]}").status_code == 204, "it may be revoked all the same"
    less = gateway.access.create("k", tenant="acme", scopes=("read",), ceiling=Priority.BULK, limits=within).split("_")[
        1
    ]
    assert limited.post(f"/v1/keys/{less}/rotate").status_code == 201
    legacy = gateway.access.create("old", tenant="acme", scopes=("read", "admin"), ceiling=Priority.LOW, limits=within)
    raw: Any = gateway.lifecycle.client
    raw.hdel(gateway.lifecycle.keys("apikey", id=legacy.split("_")[1]), "matters")
    refused(limited.post(f"/v1/keys/{legacy.split('_')[1]}/rotate"), 403, "forbidden")
    refused(limited.delete(f"/v1/keys/{legacy.split('_')[1]}"), 403, "forbidden")


def test_an_admin_gives_no_scope_that_it_lacks(gateway: Served) -> None:
    refused(gateway.make(scopes=("admin",)).post("/v1/keys", json={"name": "k", "scopes": ["read"]}), 403, "forbidden")


def test_an_admin_cannot_take_over_an_operator(gateway: Served) -> None:
    admin = gateway.make(scopes=("admin",))
    operator = gateway.access.create("op", tenant="acme", scopes=("operator",)).split("_")[1]
    refused(admin.post(f"/v1/keys/{operator}/rotate"), 403, "forbidden")
    refused(admin.delete(f"/v1/keys/{operator}"), 403, "forbidden")
    foreign = gateway.access.create("x", tenant="rival").split("_")[1]
    refused(admin.delete(f"/v1/keys/{foreign}"), 404, "key_unknown")
    assert gateway.make(scopes=("admin", "operator")).delete(f"/v1/keys/{foreign}").status_code == 204
    assert "key.revoked" in gateway.actions("rival")


def test_keys_of_before_scopes_were_more_still_work(gateway: Served) -> None:
    key = gateway.access.create("old", tenant="acme", scopes=("submit", "read", "admin"))
    raw: Any = gateway.lifecycle.client
    record = gateway.lifecycle.keys("apikey", id=key.split("_")[1])
    raw.hdel(record, "matters", "requests", "tokens", "stored_bytes", "expires")
    old = gateway.as_key(key)
    assert old.get("/metrics").status_code == 200
    assert old.post("/v1/jobs", json=GENERATE).status_code == 202
    (shown,) = [one for one in old.get("/v1/keys").json()["data"] if one["name"] == "old"]
    assert shown["matters"] is None


@pytest.mark.parametrize("path", ["/v1/keys?tenant=acme", "/v1/keys?tenant=*", "/v1/audit?tenant=acme"])
def test_other_tenants_are_for_operators(gateway: Served, path: str) -> None:
    key_id = gateway.access.create("theirs", tenant="acme").split("_")[1]
    rival = gateway.make(tenant="rival", scopes=("admin",))
    refused(rival.get(path), 403, "forbidden")
    refused(rival.get("/v1/audit", params={"tenant": SYSTEM}), 403, "forbidden")
    assert key_id not in rival.get("/v1/keys").text
    assert key_id in gateway.make(tenant="house", scopes=("admin", "operator")).get(path).text
