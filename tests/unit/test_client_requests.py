"""What the client sends is what was asked for, and what comes back is taken for an answer only where it is one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scripted_gateway import Gateway, job


@pytest.mark.parametrize("params", [None, {"state": "queued"}])
def test_a_query_in_the_path_is_sent(gateway: Gateway, params: Any) -> None:
    gateway.do(lambda client: client.request("GET", "/v1/runs?limit=2&q=%C3%BC+x", params=params), {"data": []})
    assert dict(gateway.asked[0].url.params) == {"limit": "2", "q": "ü x"} | (params or {})
    gateway.do(lambda client: client.download("/v1/runs/run_1/results?format=csv", params=params), [])
    assert dict(gateway.asked[0].url.params) == {"format": "csv"} | (params or {})
    gateway.do(lambda client: client.jobs.get("a?b=c"), job())
    assert gateway.asked[0].url.raw_path == b"/v1/jobs/a%3Fb%3Dc"
