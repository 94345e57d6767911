"""``casemill keys`` and ``casemill audit``: by whoever is at the machine of the stack, without a key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli.model_plan import Size
from gateway.cli.output import note, show_json, show_table, wants_json
from gateway.client_file import ClientFile
from gateway.stack.valkey import reachable_settings
from services.access import GRACE_SECONDS, MAX_GRACE_SECONDS, Access
from services.audit import Audit
from services.audit_archive import AuditArchive
from services.errors import InvalidRequest, Unavailable
from services.jobs import Priority
from services.keys import Keys
from services.principal import SCOPES, Limits
from services.redis_client import Redis, connect, redis_errors, server_time
from services.revocations import Revocations
from services.seals import Seals
from services.settings import Settings


@click.group()
def keys() -> None:
    """Make, rotate and revoke API keys; works on the machine of the stack."""


@keys.command("list")
@click.option("--tenant", help="Only the keys of one.")
@click.pass_obj
def list_keys(settings: Settings, tenant: str | None) -> None:
    """Show the keys without their secrets."""
    client = _client(settings)
    found = Access(client, Keys(settings.prefix)).list(tenant)
    if wants_json():
        for key in found:
            show_json(key)
        return
    now = server_time(client)
    columns = ("id", "name", "tenant", "scopes", "priority up to", "matters", "last used", "ends")
    show_table(columns, [_row(key, now) for key in found])


@keys.command("create")
@click.argument("name")
@click.option("--tenant", default="default", show_default=True)
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), default=("submit", "read"))
@click.option("--matter", "matters", multiple=True, help="A matter that the key is for; without any: all.")
@click.option("--ceiling", type=click.Choice([p.value for p in Priority]), default="high", show_default=True)
@click.option("--requests", type=click.IntRange(min=1), help="Requests a minute.")
@click.option("--tokens", type=click.IntRange(min=1), help="Tokens a minute, of prompts and answers.")
@click.option("--storage", type=Size(), help="Documents that it may have stored, as 20GiB.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="Days until it expires; without: never.")
@click.pass_obj
def create_key(settings: Settings, **asked: Any) -> None:
    """Make a key and print it, this one time."""
    client = _client(settings)
    expires = server_time(client) + asked["days"] * 86400 if asked["days"] else None
    secret = Access(client, Keys(settings.prefix)).create(
        asked["name"],
        tenant=asked["tenant"],
        scopes=asked["scopes"],
        ceiling=Priority(asked["ceiling"]),
        matters=asked["matters"] or None,
        limits=Limits(asked["requests"], asked["tokens"], asked["storage"], expires),
    )
    _show_secret(secret)


@keys.command("rotate")
@click.argument("key_id")
@click.option(
    "--grace-hours",
    type=click.FloatRange(0, MAX_GRACE_SECONDS / 3600),
    default=GRACE_SECONDS / 3600,
    show_default=True,
    help="How long the old secret holds.",
)
@click.pass_obj
def rotate_key(settings: Settings, key_id: str, grace_hours: float) -> None:
    """Give a key a new secret and print it, this one time."""
    _show_secret(_access(settings).rotate(key_id, grace_seconds=round(grace_hours * 3600)))


@keys.command("revoke")
@click.argument("key_id")
@click.pass_obj
def revoke_key(settings: Settings, key_id: str) -> None:
    """Make a key useless at once."""
    _access(settings).revoke(key_id)
    click.echo(f"revoked {key_id}")


@keys.command("login")
@click.pass_obj
def login_link(settings: Settings) -> None:
    """Print a one-time log-in link for the browser."""
    known = ClientFile(settings.data_dir).read()
    if known is None:
        raise click.ClickException("no key is known here; start the stack with `casemill up`")
    access = Access(_client(settings), Keys(settings.prefix))
    click.echo(f"{known.url}/login?token={access.start_login(access.check(known.key).key_id)}")


def _access(settings: Settings) -> Access:
    """For what is taken from keys, which backups have to learn of."""
    return Access(_client(settings), Keys(settings.prefix), revocations=Revocations(settings.data_dir))


@click.group()
def audit() -> None:
    """Read and verify the audit logs; works on the machine of the stack."""


@audit.command("export")
@click.option("--tenant", help="The log of one; `_system` is what concerns no tenant. Without: all logs.")
@click.pass_obj
def export_audit(settings: Settings, tenant: str | None) -> None:
    """Print the entries as JSONL, each with its hash."""
    log = Audit(_client(settings), Keys(settings.prefix))
    for name in _logs(log, tenant):
        for entry in log.all(name):
            show_json(entry.fields)


@audit.command("verify")
@click.option("--tenant", help="The log of one; without: all logs.")
@click.option("--anchor", help="A hash that was written down: one entry of the log of --tenant must have it.")
@click.pass_obj
def verify_audit(settings: Settings, tenant: str | None, anchor: str | None) -> None:
    """Compute each chain again. Status 1 where one is broken; write down the last hash, for `--anchor` next time."""
    if anchor and not tenant:
        raise click.UsageError("--anchor goes with --tenant")
    log = Audit(_client(settings), Keys(settings.prefix))
    exported = AuditArchive(settings.data_dir).before
    verdicts = [(name, log.verify(name, anchor=anchor, exported=exported)) for name in _logs(log, tenant)]
    if wants_json():
        for name, verdict in verdicts:
            broken = verdict.broken and {"number": verdict.broken.number, "reason": verdict.broken.reason}
            view = {"tenant": name, "first": verdict.first, "entries": verdict.entries, "head": verdict.head}
            show_json(view | {"broken": broken})
    else:
        rows = [
            (
                name,
                found.first,
                found.entries,
                f"{found.broken.number}: {found.broken.reason}" if found.broken else "",
                found.head,
            )
            for name, found in verdicts
        ]
        show_table(("tenant", "from", "to", "broken at", "last hash"), rows)
    if any(verdict.broken for _, verdict in verdicts):
        sys.exit(1)


def _logs(log: Audit, tenant: str | None) -> Iterator[str]:
    yield from [tenant] if tenant else log.tenants()


def _client(settings: Settings) -> Redis:
    client = connect(reachable_settings(settings))
    try:
        with redis_errors():
            client.ping()
    except Unavailable as error:
        raise Unavailable(f"{error.detail}; start the stack with `casemill up`", code=error.code) from None
    return client


def _show_secret(secret: str) -> None:
    if wants_json():
        show_json({"key": secret})
    else:
        click.echo(secret)


@keys.command("rotate-master")
@click.pass_obj
def rotate_master(settings: Settings) -> None:
    """Make a new master key and wrap every data key under it; no document is sealed anew. Safe to repeat."""
    path = settings.master_key_path
    seals = Seals.of(settings)
    if path is None or seals.keys is None:
        raise InvalidRequest("nothing is sealed here; `casemill up` makes a master key", code="not_sealed")
    count = seals.keys.rotate_master()
    if wants_json():
        show_json({"rotated": count, "key_file": str(path)})
        return
    click.echo(f"{count} data keys are wrapped under a new master key in {path}")
    note("keep a copy of it elsewhere; the copy of the one before opens backups taken until now, until the next backup")


def _row(key: dict[str, str], now: float) -> tuple[str, ...]:
    expires = key.get("expires")
    ends = "" if not expires else "expired" if float(expires) <= now else _day(expires)
    used = _day(key["used"]) if "used" in key else "never"
    matters = key.get("matters") or "all"
    return (key["id"], key["name"], key["tenant"], key["scopes"], key["ceiling"], matters, used, ends)


def _day(seconds: str) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).date().isoformat()


COMMANDS: tuple[Any, ...] = (keys, audit)
