"""Webhooks are verified as Standard Webhooks says: what its package and our workers sign is taken, and no more."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from email.message import Message

import pytest
from standardwebhooks import Webhook

from casemill.webhooks import VerificationError, verify
from services.signatures import new_secret, signed_headers

BODY = json.dumps({"type": "job.succeeded", "timestamp": "", "data": {"id": "job_1", "name": "Ü"}}).encode()


def signed(secret: str, body: bytes = BODY, at: float | None = None) -> dict[str, str]:
    """The headers that the package makes."""
    moment = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    signature = Webhook(secret).sign("msg_1", moment, body.decode())
    return {
        "Webhook-Id": "msg_1",
        "WEBHOOK-TIMESTAMP": str(int(moment.timestamp())),
        "webhook-signature": signature,
    }


def test_what_the_package_and_our_workers_sign_is_taken() -> None:
    secret = new_secret()
    assert verify(secret, signed(secret), BODY)["data"]["name"] == "Ü"
    assert verify(secret, signed(secret), BODY.decode()) == json.loads(BODY)
    ours = signed_headers("msg_1", int(time.time()), BODY, [secret])
    assert verify(secret, ours, BODY) == Webhook(secret).verify(BODY, ours)
    message = Message()  # as http.server has its headers
    for name, value in ours.items():
        message[name] = value
    assert verify(secret, message, BODY)["type"] == "job.succeeded"


def test_either_secret_is_good_while_one_is_replaced() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    both = signed_headers("msg_1", int(time.time()), BODY, [new, old])
    for secret in (old, new):
        assert verify(secret, both, BODY)
    with pytest.raises(VerificationError, match="not of this secret"):
        verify(other, both, BODY)


@pytest.mark.parametrize(("age", "good"), [(0, True), (290, True), (-290, True), (310, False), (-310, False)])
def test_old_and_early_messages_are_refused(age: float, good: bool) -> None:
    secret = new_secret()
    headers = signed(secret, at=time.time() - age)
    if good:
        assert verify(secret, headers, BODY)
    else:
        with pytest.raises(VerificationError, match="300 seconds"):
            verify(secret, headers, BODY)
    assert verify(secret, headers, BODY, tolerance=1000)


@pytest.mark.parametrize(
    "changed",
    [
        {"Webhook-Id": "msg_2"},
        {"WEBHOOK-TIMESTAMP": str(int(time.time()) - 100)},
        {"WEBHOOK-TIMESTAMP": "soon"},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,ü"},
        {"webhook-signature": "v1a,AAAA v2"},
    ],
)
def test_what_was_changed_on_the_way_is_refused(changed: dict[str, str]) -> None:
    secret = new_secret()
    with pytest.raises(VerificationError):
        verify(secret, signed(secret) | changed, BODY)
    with pytest.raises(VerificationError):
        verify(secret, signed(secret), BODY.replace(b"job_1", b"job_2"))
    for name in signed(secret):
        with pytest.raises(VerificationError, match="missing"):
            verify(secret, {key: value for key, value in signed(secret).items() if key != name}, BODY)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "whsec_====", "whsec_ü"])
def test_a_secret_that_is_none_is_no_forgery(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_") as raised:
        verify(secret, signed(new_secret()), BODY)
    assert not isinstance(raised.value, VerificationError)
