"""Times on the command line."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from turnout.control.commands.moments import moment, span

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("18:30", NOW.replace(hour=18, minute=30)),
        ("11:59", NOW.replace(day=5, hour=11, minute=59)),
        ("12:00", NOW.replace(day=5)),
        ("2026-12-01T06:00+00:00", datetime(2026, 12, 1, 6, tzinfo=UTC)),
        ("2026-12-01 06:00", datetime(2026, 12, 1, 6).astimezone()),
    ],
)
def test_a_time_of_day_is_the_next_one_and_a_date_is_itself(text, at):
    assert moment(text, NOW) == at.timestamp()


@pytest.mark.parametrize(
    ("s", "said"), [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172800, "2 d")]
)
def test_a_span_is_said_roughly(s, said):
    assert span(s) == said
