"""Lists and searches a tenant's jobs, newest first and page by page, by indexes that the submission wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.jobs import Job, JobType, State, Submission
from services.keys import Keys
from services.paging import Page, Place, page_of_newest
from services.redis_client import Redis, redis_errors
from services.sealed_records import SealedRecords

# Records that one request looks at; a page that has found less than it may then goes on by its cursor.
MOST_LOOKED_AT = 2000
METADATA = "metadata."


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a list has; empty: of any. ``labels``: ``external_id``, ``matter`` or ``metadata.KEY`` → value.

    Jobs of a run are listed by their ``run`` alone. ``matters`` are those that the caller sees, ``None`` for all.
    """

    states: frozenset[State] = frozenset()
    types: frozenset[JobType] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    run: str | None = None
    matters: frozenset[str] | None = None

    def sees(self, job: Job) -> bool:
        """Whether the caller may know of the job."""
        return self.matters is None or job.matter in self.matters

    def accepts(self, state: str | None, job_type: str | None) -> bool:
        """Whether a record of this state and type may be among them."""
        fits = not self.states or state in self.states
        return fits and (not self.types or job_type in self.types)


ALL = Wanted()


class JobIndex:
    """Reads the indexes. Safe for threads; every method raises ``Unavailable`` when Redis is away."""

    def __init__(self, client: Redis, keys: Keys, records: SealedRecords) -> None:
        self._client = client
        self._keys = keys
        self._sealed = records

    def list(self, tenant: str, wanted: Wanted = ALL, *, cursor: str | None = None, limit: int = 50) -> Page[Job]:
        """The newest jobs that are wanted; steps are not listed. Raises code ``cursor_invalid``."""
        return page_of_newest(
            self._client,
            "jobs",
            self._sources(tenant, wanted),
            lambda places: self._wanted(tenant, places, wanted),
            cursor=cursor,
            limit=limit,
            most=MOST_LOOKED_AT,
        )

    def dead_letters(
        self,
        tenant: str,
        *,
        matters: frozenset[str] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Job]:
        """The jobs that failed for good and were not replayed, newest failure first; of these ``matters`` alone."""
        seen = Wanted(matters=matters)

        def rows(places: Sequence[Place]) -> Iterator[tuple[Place, Job]]:
            jobs = self._records(tenant, [place.name for place in places])
            return ((place, job) for place, job in zip(places, jobs, strict=True) if job and seen.sees(job))

        names = [self._keys("dead", tenant=tenant)]
        return page_of_newest(self._client, "dead-letters", names, rows, cursor=cursor, limit=limit)

    def _sources(self, tenant: str, wanted: Wanted) -> list[str]:
        """The shortest index that has all that is wanted, or those of the matters that are all the caller sees."""
        if wanted.run is not None:
            return [self._keys("run_jobs", tenant=tenant, id=wanted.run)]
        if wanted.matters is not None:
            return [name for matter in wanted.matters for name in self._label_names(tenant, {"matter": matter})]
        names = self._label_names(tenant, wanted.labels)
        if len(names) < 2:
            return names or [self._keys("jobs", tenant=tenant)]
        with redis_errors():
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.zcard(name)
            return [min(zip(pipeline.execute(), names, strict=True))[1]]

    def _label_names(self, tenant: str, labels: Mapping[str, str]) -> list[str]:
        digests = label_digests(self._sealed, tenant, labels)
        return [self._keys("label", tenant=tenant, digest=digest) for digest in digests]

    def _wanted(self, tenant: str, places: Sequence[Place], wanted: Wanted) -> Iterator[tuple[Place, Job]]:
        if wanted.states or wanted.types:
            with redis_errors():
                pipeline = self._client.pipeline(transaction=False)
                for place in places:
                    pipeline.hmget(self._keys("job", tenant=tenant, id=place.name), ["state", "type"])
                facts = pipeline.execute()
            places = [place for place, fact in zip(places, facts, strict=True) if wanted.accepts(*fact)]
        jobs = self._records(tenant, [place.name for place in places])
        for place, job in zip(places, jobs, strict=True):
            if job is None or not wanted.sees(job):
                continue
            if wanted.labels.items() <= labels(job).items() and wanted.accepts(job.state, job.type):
                yield place, job

    def _records(self, tenant: str, ids: Iterable[str]) -> Sequence[Job | None]:
        with redis_errors():
            pipeline = self._client.pipeline(transaction=False)
            for job in ids:
                pipeline.hgetall(self._keys("job", tenant=tenant, id=job))
            return [Job.from_fields(self._sealed.open_job(fields)) if fields else None for fields in pipeline.execute()]


def labels(job: Job | Submission) -> dict[str, str]:
    """What a job can be found by, field → value."""
    named = {"external_id": job.external_id, "matter": job.matter}
    found = {name: value for name, value in named.items() if value is not None}
    return found | {METADATA + name: value for name, value in job.metadata.items()}


def label_digests(records: SealedRecords, tenant: str, wanted: Mapping[str, str]) -> list[str]:
    """The names of the indexes of labels: values may be long, and nobody shall find out one by trying."""
    return [records.digest(tenant, "label", f"{name}|{value}")[:32] for name, value in wanted.items()]
