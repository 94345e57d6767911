"""Lists over HTTP: every row once, page by page, while new ones arrive; and copies that need not be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.stack.valkey import EmbeddedValkey
from services.blobs import Blobs
from services.documents import Documents
from services.runs import Runs
from tests.serving import Served, job_body, serving, settings_on

pytestmark = pytest.mark.both_servers


@pytest.fixture(scope="module")
def served(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_on(server, tmp_path_factory.mktemp("lists"))) as gateway:
        yield gateway
        gateway.clear()


def documents(served: Served) -> Documents:
    return Documents(served.lifecycle.client, served.lifecycle.keys, Blobs(served.settings.data_dir))


def pages(served: Served, path: str, limit: int = 2, **wanted: Any) -> Iterator[list[dict[str, Any]]]:
    cursor: dict[str, str] = {}
    while True:
        answer = served.http.get(path, params={"limit": limit} | wanted | cursor)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        yield page["data"]
        if page["next_cursor"] is None:
            return
        assert page["data"]
        cursor = {"cursor": page["next_cursor"]}


def add_jobs(served: Served, count: int = 1) -> list[str]:
    return [served.submit(matter="paged")["id"] for _ in range(count)]


def add_dead(served: Served, count: int = 1) -> list[str]:
    made: list[str] = []
    for _ in range(count):
        made.append(served.submit(priority="critical")["id"])
        (held,) = served.claim()
        served.end(held, "failed", problem={"detail": "x", "code": "x", "status": 500})
    return made


def add_documents(served: Served, count: int = 1) -> list[str]:
    store = documents(served)
    known = len(store.list("acme", matter="paged", limit=200).rows)
    return [store.add("acme", f"text {known + n}".encode(), name="a", matter="paged").id for n in range(count)]


def add_runs(served: Served, count: int = 1) -> list[str]:
    body = {"open": True, "type": "extract"}
    made = [served.http.post("/v1/runs", json=body).json()["id"] for _ in range(count)]
    for run in made:
        served.http.delete(f"/v1/runs/{run}")
    return made


LISTS = {
    "/v1/jobs?matter=paged": add_jobs,
    "/v1/dead-letters": add_dead,
    "/v1/documents": add_documents,
    "/v1/documents?matter=paged": add_documents,
    "/v1/runs": add_runs,
}


@pytest.mark.parametrize("path", LISTS)
def test_pages_are_stable_while_new_rows_arrive(served: Served, path: str) -> None:
    add = LISTS[path]
    path, _, query = path.partition("?")
    wanted = dict([query.split("=")]) if query else {}
    add(served, 5)
    before = [row["id"] for page in pages(served, path, 200, **wanted) for row in page]
    found: list[str] = []
    for page in pages(served, path, 2, **wanted):
        found += [row["id"] for row in page]
        add(served)
    assert found == before
    assert len(set(found)) == len(found) >= 5


def test_a_filter_by_state_goes_on_where_it_was(served: Served) -> None:
    made = add_jobs(served, 6)
    for job in made[::2]:
        served.lifecycle.cancel("acme", job)
    found = [row["id"] for page in pages(served, "/v1/jobs", 2, state="cancelled", matter="paged") for row in page]
    assert [job for job in found if job in made] == made[::2][::-1]


def test_rows_of_one_moment_are_all_listed(served: Served) -> None:
    client: Any = served.lifecycle.client
    made = sorted(add_jobs(served, 7))
    client.zadd(served.lifecycle.keys("jobs", tenant="acme"), dict.fromkeys(made, 9e9))
    listed = pages(served, "/v1/jobs", 2)
    assert [row["id"] for _ in range(4) for row in next(listed)][:7] == made[::-1]


def test_schedules_playbooks_and_documents_of_a_run_have_pages(served: Served) -> None:
    store = documents(served)
    for number in range(5):
        store.add("acme", f"of the matter {number}".encode(), name="a", matter="M-9")
        body = {"name": "weekly", "cron": "0 22 * * 5", "run": {"matter": "M-9", "type": "extract"}}
        assert served.http.post("/v1/schedules", json=body).status_code == 201
    listed = list(pages(served, "/v1/schedules", 2))
    assert [len(page) for page in listed] == [2, 2, 1]
    rows = [row["id"] for page in listed for row in page]
    assert rows == sorted(rows)
    names = [row["name"] for page in pages(served, "/v1/playbooks", 1) for row in page]
    assert names == [row["name"] for row in served.http.get("/v1/playbooks").json()["data"]]
    run = served.http.post("/v1/runs", json={"matter": "M-9", "type": "extract"}).json()["id"]
    numbers = [row["number"] for page in pages(served, f"/v1/runs/{run}/documents", 2) for row in page]
    assert numbers == [1, 2, 3, 4, 5]
    jobs = [row["id"] for page in pages(served, "/v1/jobs", 2, run=run) for row in page]
    assert len(set(jobs)) == 5
    assert served.http.get("/v1/jobs", params={"run": run, "state": "succeeded"}).json()["data"] == []
    assert not set(jobs) & {row["id"] for row in served.http.get("/v1/jobs", params={"limit": 200}).json()["data"]}
    served.http.delete(f"/v1/runs/{run}")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/dead-letters", "/v1/documents", "/v1/runs", "/v1/schedules"])
@pytest.mark.parametrize("cursor", ["x", "", "ffff=", "é", "am9icyAxIA"])
def test_a_cursor_that_is_none_is_refused(served: Served, path: str, cursor: str) -> None:
    answer = served.http.get(path, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid")


def again(served: Served, path: str, tag: str, **wanted: str) -> httpx.Response:
    return served.http.get(path, params=wanted, headers={"If-None-Match": f'"other", W/{tag}'})


def test_a_copy_is_good_until_something_changes(served: Served) -> None:
    job = served.submit(**job_body(priority="critical"))["id"]
    path = f"/v1/jobs/{job}"
    first = served.http.get(path)
    tag = first.headers["etag"]
    same = again(served, path, tag)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert served.http.get(path, headers={"If-None-Match": "*"}).status_code == 304
    assert served.http.get(path, headers={"If-None-Match": "nonsense"}).status_code == 200
    (held,) = served.claim()
    changed = again(served, path, tag)
    assert (changed.status_code, changed.json()["state"]) == (200, "running")
    assert changed.headers["etag"] != tag
    served.end(held, result=Blobs(served.settings.data_dir).put("acme", "res", b"{}"))


def test_an_erased_result_is_no_copy(served: Served) -> None:
    store = documents(served)
    document = store.add("acme", b"a lease", name="a.txt", matter="M-7")
    assert again(
        served, f"/v1/documents/{document.id}", served.http.get(f"/v1/documents/{document.id}").headers["etag"]
    )
    run = served.http.post("/v1/runs", json={"matter": "M-7", "type": "extract"}).json()["id"]
    path, results = f"/v1/runs/{run}", f"/v1/runs/{run}/results"
    before, empty = served.http.get(path).headers["etag"], served.http.get(results).headers["etag"]
    assert again(served, path, before).status_code == again(served, results, empty).status_code == 304
    from services.jobs import Completion, Lane
    from tests.serving import CPU

    work = served.lifecycle.work
    (held,) = work([], lane=Lane.EXTRACT, devices=CPU, worker="w1", n=1)[1]
    result = Blobs(served.settings.data_dir).put("acme", "res", b'{"pages": 1}', scope=document.id)
    work([Completion(held, "succeeded", result=result)], lane=Lane.EXTRACT, devices=CPU, worker="w1", n=0)
    assert Runs(served.lifecycle).get("acme", run).state == "succeeded"
    assert again(served, path, before).status_code == 200
    full = again(served, results, empty)
    assert (full.status_code, full.json()["result"]) == (200, {"pages": 1})
    assert again(served, results, full.headers["etag"]).status_code == 304
    assert again(served, results, full.headers["etag"], format="csv").status_code == 200
    Blobs(served.settings.data_dir).delete("acme", result)
    lost = again(served, results, full.headers["etag"])
    assert (lost.status_code, lost.json()["code"]) == (200, "blob_missing")
