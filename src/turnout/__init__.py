"""Turnout: a reverse proxy and load balancer with progressive delivery inside the proxy."""

__version__ = "0.1.0"
