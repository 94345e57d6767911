"""``casemill models plan``: how a model would be loaded into the memory of this machine, or of one yet to be bought."""

from __future__ import annotations

import re
from typing import Any

import click

from gateway.cli.output import note, show_json, show_table, wants_json
from gateway.stack.supervisor import ask_workers

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]?)(i?)B?)?", re.IGNORECASE)


class Size(click.ParamType[int]):
    """A number of bytes as people write it: ``8GiB``, ``24G``, ``500MB`` (of 1000) or plain bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes; a usage error where it is no size."""
        found = _SIZE.fullmatch(str(value).strip())
        if not found:
            self.fail(f"{value!r} is no size; write 8GiB or 8192MiB", param, ctx)
        number, unit, binary = found.groups()
        decimal = str(value).strip().upper().endswith("B") and not binary
        power = list(_UNITS).index((unit or "").upper())
        return int(float(number) * (1000**power if decimal else 1024**power))


@click.command("plan")
@click.argument("model")
@click.option("--vram", type=Size(), help="Memory of the GPU, as 8GiB; without --vram and --ram: this machine's.")
@click.option("--ram", type=Size(), help="Main memory; alone, it plans without a GPU.")
@click.option("--context", type=click.IntRange(min=64), help="Tokens of one generation.")
@click.option("--sequences", type=click.IntRange(1, 256), help="Generations side by side.")
@click.option("--kv-type", type=click.Choice(["auto", "f16", "q8_0"]), help="What the cache holds.")
def plan_model(
    model: str, vram: int | None, ram: int | None, context: int | None, sequences: int | None, kv_type: str | None
) -> None:
    """Show what MODEL, a name or a GGUF file, takes of memory and how it would be loaded."""
    options = {"vram": vram, "ram": ram, "context": context, "sequences": sequences, "kv-type": kv_type}
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    plan = ask_workers("plan", model, *given)
    if wants_json():
        show_json(plan)
        return
    show_table(("of memory", "GiB"), _bytes(plan))
    show_table(("how", ""), _choices(plan))
    if plan["source"] == "header":
        better = "; with llama.cpp installed its own figures are shown" if plan["library"] == "llama.cpp" else ""
        note(f"estimated from the file's header{better}")


def _bytes(plan: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"weights": "weights", "cache": "KV", "compute": "compute", "margin": "margin"}
    rows = [(shown, _gib(plan[f"{name}_bytes"])) for name, shown in names.items()]
    rows.append(("together", _gib(plan["total_bytes"] + plan["margin_bytes"])))
    if plan["budget_bytes"] is not None:
        rows.append((f"of {'VRAM' if plan['device'] == 'gpu' else 'RAM'}", _gib(plan["budget_bytes"])))
    if plan["host_bytes"]:
        rows.append(("RAM besides", _gib(plan["host_bytes"])))
    return rows


def _choices(plan: dict[str, Any]) -> list[tuple[str, Any]]:
    layers = ("layers on the GPU", f"{plan['gpu_layers']} of {plan['layers']}")
    if plan["for"] == "embed":
        batch = f"{plan['batch']:,} tokens of up to {plan['sequences']} texts"
        return [("computed by", plan["library"]), layers, ("batch", batch)]
    layout = f"shared, {plan['cells']:,} tokens" if plan["unified"] else "each sequence its own"
    return [
        layers,
        ("context", f"{plan['tokens']:,} tokens"),
        ("sequences", plan["sequences"]),
        ("KV type", plan["kv_type"]),
        ("KV cache", layout),
        ("batch", f"{plan['batch']:,} tokens"),
    ]


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f}"
