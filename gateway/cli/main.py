"""``casemill``: reads the settings, runs one verb, prints failures with what to do about them."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any, Final

import click

from gateway.cli.output import show_json
from services.errors import CasemillError
from services.settings import load_settings

# The verbs by their module, which is loaded for them alone: starting a stack takes much that asking one does not.
MODULES: Final = {
    "roles": ("up", "demo", "gateway", "worker", "flower"),
    "work": ("review", "submit", "watch", "jobs", "show", "cancel", "dead", "retry"),
    "document_sets": ("search", "compare"),
    "runs": ("run", "runs"),
    "schedules": ("schedule",),
    "duplicates": ("duplicates",),
    "counts": ("count",),
    "playbooks": ("playbooks",),
    "webhooks": ("webhooks",),
    "keys": ("keys", "audit"),
    "administration": ("models", "scale", "doctor"),
    "safekeeping": ("erase", "backup", "restore"),
}
_MODULE_OF: Final = {verb: module for module, verbs in MODULES.items() for verb in verbs}


class _Casemill(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return sorted(_MODULE_OF)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, with the others of its module when one of them is first asked for."""
        if cmd_name in _MODULE_OF and cmd_name not in self.commands:
            for verb in importlib.import_module(f"gateway.cli.{_MODULE_OF[cmd_name]}").COMMANDS:
                self.add_command(_json_too(verb))
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; a failure of ours is one line, or a problem under ``--json``, and status 1."""
        try:
            return super().invoke(ctx)
        except CasemillError as error:
            if ctx.find_root().params.get("json_output"):
                show_json({"problem": error.problem()})
            else:
                click.secho(f"casemill: {error.detail} [{error.code}]", fg="red", err=True)
            ctx.exit(1)


@click.group(cls=_Casemill, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "json_output", is_flag=True, help="Print JSON, one document a line.")
@click.version_option(package_name="casemill")
@click.pass_context
def casemill(ctx: click.Context, json_output: bool) -> None:  # noqa: ARG001 (read by gateway.cli.output)
    """Run a law firm's documents through local AI, on this machine or on yours."""
    ctx.obj = load_settings()


def _json_too(command: click.Command) -> click.Command:
    """Let ``--json`` stand behind the verb as well as before it."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.find_root().params["json_output"] = True

    if isinstance(command, click.Group):
        for below in command.commands.values():
            _json_too(below)
    elif command.name != "worker":  # hands its arguments on as they are
        option = click.Option(["--json"], is_flag=True, expose_value=False, callback=remember, help="Print JSON.")
        command.params.append(option)
    return command


def main() -> None:
    """Entry point of the ``casemill`` command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Documents have any character; a console of another encoding shows a replacement instead of a failure.
        stdout: io.TextIOWrapper = sys.stdout  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        stdout.reconfigure(errors="replace")
    casemill()


if __name__ == "__main__":
    main()
