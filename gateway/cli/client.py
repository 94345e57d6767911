"""The command line's client: :mod:`casemill` with the address and key that this machine knows, and with our errors."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, BinaryIO

from casemill import Casemill, Event, Problem, RetryPolicy, Unreachable
from gateway.client_file import ClientFile
from services.errors import InvalidRequest, Unauthorized, Unavailable, from_problem
from services.settings import Settings

# A person waits for the answer and is told at once what is wrong; what is followed may outlive a gateway's restart.
_CALLS = RetryPolicy(attempts=1)
_FOLLOWING = RetryPolicy(attempts=30, longest=2.0)


class Client:
    """Calls a gateway; raises its problems as our errors."""

    def __init__(self, settings: Settings) -> None:
        known = ClientFile(settings.data_dir).read()
        self.url = settings.url or (known.url if known else settings.local_url)
        key = settings.key or (known.key if known else None)
        if key is None:
            raise Unauthorized("no key is known here; start the stack with `casemill up`, or set CASEMILL_KEY")
        self._key = key
        try:
            self._casemill = Casemill(self.url, key, retry=_CALLS)
        except ValueError as error:
            raise InvalidRequest(f"CASEMILL_URL: {error}", code="url_invalid") from None

    def get(self, path: str, **parameters: Any) -> Any:
        """JSON of a GET."""
        with _our_errors():
            return self._casemill.request("GET", path, params=parameters)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """JSON of a POST."""
        with _our_errors():
            return self._casemill.request("POST", path, body=body)

    def post_text(self, path: str, text: bytes) -> Any:
        """JSON of a POST whose body is a text as it is."""
        with _our_errors():
            return self._casemill.request("POST", path, content=text, content_type="application/yaml")

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """JSON of a PATCH."""
        with _our_errors():
            return self._casemill.request("PATCH", path, body=body)

    def delete(self, path: str) -> Any:
        """JSON of a DELETE."""
        with _our_errors():
            return self._casemill.request("DELETE", path)

    def upload(self, data: bytes, name: str, matter: str | None = None, *, read: bool = True) -> str:
        """Upload a document; answers its id. ``read`` waits for its text, and has one without text refused."""
        with _our_errors():
            return self._casemill.documents.upload(data, name=name, matter=matter, read=read).id

    def download(self, path: str, target: BinaryIO, **parameters: Any) -> None:
        """Write the body of a GET as it arrives."""
        with _our_errors():
            for piece in self._casemill.download(path, params=parameters):
                target.write(piece)

    def follow_job(self, job: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of a job until its end, by name and data; goes on where it was after a lost connection."""
        return _told(self._patient.jobs.events(job))

    def follow_run(self, run: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The same of a run."""
        return _told(self._patient.runs.events(run))

    @cached_property
    def _patient(self) -> Casemill:
        return Casemill(self.url, self._key, retry=_FOLLOWING)


def _told(events: Iterator[Event]) -> Iterator[tuple[str, dict[str, Any]]]:
    with _our_errors():
        for event in events:
            yield event.event, event.data


@contextmanager
def _our_errors() -> Generator[None]:
    try:
        yield
    except Unreachable as away:
        raise Unavailable(f"{away.detail}; start it with `casemill up`", code=away.code) from away
    except Problem as problem:
        raise from_problem(vars(problem)) from problem
