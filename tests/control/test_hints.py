"""What is said of names that do not exist."""

from turnout.control.hints import HINTS, NEAR_MAX, hint


def test_a_near_name_is_suggested():
    assert hint("ordrs", ["orders", "quotes"]) == '; did you mean "orders"?'


def test_all_names_are_listed_when_they_are_few():
    assert hint("zzz", ["orders", "quotes"]) == "; there are orders, quotes"


def test_of_many_names_some_are_listed_and_the_rest_counted():
    said = hint("zzz", [f"10.0.0.{n}:80" for n in range(100)])

    assert said.count(":80") == HINTS
    assert said.endswith(f" and {100 - HINTS} more")


def test_among_thousands_none_is_looked_for_that_is_near():
    known = [f"10.0.{n // 250}.{n % 250}:80" for n in range(NEAR_MAX + 1)]

    assert hint("10.0.0.7:81", known).startswith("; there are ")
    assert hint("10.0.0.7:81", known[1:]) == '; did you mean "10.0.0.7:80"?'
