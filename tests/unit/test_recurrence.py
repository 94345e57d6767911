"""When schedules are due: time zones, daylight saving, missed times, and rules that nobody may give."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidRequest
from services.recurrence import Missed, Recurrence, decide


def at(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def times(rule: Recurrence, start: int, count: int, zone: str) -> list[str]:
    found = islice(rule.after(start), count)
    return [datetime.fromtimestamp(time, ZoneInfo(zone)).isoformat()[:16] for time in found]


NIGHT = at("2026-03-27T12:00", "Europe/London")


@pytest.mark.parametrize(
    "rule", [{"cron": "30 22 * * *"}, {"rrule": "FREQ=DAILY;BYHOUR=22;BYMINUTE=30"}], ids=["cron", "rrule"]
)
def test_the_hour_stays_when_the_clocks_change(rule: dict[str, str]) -> None:
    found = times(Recurrence(zone="Europe/London", start=NIGHT, **rule), NIGHT, 4, "Europe/London")
    assert found == ["2026-03-27T22:30", "2026-03-28T22:30", "2026-03-29T22:30", "2026-03-30T22:30"]


def test_an_hour_that_does_not_exist_comes_after_the_change_and_one_that_comes_twice_counts_once() -> None:
    rule = Recurrence(zone="Europe/London", start=NIGHT, rrule="FREQ=DAILY;BYHOUR=1;BYMINUTE=30")
    assert times(rule, NIGHT, 3, "Europe/London") == ["2026-03-28T01:30", "2026-03-29T02:30", "2026-03-30T01:30"]
    both = Recurrence(zone="Europe/London", start=NIGHT, rrule="FREQ=DAILY;BYHOUR=1,2;BYMINUTE=30")
    assert times(both, at("2026-03-29T00:00"), 3, "Europe/London") == [
        "2026-03-29T02:30", "2026-03-30T01:30", "2026-03-30T02:30",
    ]  # fmt: skip
    autumn = at("2026-10-24T12:00", "Europe/London")
    for way in ({"cron": "30 1 * * *"}, {"rrule": "FREQ=DAILY;BYHOUR=1;BYMINUTE=30"}):
        found = times(Recurrence(zone="Europe/London", start=autumn, **way), autumn, 2, "Europe/London")
        assert found == ["2026-10-25T01:30", "2026-10-26T01:30"]


def test_a_rule_counts_from_its_start_wherever_one_looks() -> None:
    start = at("2026-01-02T09:00")
    rule = Recurrence(zone="UTC", start=start, rrule="FREQ=WEEKLY;INTERVAL=2;BYDAY=FR;BYHOUR=22;BYMINUTE=0")
    assert times(rule, at("2026-01-10T00:00"), 2, "UTC") == ["2026-01-16T22:00", "2026-01-30T22:00"]
    ending = Recurrence(zone="UTC", start=start, rrule="FREQ=DAILY;UNTIL=20260104T230000Z;BYHOUR=22;BYMINUTE=0")
    assert len(list(ending.after(start))) == 3


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"cron": "* * * * *", "rrule": "FREQ=DAILY"},
        {"cron": "* * * *"},
        {"cron": "0 0 * * * *"},
        {"cron": "61 * * * *"},
        {"cron": "0 0 30 2 *"},
        {"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"},
        {"rrule": "FREQ=SECONDLY"},
        {"rrule": "FREQ=DAILY;BYSECOND=0,1"},
        {"rrule": "FREQ=DAILY;BYHOUR=25"},
        {"rrule": "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30"},
        {"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=DAILY"},
        {"rrule": "FREQ=DAILY;COUNT=3"},
        {"rrule": "nonsense"},
        {"rrule": ""},
        {"rrule": "FREQ=DAILY;BYHOUR=" + ",".join(["1"] * 300)},
        {"cron": ",".join(["0"] * 100) + " 0 * * *"},
        {"cron": "0 0 * * *", "zone": "Mars/Base"},
        {"cron": "0 0 * * *", "zone": "../etc/passwd"},
    ],
)
def test_what_cannot_be_followed_is_refused(rule: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        Recurrence(**({"zone": "UTC", "start": NIGHT} | rule))  # pyright: ignore[reportArgumentType]
    assert refusal.value.code == "schedule_invalid"


HOURLY = Recurrence(zone="UTC", start=0, cron="0 * * * *")


@pytest.mark.parametrize(
    ("missed", "now", "run_for", "next_due"),
    [
        (Missed.ONCE, 3600, 3600, 7200),
        (Missed.SKIP, 3630, 3600, 7200),
        (Missed.ONCE, 5 * 3600 + 600, 5 * 3600, 6 * 3600),
        (Missed.SKIP, 5 * 3600 + 600, None, 6 * 3600),
        (Missed.SKIP, 5 * 3600 + 30, 5 * 3600, 6 * 3600),
        (Missed.ALL, 5 * 3600 + 600, 3600, 7200),
    ],
)
def test_missed_times(missed: Missed, now: int, run_for: int | None, next_due: int) -> None:
    decision = decide(HOURLY, 3600, now, missed)
    assert (decision.run_for, decision.next_due) == (run_for, next_due)


@given(st.integers(0, 500), st.sampled_from(list(Missed)))
def test_every_decision_moves_on_and_ends_in_the_future(hours: int, missed: Missed) -> None:
    now, due, ran = hours * 3600 + 1800, 3600, []
    for _ in range(1000):
        if due > now:
            break
        decision = decide(HOURLY, due, now, missed)
        assert decision.next_due is not None and decision.next_due > due
        ran += [decision.run_for] if decision.run_for is not None else []
        due = decision.next_due
    assert now < due <= now + 3600
    expected = {Missed.ONCE: min(1, hours), Missed.SKIP: 0, Missed.ALL: min(hours, 100)}[missed]
    assert len(ran) == expected
    assert ran == sorted(set(ran))
