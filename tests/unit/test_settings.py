"""Settings: what is refused, that no secret is shown, and the addresses that follow from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

import services.settings as settings_module
from services.broker import broker_url
from services.settings import Settings, load_settings


def refused(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> str:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as exit_:
        load_settings()
    return str(exit_.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://:s3cret@h/0",
        "sentinel://:s3cret@h:26379/0",
        "redis://:s3cret/x@h:6379/0",
        "redis://:s3cret@h:s3cret/0",
        "unix://:s3cret@",
    ],
)
def test_a_bad_redis_url_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    message = refused(monkeypatch, "REDIS_URL", url)
    assert message.startswith("casemill: REDIS_URL: ")
    assert "s3cret" not in message
    with pytest.raises(ValueError, match="REDIS_URL") as raised:
        Settings.model_validate({"REDIS_URL": url})
    assert "s3cret" not in str(raised.value)


class Strict(Settings):
    """Settings whose other secrets can be wrong as well."""

    key: str | None = Field(default=None, min_length=100)
    flower_password: str | None = Field(default=None, min_length=100)


@pytest.mark.parametrize("name", ["CASEMILL_KEY", "CASEMILL_FLOWER_PASSWORD"])
def test_other_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(settings_module, "Settings", Strict)
    message = refused(monkeypatch, name, "s3cret")
    assert message.startswith(f"casemill: {name}: ")
    assert "s3cret" not in message


def test_other_values_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(monkeypatch, "CASEMILL_PORT", "eighty").startswith("casemill: CASEMILL_PORT='eighty': ")


def test_sentinel_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Sentinel is not supported" in refused(monkeypatch, "REDIS_URL", "sentinel://h:26379/0")


@pytest.mark.parametrize(
    ("ours", "kombu"),
    [
        ("redis://:p@h:6379/1", "redis://:p@h:6379/1"),
        ("rediss://h/1?ssl_cert_reqs=required", "rediss://h/1?ssl_cert_reqs=required"),
        ("unix:///run/s.sock", "redis+socket:///run/s.sock"),
        ("unix://:p%40@/run/s.sock?db=3", "redis+socket://:p%40@/run/s.sock?virtual_host=3"),
    ],
)
def test_a_unix_socket_is_named_as_kombu_reads_it(ours: str, kombu: str) -> None:
    assert broker_url(Settings.model_validate({"REDIS_URL": ours}).redis_url) == kombu


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8700"),
        ("0.0.0.0", "http://127.0.0.1:8700"),
        ("::", "http://[::1]:8700"),
        ("::1", "http://[::1]:8700"),
        ("192.0.2.7", "http://192.0.2.7:8700"),
        ("casemill.example", "http://casemill.example:8700"),
    ],
)
def test_the_local_url_is_one_that_the_gateway_answers(host: str, url: str) -> None:
    settings = Settings.model_validate({"host": host, "port": 8700, "allowed_hosts": " firm.example , ,other.example"})
    assert settings.local_url == url
    own = url.removeprefix("http://").removesuffix(":8700")
    assert settings.trusted_hosts == ["firm.example", "other.example", own]


def test_without_redis_url_everything_else_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://firm:6379/0")
    monkeypatch.setenv("CASEMILL_DATA_DIR", str(tmp_path))
    settings = load_settings()
    own = settings.with_own_server()
    assert "redis_url" not in own.model_fields_set
    assert own.data_dir == tmp_path
    assert own == settings.model_copy(update={"redis_url": own.redis_url})
    assert own.redis_url != settings.redis_url
