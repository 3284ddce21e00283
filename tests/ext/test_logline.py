"""Parts of an access-log record: any bytes make valid JSON, times are what they say."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.ext.logline import _escaped, _ms, _time

LONGEST = 2048
BYTES = st.binary(max_size=300) | st.text('"\\\r\n\t\0 a\x7f\xe4', max_size=100).map(
    lambda s: s.encode("latin-1")
)


@given(BYTES)
def test_any_bytes_are_a_json_string_of_the_same_code_points(value):
    text = _escaped(value)

    assert text.isascii()
    assert json.loads(text) == value.decode("latin-1")


def test_no_value_can_start_a_line_or_a_key_of_its_own():
    assert _escaped(b'x", "status": 200}\n{') == b'"x\\", \\"status\\": 200}\\u000a{"'


def test_a_long_value_is_cut_before_it_is_escaped():
    assert json.loads(_escaped(b"\n" * (LONGEST + 1))) == "\n" * LONGEST


@pytest.mark.parametrize(("value", "size"), [(b"", 2), (b"abc", 5), (b'"', 4), (b"\0", 8), (b"a\nb", 10)])
def test_a_string_fits_to_the_byte_or_not_at_all(value, size):
    assert len(_escaped(value, size)) == size
    assert all(_escaped(value, cap) is None for cap in range(size))


@given(st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2400, 1, 1)))
def test_a_time_is_rfc_3339_in_utc(moment):
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=dt.UTC)
    ms = (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)

    assert _time(ms).decode() == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@given(st.integers(1, 1 << 62), st.integers(0, 1 << 50))
def test_a_span_is_milliseconds_with_three_decimals(start, us):
    assert _ms(start, start + us).decode() == f"{us // 1000}.{us % 1000:03}"


def test_a_span_without_both_ends_is_null():
    assert _ms(0, 5) == b"null"
    assert _ms(6, 5) == b"null"
