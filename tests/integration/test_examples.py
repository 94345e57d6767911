"""The API's description is whole, its examples fit it, and a running stack answers them as it says."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.openapi.example_ids import EXAMPLE_IDS
from gateway.openapi.requests import REQUESTS
from services.deliveries import TEST_EVENT
from services.settings import Settings
from services.webhooks import EVENTS
from tests.described import Description, Operation
from tests.integration.conftest import Running
from tests.prepared import Prepared
from tests.retold import ID, kind_of
from tests.routes import ROUTES

PROBLEM = "application/problem+json"
MODELS = {"generate": EXAMPLE_IDS["model_id"], "embed": EXAMPLE_IDS["embedding_model_id"]}


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Description:
    return Description(
        create_app(Settings.model_validate({"data_dir": tmp_path_factory.mktemp("described")})).openapi()
    )


def contents(operation: Operation) -> Iterator[tuple[tuple[str, ...], str, dict[str, Any]]]:
    """Where bodies are described: the place, the media type, what is said of it."""
    for media_type, content in operation.about.get("requestBody", {}).get("content", {}).items():
        yield ("requestBody", "content", media_type), media_type, content
    for status, answer in operation.about["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            yield ("responses", status, "content", media_type), media_type, content


def test_every_operation_is_described(description: Description) -> None:
    ids: list[str] = []
    for operation in description.operations():
        about = operation.about
        ids.append(operation.id)
        assert re.fullmatch(r"[A-Z][a-z ]+", about["summary"]), about["summary"]
        assert about["description"].partition("\n")[0].endswith("."), operation.id
        assert len(about["tags"]) == 1, operation.id
        assert about["tags"][0] in [tag["name"] for tag in description.document["tags"]]
        for parameter in operation.parameters:
            assert parameter["in"] == "path" or parameter.get("description"), (operation.id, parameter["name"])
        for status, answer in about["responses"].items():
            assert answer["description"] not in ("", "Successful Response"), (operation.id, status)
            assert "X-Request-ID" in answer["headers"], (operation.id, status)
    assert len(set(ids)) == len(ids)
    assert REQUESTS.keys() <= set(ids)


def test_every_operation_names_the_scope_that_it_needs(description: Description) -> None:
    for operation in description.operations():
        scope = ROUTES[f"{operation.method} {operation.path}"].scope
        said = operation.about.get("security", [])
        assert {one for way in said for scopes in way.values() for one in scopes} == ({scope} if scope else set())
        assert ("401" in operation.about["responses"]) == (scope is not None), operation.id
        assert all(set(way) <= description.document["components"]["securitySchemes"].keys() for way in said)


def test_every_body_has_a_schema_that_says_something_and_an_example(description: Description) -> None:
    for operation in description.operations():
        for place, media_type, content in contents(operation):
            schema = content.get("schema") or content["itemSchema"]
            assert schema.keys() & {"$ref", "type", "anyOf", "allOf"}, (operation.id, place)
            assert content.get("examples"), (operation.id, place)
            if media_type == PROBLEM:
                assert content["examples"].keys() == set(content["schema"]["allOf"][1]["properties"]["code"]["enum"])


def test_schemas_have_the_names_that_programs_made_of_them_will_have(description: Description) -> None:
    names = description.document["components"]["schemas"].keys()
    assert [name for name in names if not re.fullmatch(r"([A-Z]+[a-z]*)+", name)] == []


def test_an_answer_of_many_operations_is_written_once(description: Description) -> None:
    operations = [about for item in description.document["paths"].values() for about in item.values()]
    written = Counter(json.dumps(answer) for about in operations for answer in about["responses"].values())
    assert not [(count, answer) for answer, count in written.items() if count > 5 and "$ref" not in json.loads(answer)]


def test_no_schema_leaves_open_what_stands_there(description: Description) -> None:
    """Members of any kind are named here, each with the reason."""
    free = {
        "GenerateInput.json_schema": "a JSON schema is any JSON",
        "Tool.parameters": "a JSON schema is any JSON",
        "Function.parameters": "a JSON schema is any JSON",
        "JsonSchema.schema": "a JSON schema is any JSON",
        "ChangedRule.fields": "a playbook's own values",
        "ChangedCategory.fields": "a playbook's own values",
    }
    found = {
        f"{name}.{member}"
        for name, schema in description.document["components"]["schemas"].items()
        for member, about in schema.get("properties", {}).items()
        if loose(about)
    }
    assert found == free.keys()


def loose(schema: dict[str, Any]) -> bool:
    """Whether anything may stand there, or an object of any members."""
    said = ("type", "$ref", "anyOf", "allOf", "oneOf", "const", "enum")
    members = ("properties", "patternProperties", "additionalProperties")
    if not any(word in schema for word in said):
        return True
    if schema.get("type") == "object" and not any(schema.get(word, True) is not True for word in members):
        return True
    inner = [*schema.get("anyOf", []), *schema.get("patternProperties", {}).values()]
    inner += [schema[word] for word in ("items", "additionalProperties") if isinstance(schema.get(word), dict)]
    return any(loose(one) for one in inner) or (schema.get("type") == "array" and not schema.get("items"))


def test_every_example_fits_its_schema(description: Description) -> None:
    for operation in description.operations():
        for number, parameter in enumerate(operation.about["parameters"]):
            values = [one["value"] for one in parameter.get("examples", {}).values()]
            for value in [*values, *([parameter["example"]] if "example" in parameter else [])]:
                place = description.pointer(operation, "parameters", str(number), "schema")
                assert not description.errors(place, value), (operation.id, parameter["name"])
        for place, media_type, content in contents(operation):
            for name, example in content["examples"].items():
                value = description.component(example)["value"]
                where = description.pointer(operation, *place)
                wrong = description.errors(f"{where}/schema", value) if "schema" in content else []
                if isinstance(value, str):
                    wrong += description.body_errors(where, content, media_type, value)
                assert not wrong, (operation.id, place, name)


def told(description: Description) -> Iterator[tuple[str, str, str]]:
    """Every request that is an example with the answer that stands beside it, as texts."""
    for operation in description.operations():
        for example in operation.examples():
            if answered := operation.answered(example):
                status, media_type = answered
                content = operation.about["responses"][status]["content"][media_type]
                body = content["examples"][example]["value"]
                answer = body if isinstance(body, str) else json.dumps(body)
                sent = json.dumps(operation.request(example, EXAMPLE_IDS), default=bytes.decode)
                yield f"{operation.id} {example}", sent, answer


def ids_in(text: str) -> defaultdict[str, set[str]]:
    """The ids in a text by what they are of."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for one in ID.finditer(text):
        found[kind_of(one)].add(one[3])
    found["matter"] = set(re.findall(r"\bM-\d+", text))
    found["model"] = {name for name in MODELS.values() if name in text}
    found["key"] = set(re.findall(r'(?<=["/_])[0-9a-f]{12}(?=["/_])', text))
    return found


def test_an_answer_tells_of_what_its_request_names(description: Description) -> None:
    for where, sent, answer in told(description):
        answered = ids_in(answer)
        for kind, asked in ids_in(sent).items():
            assert not asked or not answered[kind] or asked & answered[kind], (where, kind)


def test_the_rows_of_an_answer_are_of_different_things(description: Description) -> None:
    for where, _, answer in told(description):
        rows: Any = json.loads(answer).get("data", []) if answer.startswith("{") and "\n" not in answer else []
        ids = [row["id"] for row in rows if "id" in row]
        assert len(set(ids)) == len(ids), where


def test_no_answer_tells_of_the_fake_engine_but_by_its_texts(description: Description) -> None:
    for where, _, answer in told(description):
        assert not re.search(r"\bfake\b", re.sub(r'"quote\W+fake\b', "", answer)), where
        for row, kind in re.findall(r'(\{[^{}]*"kind": "(generate|embed)"[^{}]*\})', answer):
            assert MODELS[kind] in row, (where, row)


def test_what_webhooks_are_sent_is_described(description: Description) -> None:
    messages = description.document["webhooks"]
    assert messages.keys() == {*EVENTS, TEST_EVENT}
    for message in messages.values():
        content = message["post"]["requestBody"]["content"]["application/json"]
        (example,) = content["examples"].values()
        assert not description.errors(content["schema"]["$ref"], example["value"])


def test_a_stack_answers_every_example_as_it_stands(fake_stack: Running) -> None:
    description = Description(fake_stack.http.get("/openapi.json").json())
    seen: set[str] = set()
    for answered in Prepared(fake_stack).answers(description):
        operation, example, answer = answered.operation, answered.example, answered.answer
        where = f"{operation.id} {example}: {answer.text[:500]}"
        documented = operation.answered(example)
        assert answer.is_success, where
        if documented:
            media_type = answer.headers["content-type"].partition(";")[0]
            assert (str(answer.status_code), media_type) == documented, where
        else:
            assert answer.content == b"", f"record the answer: {where}"
        assert description.misfits(operation, answer) == [], where
        seen.add(operation.id)
    assert seen == {operation.id for operation in description.operations()}


def test_what_is_not_documented_would_be_seen(description: Description) -> None:
    """The examples fit for no want of strictness."""
    operation = next(one for one in description.operations() if one.id == "get_job")
    place = description.pointer(operation, "responses", "200", "content", "application/json")
    (example,) = operation.about["responses"]["200"]["content"]["application/json"]["examples"].values()
    for change in ({"surprise": 1}, {"state": "done"}, {"created_at": "yesterday"}, {"result": {"text": 1}}):
        assert description.errors(f"{place}/schema", example["value"] | change), change


def test_a_header_that_is_not_described_would_be_seen(description: Description) -> None:
    operation = next(one for one in description.operations() if one.id == "submit_job")
    (example,) = operation.about["responses"]["200"]["content"]["application/json"]["examples"].values()

    def wrong(**headers: str) -> list[str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return description.misfits(operation, httpx.Response(200, headers=named, json=example["value"]))

    ours = {"X_Request_ID": "req_1", "Location": "/v1/jobs/job_1", "Preference_Applied": "wait=20"}
    assert wrong(**ours, RateLimit="r", x_ratelimit_limit_requests="600", Date="now") == []
    assert wrong(**ours, X_Surprise="1") == ["header x-surprise is not documented"]
    assert wrong(Location="/v1/jobs/job_1") == ["header X-Request-ID is missing"]


def test_what_no_event_carries_would_be_seen(description: Description) -> None:
    operation = next(one for one in description.operations() if one.id == "follow_job")
    content = operation.about["responses"]["200"]["content"]["text/event-stream"]
    place = description.pointer(operation, "responses", "200", "content", "text/event-stream")

    def wrong(event: str, **data: Any) -> list[str]:
        text = f"id: 1-0\nevent: {event}\ndata: {json.dumps({'t': '1.0'} | data)}\n\n: waiting\n\n"
        return description.body_errors(place, content, "text/event-stream", text)

    assert not wrong("queued", state="queued")
    assert not wrong("running", state="running", attempt=1, worker="cpu-0")
    assert wrong("queued", state="queued", surprise=1)
    assert wrong("queued", state="queued", worker="cpu-0")
    assert wrong("running", state="running", attempt=1)
    assert wrong("failed", state="failed")
    assert wrong("scheduled", state="scheduled")
    assert wrong("surprise", state="queued")


def test_the_recorded_answers_are_those_of_operations_that_are_there(description: Description) -> None:
    folder = Path(__file__).parents[2] / "gateway" / "openapi" / "answers"
    tags = {operation.about["tags"][0] for operation in description.operations()}
    assert {file.stem for file in folder.iterdir()} == tags
