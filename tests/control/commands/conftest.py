import pytest


@pytest.fixture
def call(turnout, served):
    """A command with the address of the API."""
    return lambda *words: turnout(*words, "--api", served.url)
