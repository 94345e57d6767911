"""A browser's session over HTTP: what pages of other origins may do by its cookie, which is to look."""

from __future__ import annotations

import httpx
import pytest

from gateway.state import SESSION_COOKIE
from tests.integration.test_keys import GENERATE, Served, gateway, installation, refused
from tests.integration.test_lifecycle import tidy

__all__ = ["gateway", "installation", "tidy"]  # fixtures

ELSEWHERE = "http://127.0.0.1:3000"


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "{url}"}, True),
        ({"Sec-Fetch-Site": "same-site", "Origin": ELSEWHERE}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "{url}"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": ELSEWHERE}, False),
        ({"Origin": "null"}, False),
        ({}, False),
    ],
)
def test_a_session_changes_nothing_for_another_origin(gateway: Served, said: dict[str, str], allowed: bool) -> None:
    key = gateway.access.create("browser", tenant="acme")
    session = gateway.access.open_session(gateway.access.start_login(key.split("_")[1]))
    headers = {name: value.format(url=gateway.url) for name, value in said.items()}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=30, trust_env=False) as browser:
        browser.cookies.set(SESSION_COOKIE, session)
        job, document = browser.post("/v1/jobs", json=GENERATE), browser.post("/v1/documents?read=false", content=b"a")
        for answer in (job, document):
            if allowed:
                assert answer.is_success
            else:
                refused(answer, 403, "cross_origin")
        assert browser.get("/v1/jobs").status_code == 200
        by_key = browser.post("/v1/jobs", json=GENERATE, headers={"Authorization": f"Bearer {key}"})
        assert by_key.status_code == 202, "a page of another origin has no key to send"
    gateway.lifecycle.client.delete(gateway.lifecycle.keys("session", token=session))
