"""All settings, read from the environment in this one place; a bad value stops the start and names the variable."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# Their values never appear in a message.
SECRETS = ("redis_url", "REDIS_URL", "key", "flower_password")

PULL = "pull"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def default_data_dir() -> Path:
    """Where this machine's user keeps application data, by the system's own convention."""
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "Casemill"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "Casemill"
    return Path(os.environ.get("XDG_DATA_HOME", home / ".local" / "share")) / "casemill"


class Settings(BaseSettings):
    """Settings of every role; each is the environment variable ``CASEMILL_<NAME>``, Redis also ``REDIS_URL``."""

    model_config = SettingsConfigDict(
        env_prefix="CASEMILL_", env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="blobs, models, the embedded server's files",
    )
    models_dir: Path | None = Field(default=None, description="model files and their catalog; unset: in data_dir")
    master_key_file: str | None = Field(
        default=None,
        description="key that seals documents and texts; unset: the one `casemill up` made beside data_dir, if any; "
        "`none`: nothing is sealed",
    )
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias="REDIS_URL",
        description="queue, records and events; redis://, rediss:// or unix://",
    )
    prefix: str = Field(
        default="casemill:",
        min_length=1,
        max_length=64,
        description="starts every Redis key",
    )
    host: str = Field(default="127.0.0.1", description="address that the gateway binds")
    port: int = Field(default=8700, ge=0, le=65535, description="port of the gateway")
    allowed_hosts: str = Field(
        default="localhost,127.0.0.1,[::1]",
        description="Host headers that the gateway answers to, comma-separated",
    )
    trusted_proxies: str = Field(
        default="",
        description="proxies whose X-Forwarded-For and X-Forwarded-Proto the gateway believes, as addresses or CIDRs, "
        "comma-separated; empty: nobody's",
    )
    flower_port: int = Field(
        default=8701,
        ge=0,
        le=65535,
        description="loopback port of Flower, reached by the gateway",
    )
    flower_host: str = Field(default="127.0.0.1", description="address that Flower binds")
    flower_password: str | None = Field(default=None, description="password between gateway and Flower")
    flower_url: str | None = Field(default=None, description="where the gateway finds Flower; unset: loopback port")
    url: str | None = Field(
        default=None,
        description="where the command line finds the gateway; unset: this machine",
    )
    key: str | None = Field(
        default=None,
        description="API key of the command line; unset: the one `casemill up` made",
    )

    webhook_networks: str = Field(
        default="127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
        description="networks that webhooks may be sent to, as CIDRs, comma-separated",
    )
    public_url: str | None = Field(
        default=None,
        description="where clients reach the gateway, for links in webhooks; unset: links are paths",
    )

    lease_seconds: float = Field(
        default=30.0,
        gt=0.2,
        le=3600,
        description="time a worker may go silent over a job",
    )
    placement: str = Field(
        default=PULL,
        pattern=r"^(pull|round_robin|least_connections|weighted)$",
        description="whose slot a job wakes: any free one, or one by turn, load or weight; the same for all roles",
    )
    max_backlog: int = Field(default=100_000, ge=1, description="jobs that may wait in one lane")
    max_tenant_backlog: int = Field(
        default=50_000,
        ge=1,
        description="jobs of one tenant that may wait in one lane, for their turn or for their time",
    )
    max_tenant_backlog_bytes: int = Field(default=2**30, ge=1, description="input of one tenant waiting in one lane")
    tenant_requests_per_minute: int | None = Field(default=None, ge=1, description="of all keys of a tenant together")
    tenant_tokens_per_minute: int | None = Field(
        default=None, ge=1, description="of models, prompts and answers, of all keys of a tenant together"
    )
    tenant_stored_bytes: int | None = Field(default=None, ge=1, description="documents of one tenant")
    max_tenant_runs: int = Field(default=200, ge=1, description="runs and batches of one tenant that have not ended")
    run_window: int = Field(default=64, ge=1, le=10_000, description="documents of one run that live side by side")
    max_wait_seconds: int = Field(default=60, ge=0, le=3600, description="longest `Prefer: wait` for a job's end")
    max_connections: int = Field(default=2000, ge=1, description="connections that one gateway process serves at once")
    max_tenant_waiting: int | None = Field(
        default=None,
        ge=1,
        description="streams and waiting requests of one tenant open at one gateway process; unset: a third of its "
        "connections",
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="executions of a job before it fails for good; three at least where its worker dies",
    )
    result_ttl_seconds: int = Field(default=7 * 86400, ge=60, description="how long finished jobs are kept")

    audit_days: int | None = Field(
        default=None, ge=1, description="then entries of audit logs are taken out, into files in data_dir; unset: never"
    )

    max_upload_bytes: int = Field(default=64 * 2**20, ge=1024, description="largest document")
    max_file_bytes: int = Field(default=200 * 2**20, ge=1024, description="largest file of requests for a batch")
    max_text_chars: int = Field(default=20_000_000, ge=1000, description="longest text taken from a document")
    max_pages: int = Field(default=3000, ge=1, description="most pages of a document")
    max_unpacked_bytes: int = Field(default=512 * 2**20, ge=1024, description="largest unpacked size of an archive")
    reader_seconds: float = Field(
        default=60.0,
        gt=0,
        description="time limit of the process that reads a document",
    )
    reader_memory_bytes: int = Field(default=2 * 2**30, ge=2**27, description="memory limit of that process")
    ocr_languages: str = Field(
        default="eng",
        pattern=r"^[A-Za-z0-9_]{2,20}(\+[A-Za-z0-9_]{2,20}){0,7}$",
        description="languages in which tesseract, where installed, reads scanned pages: `eng+deu`",
    )
    ocr_page_seconds: float = Field(default=60.0, gt=0, description="time limit of tesseract for one page")

    default_model: str | None = Field(default=None, description="generation model of reviews; unset: first installed")
    embedding_model: str | None = Field(default=None, description="embedding model; unset: first installed")
    engine: str = Field(
        default="llama",
        pattern=r"^(llama|fake)$",
        description="`fake` runs no weights, for tests only",
    )
    sequences: int = Field(
        default=16,
        ge=1,
        le=256,
        description="generations that one engine runs side by side",
    )
    context_tokens: int = Field(
        default=4096,
        ge=64,
        description="context of one generation, capped by its model",
    )
    cores_per_worker: int | None = Field(
        default=None,
        ge=1,
        description="cores that a CPU worker owns, which gives how many fit; unset: all of them, so one",
    )
    scale_down_seconds: float | None = Field(
        default=None,
        gt=0,
        description="how long fewer workers of a kind must do before some end; unset: 3 to 10 minutes, by kind",
    )
    gpu_layers: int = Field(default=-1, ge=-1, description="layers on the GPU; -1: all that fit")
    memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="memory of one worker's models, on its GPU or else in RAM; unset: what is free when one loads",
    )
    kv_type: Literal["auto", "f16", "q8_0"] = Field(
        default="auto",
        description="what the cache of keys and values holds; auto: f16, or q8_0 where that does not fit",
    )
    adapter: str | None = Field(default=None, description="part of the name of the wgpu adapter to use")
    resident_bytes: int = Field(
        default=2**29,
        ge=0,
        description="texts that a worker keeps in memory, and as much again on its GPU, for the next count over the "
        "same documents; 0: none",
    )

    @field_validator("redis_url")
    @classmethod
    def _known_server(cls, url: str) -> str:
        if url.startswith(("sentinel://", "redis+sentinel://")):
            raise ValueError("Sentinel is not supported; name the server itself, e.g. redis://HOST:6379/0")
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("not a URL that begins with redis://, rediss:// or unix://")
        try:
            path, _port = urlsplit(url).path, urlsplit(url).port
        except ValueError:  # whose message quotes a part of the password
            raise ValueError("not a URL; in a password write % / : @ ? # as %25 %2F %3A %40 %3F %23") from None
        if url.startswith("unix://") and not path:
            raise ValueError("unix:// needs the path of a socket, e.g. unix:///run/valkey/valkey.sock")
        return url

    @field_validator("webhook_networks", "trusted_proxies")
    @classmethod
    def _known_networks(cls, text: str) -> str:
        _networks(text)
        return text

    @property
    def webhook_allowed(self) -> tuple[Network, ...]:
        """The networks that webhooks may be sent to."""
        return _networks(self.webhook_networks)

    @property
    def models_folder(self) -> Path:
        """Where models and their catalog lie."""
        return self.models_dir or self.data_dir / "models"

    @property
    def master_key_path(self) -> Path | None:
        """Where the master key lies, outside of the data folder and its backups; ``None``: nothing is sealed."""
        if self.master_key_file == "none":
            return None
        beside = self.data_dir.with_name(f"{self.data_dir.name}.keys") / "master.key"
        return Path(self.master_key_file) if self.master_key_file else beside

    @property
    def tenant_waiting(self) -> int:
        """How many streams and waiting requests of one tenant a gateway process keeps open."""
        return self.max_tenant_waiting or max(1, self.max_connections // 3)

    @property
    def local_url(self) -> str:
        """Where programs on this machine reach the gateway: the loopback address when it binds all addresses."""
        return f"http://{local_host(self.host)}:{self.port}"

    @property
    def trusted_hosts(self) -> list[str]:
        """Host headers that the gateway answers to; the one of its own ``local_url`` is among them always."""
        named = [name.strip() for name in self.allowed_hosts.split(",")]
        return list(dict.fromkeys([*filter(None, named), local_host(self.host)]))

    def with_own_server(self) -> Settings:
        """The same settings as if ``REDIS_URL`` were not set."""
        kept = self.model_fields_set - {"redis_url"}
        return Settings.model_construct(_fields_set=kept, **{name: getattr(self, name) for name in kept})


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def local_host(bound: str) -> str:
    """The host of a URL that reaches an address bound here: loopback for all addresses, IPv6 in brackets."""
    try:
        address = ipaddress.ip_address(bound)
    except ValueError:
        return bound
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return bound if address.version == 4 else f"[{bound}]"


def load_settings() -> Settings:
    """Read the environment.

    Raises ``SystemExit`` with one line per bad variable, before anything has started.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines: list[str] = []
        for item in error.errors():
            name = str(item["loc"][0])
            variable = name if name.isupper() else f"CASEMILL_{name.upper()}"
            value = "" if name in SECRETS else f"={item['input']!r}"
            lines.append(f"casemill: {variable}{value}: {item['msg'].removeprefix('Value error, ')}")
        raise SystemExit("\n".join(lines)) from None
