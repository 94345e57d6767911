"""The queue beside plain Celery on the same server, pool and fsync: `make bench NAME=queue`.

No-op jobs on 16 threads, Valkey with `appendfsync always`, everything on this machine in one run, the sides in turn. A
task notes its end in a local file, so that what is compared is the queue alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.stack.valkey import EmbeddedValkey
from services.broker import create_celery
from services.jobs import Claim, Completion, Device, JobType, Lane, Priority, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings

THREADS = 16
PRELOADED = 2000
RATE, RATE_SECONDS = 50, 6
RUNS = 3
BATCH = 32
CRITICAL = 20
# The figures of the JSON line; the table has those that they are made of as well.
REPORTED = (
    "jobs_per_s_ratio",
    "batch_jobs_per_s_ratio",
    "p50_added_ms",
    "p99_ms",
    "critical_overtaken_by",
    "aged_overtaken_by",
    "fairness_ratio",
)


def main() -> int:
    """Print a table and one JSON line."""
    if len(sys.argv) > 1:
        return {"ours": worker_ours, "plain": worker_plain}[sys.argv[1]]()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedValkey(Path(folder))
        url = server.start()
        try:
            figures = measure(url)
        finally:
            server.stop()
    for name, value in figures.items():
        print(f"{name:34s} {value}")
    print(json.dumps({name: figures[name] for name in REPORTED}))
    return 0


def measure(url: str) -> dict[str, float]:
    """All figures, medians of interleaved runs."""
    speed: dict[str, list[float]] = {"ours": [], "batch": [], "plain": []}
    delay: dict[str, list[float]] = {"ours": [], "plain": []}
    for run in range(RUNS):
        for side, values in speed.items():
            values.append(preloaded(url, side, run))
    for side, seconds in delay.items():
        seconds.extend(steady(url, side))
    ours, plain = statistics.median(speed["ours"]), statistics.median(speed["plain"])
    overtaking = {"critical": overtaken(url, aged=False), "aged": overtaken(url, aged=True)}
    middle = {side: statistics.median(values) * 1000 for side, values in delay.items()}
    return {
        "jobs_per_s": round(ours),
        "batch_jobs_per_s": round(statistics.median(speed["batch"])),
        "plain_jobs_per_s": round(plain),
        "jobs_per_s_ratio": round(ours / plain, 2),
        "batch_jobs_per_s_ratio": round(statistics.median(speed["batch"]) / plain, 2),
        "p50_ms": round(middle["ours"], 2),
        "plain_p50_ms": round(middle["plain"], 2),
        "p50_added_ms": round(middle["ours"] - middle["plain"], 2),
        "p99_ms": round(sorted(delay["ours"])[int(len(delay["ours"]) * 0.99)] * 1000, 2),
        "fairness_ratio": fairness(url),
        **{f"{age}_overtaken_by": max(counts.values()) for age, counts in overtaking.items()},
        **{f"{age}, {case}": count for age, counts in overtaking.items() for case, count in counts.items()},
    }


def settings_of(url: str, prefix: str) -> Settings:
    """An installation of its own on the server."""
    return Settings.model_validate({"REDIS_URL": url, "prefix": prefix})


@contextmanager
def worker(side: str, url: str, prefix: str) -> Generator[Path]:
    """A Celery worker of one side, in its own process; answers the file in which it notes ends."""
    mode = "plain" if side == "plain" else "ours"
    command = [sys.executable, "-m", "tests.benchmarks.queue", mode]
    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder) / "done"
        done.touch()
        env = os.environ | {"BENCH_URL": url, "BENCH_PREFIX": prefix, "BENCH_DONE": str(done)}
        env["BENCH_BATCH"] = str(BATCH if side == "batch" else 1)
        with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            try:
                yield done
            finally:
                process.terminate()
                process.wait(30)


def ends(done: Path) -> dict[str, float]:
    """Job → time of its end, as the worker noted them."""
    rows = (line.split() for line in done.read_text(encoding="utf-8").splitlines())
    return {row[0]: float(row[1]) for row in rows if len(row) == 2}


def noter() -> Callable[[str], None]:
    """Notes the end of a job in the worker's file."""
    descriptor = os.open(os.environ["BENCH_DONE"], os.O_WRONLY | os.O_APPEND)
    return lambda number: void(os.write(descriptor, f"{number} {time.time()}\n".encode()))


def void(_: object) -> None:
    """For calls whose answer is not wanted."""


def preloaded(url: str, side: str, run: int) -> float:
    """Jobs a second over jobs that wait when the worker is ready, measured between the first and the last end."""
    prefix = f"pre-{side}-{run}:"
    client: Any = Lifecycle(settings_of(url, prefix)).client
    put = submitter(side, url, prefix)
    for number in range(PRELOADED):
        put(str(number))
    with worker(side, url, prefix) as done:
        wait(lambda: len(ends(done)) >= PRELOADED)
        times = sorted(ends(done).values())
    client.flushdb()
    return (PRELOADED - 1) / (times[-1] - times[0])


def steady(url: str, side: str) -> list[float]:
    """Seconds from submission to done at a steady rate on an idle worker."""
    prefix = f"steady-{side}:"
    client: Any = Lifecycle(settings_of(url, prefix)).client
    put = submitter(side, url, prefix)
    sent: dict[str, float] = {}
    with worker(side, url, prefix) as noted:
        put("warm")
        wait(lambda: len(ends(noted)) >= 1)
        begun = time.time()
        for number in range(RATE * RATE_SECONDS):
            time.sleep(max(0.0, begun + number / RATE - time.time()))
            sent[str(number)] = time.time()
            put(str(number))
        wait(lambda: len(ends(noted)) >= 1 + len(sent))
        done = ends(noted)
    client.flushdb()
    return [done[number] - at for number, at in sent.items()]


def submitter(side: str, url: str, prefix: str) -> Callable[[str], object]:
    """What submits one no-op job."""
    if side == "plain":
        app = plain_app(url, prefix)
        return lambda number: app.send_task("noop", args=[number], queue="plain", priority=3)
    lifecycle = Lifecycle(settings_of(url, prefix))
    return lambda number: lifecycle.submit(Submission("bench", JobType.ANALYZE, {"number": number}))


def overtaken(url: str, *, aged: bool) -> dict[str, int]:
    """Most bulk jobs started between the acceptance and the start of any of 20 critical ones, by slots and tenant.

    500 bulk jobs wait, or 5,000 that are six hours old; the slots are full of them when a critical job comes.
    """
    prefix = f"critical-{aged}:"
    lifecycle = Lifecycle(settings_of(url, prefix))
    raw: Any = lifecycle.client
    for _ in range(5000 if aged else 500):
        lifecycle.submit(Submission("bench", JobType.ANALYZE, {}, priority=Priority.BULK))
    if aged:
        parts = {"lane": "analyze", "device": "any", "priority": "bulk", "queue": "usual", "model": ""}
        pipeline = raw.pipeline(transaction=False)
        for member, score in raw.zrange(lifecycle.keys("backlog", **parts), 0, -1, withscores=True):
            pipeline.zadd(lifecycle.keys("ages", **parts), {member: score - 6 * 3600})
        pipeline.execute()
    tenants = {"same tenant": "bench", "other tenant": "other"}
    worst = {
        f"slots {slots}, {name}": most_before(lifecycle, slots, tenant)
        for slots in (1, 4)
        for name, tenant in tenants.items()
    }
    raw.flushdb()
    return worst


def most_before(lifecycle: Lifecycle, slots: int, tenant: str) -> int:
    """Most claims before that of any critical job of the tenant, by slots that each end a job and claim the next."""
    held = [claim for _ in range(slots) for claim in turn(lifecycle, [])]
    worst = 0
    for _ in range(CRITICAL):
        job, _ = lifecycle.submit(Submission(tenant, JobType.ANALYZE, {}, priority=Priority.CRITICAL))
        before = -1
        while held[-1].id != job.id:
            before += 1
            held += turn(lifecycle, [held.pop(0)])
        worst = max(worst, before)
        for _ in range(slots):
            held += turn(lifecycle, [held.pop(0)])
    for claim in held:
        turn(lifecycle, [claim], n=0)
    return worst


def turn(lifecycle: Lifecycle, ended: list[Claim], n: int = 1) -> list[Claim]:
    """A slot ends what it holds and claims the next."""
    done = [Completion(claim, "succeeded") for claim in ended]
    return lifecycle.work(done, lane=Lane.ANALYZE, devices=(Device.ANY,), worker="w", n=n)[1]


def fairness(url: str) -> float:
    """When a second tenant's 20 jobs are done behind the first one's 1,000, as a share of first-come-first-served."""
    lifecycle = Lifecycle(settings_of(url, "fair:"))
    raw: Any = lifecycle.client
    for _ in range(1000):
        lifecycle.submit(Submission("first", JobType.ANALYZE, {}))
    mine = {lifecycle.submit(Submission("second", JobType.ANALYZE, {}))[0].id for _ in range(20)}
    count = 0
    while mine:
        (held,) = lifecycle.work([], lane=Lane.ANALYZE, devices=(Device.ANY,), worker="w", n=1)[1]
        mine.discard(held.id)
        count += 1
    raw.flushdb()
    return round(count / 1020, 4)


def plain_app(url: str, prefix: str) -> Any:
    """Celery alone, with late acknowledgement and prefetch one, on the same server."""
    app = create_celery(settings_of(url, prefix))
    app.conf.update(worker_send_task_events=False)
    app.conf.broker_transport_options = app.conf.broker_transport_options | {"ack_emulation": True}
    return app


def worker_plain() -> int:
    """A plain Celery worker whose task notes its end."""
    url, prefix = os.environ["BENCH_URL"], os.environ["BENCH_PREFIX"]
    app, note = plain_app(url, prefix), noter()

    def noop(number: str) -> None:
        note(number)

    app.task(noop, name="noop")
    return run_celery(app, ["plain"])


def worker_ours() -> int:
    """Our slots around a task that notes its end as the plain one does."""
    from services.fleet import Fleet
    from workers.pulse import Pulse
    from workers.slots import Slots, Work
    from workers.ticket import register_ticket

    url, prefix = os.environ["BENCH_URL"], os.environ["BENCH_PREFIX"]
    lifecycle = Lifecycle(settings_of(url, prefix))
    note = noter()

    def noop(execution: Any) -> dict[str, Any]:
        note(execution.claim.input["number"])
        return {}

    nothing: Any = lambda *_: None  # noqa: E731
    fleet: Any = Fleet(lifecycle.client, lifecycle.keys)
    fleet.announce = nothing
    pulse = Pulse(lifecycle, fleet, nothing, lambda: 0.0)
    batch = int(os.environ["BENCH_BATCH"])
    work = Work({"analyze": noop}, lambda *_: "", nothing, batch=lambda _: batch)
    app = create_celery(settings_of(url, prefix))
    app.conf.update(worker_send_task_events=False)
    register_ticket(app, Slots(lifecycle, pulse, work, worker="bench", device=Device.CPU, seats=THREADS))
    pulse.start()
    threading.Thread(target=caretake, args=(lifecycle,), daemon=True).start()
    return run_celery(app, ["analyze.any"])


def caretake(lifecycle: Lifecycle) -> None:
    """The caretaker's rounds without its lock."""
    while True:
        time.sleep(1)
        lifecycle.care()


def run_celery(app: Any, queues: list[str]) -> int:
    """The same worker for both sides."""
    worker = app.Worker(
        pool="threads",
        concurrency=THREADS,
        queues=queues,
        loglevel="ERROR",
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    worker.start()
    return 0


def wait(condition: Callable[[], bool]) -> None:
    """Until the condition holds; two minutes at most."""
    until = time.monotonic() + 120
    while not condition():
        if time.monotonic() > until:
            raise SystemExit("the worker does not get on")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
