"""What an operator finds in Flower by a job's id after the job has ended, and who may look."""

from __future__ import annotations

import ast
from typing import Any

import httpx
import pytest

from gateway.stack.valkey import reachable_settings
from services.access import Access
from services.keys import Keys
from services.redis_client import connect
from tests.conftest import wait_until
from tests.integration.conftest import Running


def found(stack: Running, search: str) -> list[dict[str, Any]]:
    """Results of the tickets that Flower's task API finds, newest last."""
    answer = stack.http.get("/flower/api/tasks", params={"search": search})
    assert answer.status_code == 200, answer.text
    tasks = sorted(answer.json().values(), key=lambda task: task["received"] or 0)
    return [ast.literal_eval(task["result"]) for task in tasks if task["result"]]


def ticket_of(stack: Running, job: str) -> dict[str, Any]:
    return wait_until(lambda: found(stack, f"result:{job}"), 30, f"the ticket of {job} in Flower")[-1]


def test_an_ended_job_is_found_by_its_id(fake_stack: Running) -> None:
    job = fake_stack.submit(type="generate", input={"prompt": "where did it go", "max_tokens": 4})["id"]
    fake_stack.finished(job)
    shown = ticket_of(fake_stack, job)
    assert job in shown["ids"]
    assert shown["jobs"] == sum(shown["ended"].values()) >= 1
    assert shown["ended"]["succeeded"] >= 1
    assert found(fake_stack, job), "the search field finds it without a prefix as well"
    assert found(fake_stack, "result:job_ffffffffffff") == []


def test_every_step_of_a_review_is_found_by_the_id_of_the_review(fake_stack: Running) -> None:
    document = fake_stack.upload(b"This Agreement is governed by the laws of Ohio.").json()["id"]
    review = fake_stack.submit(type="review", document=document)["id"]
    fake_stack.finished(review)
    ticket_of(fake_stack, review)
    shown = found(fake_stack, f"result:{review}")
    assert "Ohio" not in str(shown)
    assert all("." not in job for ticket in shown for job in ticket["ids"]), "ids are those that clients know"


def test_a_dead_letter_is_explained_by_its_code(fake_stack: Running) -> None:
    asked = {"prompt": "SECRET " * 9000, "max_tokens": 4}
    job = fake_stack.submit(type="generate", input=asked)["id"]
    end = fake_stack.finished(job)
    assert end["state"] == "failed", end
    shown = ticket_of(fake_stack, job)
    assert shown["ended"]["failed"] >= 1
    assert shown["problem"] == end["problem"]["code"] == "context_exceeded"
    assert "SECRET" not in str(shown)


@pytest.mark.parametrize("path", ["api/tasks", "tasks", "api/workers"])
def test_only_admins_look(fake_stack: Running, path: str) -> None:
    settings = reachable_settings(fake_stack.settings)
    key = Access(connect(settings), Keys(settings.prefix)).create("reader", scopes=("read",))
    url = f"{fake_stack.url}/flower/{path}"
    assert httpx.get(url, headers={"Authorization": f"Bearer {key}"}, trust_env=False).status_code == 403
    assert httpx.get(url, trust_env=False).status_code == 401
