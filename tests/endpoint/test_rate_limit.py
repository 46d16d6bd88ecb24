"""How fast a server is asked."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from aesr1.endpoint.rate_limit import RateLimit, backoff, retry_after


def starts(pace: RateLimit, count: int, *, first=lambda: None) -> list[float]:
    """Seconds after which each of so many turns begins; `first` is called in the first of them."""

    async def run() -> list[float]:
        began, seen = time.monotonic(), []

        async def one(number: int) -> None:
            async with pace.turn():
                seen.append(time.monotonic() - began)
                if number == 0:
                    first()
                await asyncio.sleep(0.01)

        await asyncio.gather(*(one(number) for number in range(count)))
        return seen

    return asyncio.run(run())


def test_waits_double_and_have_a_limit():
    for attempt, most in ((0, 0.5), (3, 4.0), (20, 60.0)):
        waits = [backoff(attempt) for _ in range(200)]
        assert most / 2 <= min(waits) <= max(waits) <= most
        assert max(waits) - min(waits) > most / 4


def test_a_server_that_wants_peace_gets_it_from_all_requests():
    pace = RateLimit(2, rpm=None, tpm=None)
    seen = starts(pace, 6, first=lambda: pace.too_much(0.3))
    assert seen[0] < 0.1
    assert all(start >= 0.3 for start in seen[1:])
    assert seen[1] < 0.6


def test_a_turn_that_waits_for_its_minute_waits_for_the_peace_as_well():
    pace = RateLimit(4, rpm=1200, tpm=None)  # one in .05 s
    seen = starts(pace, 4, first=lambda: pace.too_much(0.4))
    assert seen[0] < 0.1
    assert all(start >= 0.4 for start in seen[1:])


def test_a_busy_server_is_asked_a_third_less_once_a_second_and_more_when_it_answers():
    pace = RateLimit(9, rpm=None, tpm=None)
    for _ in range(5):
        pace.too_much(0.0)
    assert pace.limit == pytest.approx(6.0)
    for _ in range(6):
        pace.went_well(100)
    assert 6.9 < pace.limit < 7.0
    for _ in range(100):
        pace.went_well(100)
    assert pace.limit == 9


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "86400"}, 600.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_wait_until_a_date():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    assert 18 <= retry_after({"retry-after": date}) <= 20
