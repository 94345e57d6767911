"""The command line's connection to a gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import httpx

from gateway.client_file import ClientFile
from services.errors import Unauthorized, Unavailable, from_problem
from services.settings import Settings

_FINAL = ("succeeded", "failed", "cancelled", "expired")


class Client:
    """Calls a gateway; raises its problems as our errors."""

    def __init__(self, settings: Settings) -> None:
        known = ClientFile(settings.data_dir).read()
        self.url = settings.url or (known.url if known else settings.local_url)
        key = settings.key or (known.key if known else None)
        if key is None:
            raise Unauthorized("no key is known here; start the stack with `casemill up`, or set CASEMILL_KEY")
        # The firm's proxy must never see a document that goes to this machine.
        self._http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
        )

    def get(self, path: str, **parameters: Any) -> Any:
        """JSON of a GET."""
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        """JSON of a POST."""
        return self._call("POST", path, json=body, headers=headers)

    def post_text(self, path: str, text: bytes) -> Any:
        """JSON of a POST whose body is a text as it is."""
        return self._call("POST", path, content=text, headers={"Content-Type": "application/yaml"})

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """JSON of a PATCH."""
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """JSON of a DELETE."""
        return self._call("DELETE", path)

    def upload(self, data: bytes, name: str, matter: str | None = None, *, read: bool = True) -> dict[str, Any]:
        """Upload a document; answers its view. ``read`` waits for its text, and has one without text refused."""
        parameters = {"name": name, "read": str(read).lower()} | ({"matter": matter} if matter else {})
        return self._call("POST", "/v1/documents", params=parameters, content=data)

    def download(self, path: str, target: BinaryIO, **parameters: Any) -> None:
        """Write the body of a GET as it arrives."""
        try:
            with self._http.stream("GET", path, params=parameters) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    self._check(answer)
                for piece in answer.iter_bytes():
                    target.write(piece)
        except httpx.TransportError as error:
            raise Unavailable(
                f"the gateway at {self.url} broke off ({type(error).__name__})", code="gateway_away"
            ) from error

    def follow(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of the job or run at a path until its end; goes on where it was after a lost connection."""
        last: dict[str, str] = {}
        lost = 0
        while True:
            try:
                with self._http.stream("GET", f"{path}/events", headers=last, timeout=60) as answer:
                    if answer.status_code >= 400:
                        answer.read()
                        self._check(answer)
                    for event_id, event, data in _events(answer.iter_lines()):
                        lost = 0
                        last = {"Last-Event-ID": event_id} if event_id else last
                        yield event, data
                        if event in _FINAL:
                            return
                # A stream ends early when the gateway stops or loses Redis, and at once when its job was over.
                if self.get(path)["state"] in _FINAL:
                    return
                raise Unavailable("the stream of events was interrupted")
            except (httpx.TransportError, Unavailable) as error:
                lost += 1
                if lost > 30:
                    raise Unavailable(f"the gateway at {self.url} stays away ({type(error).__name__})") from error
                import time

                time.sleep(1)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unavailable(
                f"no gateway answers at {self.url} ({type(error).__name__}); start it with `casemill up`",
                code="gateway_away",
            ) from error
        self._check(answer)
        return answer.json() if answer.content else None

    @staticmethod
    def _check(answer: httpx.Response) -> None:
        if answer.status_code >= 400:
            try:
                problem = answer.json()
                error = from_problem(problem)
            except (ValueError, KeyError):
                raise Unavailable(f"the gateway answered {answer.status_code}: {answer.text[:200]}") from None
            raise error


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    event_id, event = "", "message"
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "id":
            event_id = value
        elif name == "event":
            event = value
        elif name == "data":
            yield event_id, event, json.loads(value)
