"""What the client says of answers is what the API gives."""

import pytest

from turnout.control.api import access, config, events, models
from turnout.control.client import shapes


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (shapes.Service, models.ServiceRow),
        (shapes.ServiceDetail, models.ServiceDetail),
        (shapes.Endpoint, models.EndpointRow),
        (shapes.Changed, models.Removed),
        (shapes.Health, models.HealthRow),
        (shapes.Turn, models.HealthTurn),
        (shapes.Event, events.EventRow),
        (shapes.ConfigText, config.ConfigText),
        (shapes.Version, config.VersionRow),
        (shapes.VersionText, config.VersionText),
        (shapes.ConfigApplied, config.ConfigApplied),
        (shapes.Token, access.TokenRow),
        (shapes.NewToken, access.TokenMade),
        (shapes.AuditEntry, access.AuditRow),
        (shapes.Verdict, access.Verified),
        (shapes.End, access.End),
        (shapes.Broken, access.Wrong),
    ],
)
def test_a_shape_has_the_members_of_the_answer(ours, theirs):
    assert set(ours.__annotations__) == set(theirs.__annotations__)
