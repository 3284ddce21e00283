"""The table of routes: all that the API can do, in the order of its documents."""

from __future__ import annotations

from dataclasses import replace

from turnout.control.api import access, config, endpoints, events, health, manual, process, services
from turnout.control.api.routes import Route

TOPICS: tuple[tuple[str, tuple[Route, ...]], ...] = (
    ("process", process.ROUTES),
    ("services", services.ROUTES),
    ("endpoints", endpoints.ROUTES),
    ("health", health.ROUTES),
    ("configuration", config.ROUTES),
    ("events", events.ROUTES),
    ("access", access.ROUTES),
    ("manual", manual.ROUTES),
)
ROUTES = tuple(replace(route, tag=topic) for topic, routes in TOPICS for route in routes)
