"""When a schedule is due: cron expressions and RFC 5545 rules in a time zone, and what is done about missed times."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice, pairwise

from cronsim import CronSim, CronSimError
from dateutil.rrule import rrule, rruleset, rrulestr

from services.errors import InvalidRequest

# A rule that is never due would be searched for ever.
HORIZON = timedelta(days=5 * 366)
LEAST_SECONDS = 60
# A time that is later than this is a missed one, not one that the caretaker comes to a little late.
GRACE_SECONDS = 60
# What makes a rule dense, gives it a beginning of its own, or keeps the search for its next time from being bounded.
_REFUSED = ("SECONDLY", "MINUTELY", "HOURLY", "DTSTART", "COUNT", "EXDATE", "\n")
# Missed times that `all` makes up for; what was missed before them is passed over.
MOST_MISSED = 100


class Missed(StrEnum):
    """What happens to due times at which nothing ran, because everything was off."""

    ONCE = "once"
    SKIP = "skip"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """``cron`` (five fields) or ``rrule`` (an RFC 5545 RRULE without DTSTART) in an IANA time zone.

    ``start`` is the epoch second from which an ``rrule`` counts. Raises ``InvalidRequest`` when it is not valid, never
    due within five years, or due more often than once a minute.
    """

    zone: str
    start: float
    cron: str | None = None
    rrule: str | None = None

    def __post_init__(self) -> None:
        """Check that it can be followed."""
        if (self.cron is None) == (self.rrule is None):
            raise InvalidRequest("give either cron or rrule", code="schedule_invalid")
        times = list(islice(self.after(self.start), 200))
        if not times:
            raise InvalidRequest("the schedule is never due within five years", code="schedule_invalid")
        if any(later - earlier < LEAST_SECONDS for earlier, later in pairwise(times)):
            raise InvalidRequest("the schedule is due more often than once a minute", code="schedule_invalid")

    def after(self, moment: float) -> Iterator[int]:
        """Due times after an epoch time, in epoch seconds, each later than the one before, for five years at most."""
        begin, last = datetime.fromtimestamp(moment, UTC).astimezone(self._zone()), moment
        for time in self._cron_times(begin) if self.cron is not None else self._rule_times(begin):
            if time - begin > HORIZON:
                return
            # An hour that the clocks leave out is the one after it, and one of a rule's times may stand there already.
            if (due := int(time.timestamp())) > last:
                yield due
                last = due

    def _zone(self) -> zoneinfo.ZoneInfo:
        try:
            return zoneinfo.ZoneInfo(self.zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise InvalidRequest(
                f"unknown time zone {self.zone!r}; use an IANA name such as Europe/London", code="schedule_invalid"
            ) from None

    def _cron_times(self, begin: datetime) -> Iterator[datetime]:
        expression = str(self.cron)
        if len(expression) > 200 or len(expression.split()) != 5:
            raise InvalidRequest("cron takes five fields: minute hour day month weekday", code="schedule_invalid")
        try:
            yield from CronSim(expression, begin)
        except CronSimError as error:
            raise InvalidRequest(f"cron: {error}", code="schedule_invalid") from None

    def _rule_times(self, begin: datetime) -> Iterator[datetime]:
        text = str(self.rrule).removeprefix("RRULE:")
        if len(text) > 500 or any(word in text.upper() for word in _REFUSED):
            raise InvalidRequest(
                "rrule takes one RRULE with FREQ from DAILY to YEARLY (BYHOUR names hours), without DTSTART and COUNT",
                code="schedule_invalid",
            )
        start = datetime.fromtimestamp(self.start, UTC).astimezone(self._zone()).replace(second=0, microsecond=0)
        try:
            rule: rrule | rruleset = rrulestr(text, dtstart=start)
            # Without an end a rule that is never due would be searched to the year 9999.
            if isinstance(rule, rrule):
                end = begin + HORIZON
                until: datetime | None = getattr(rule, "_until", None)
                rule = rule.replace(until=min(until, end) if until else end)
            yield from rule.xafter(begin)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InvalidRequest(f"rrule: {error}", code="schedule_invalid") from None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do at a moment: the due time to run for, if any, and the next one, if the rule has one."""

    run_for: int | None
    next_due: int | None


def decide(recurrence: Recurrence, due: int, now: float, missed: Missed) -> Decision:
    """What a schedule whose time ``due`` has come does at ``now``; one run at most, and the time to look at next.

    ``once`` runs for the latest missed time, ``skip`` for none, ``all`` for each, the oldest first.
    """
    following = recurrence.after(due)
    coming = next(following, None)
    if missed is Missed.ALL:
        # Older ones than the last hundred are passed over.
        behind = [due]
        while coming is not None and coming <= now:
            behind = [*behind, coming][-MOST_MISSED:]
            coming = next(following, None)
        return Decision(behind[0], behind[1] if len(behind) > 1 else coming)
    latest = due
    while coming is not None and coming <= now:
        latest, coming = coming, next(following, None)
    late = now - latest > GRACE_SECONDS
    return Decision(None if late and missed is Missed.SKIP else latest, coming)
