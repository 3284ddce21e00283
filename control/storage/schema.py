"""All tables. Text columns named in `JSON` hold JSON; times are seconds since the epoch.

Every change of what is stored is numbered: the rows it leaves carry that `revision`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

VERSION = 1
"""Of the schema; raised when a stored database has to be changed to be understood."""

metadata = MetaData()
Revision = BigInteger

state = Table(
    "state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("revision", Revision, nullable=False),
    Column("epoch", BigInteger, nullable=False),  # of the process that may write
)
"""One row."""

# ---- registry --------------------------------------------------------------------------------------------

services = Table(
    "services",
    metadata,
    Column("service", String(160), primary_key=True),  # full name
    Column("settings", Text, nullable=False),  # JSON: model.Service without endpoints, as given
    Column("created_by", String(255), nullable=False),
    Column("revision", Revision, nullable=False),
)
"""Registered through the API; those of the file stand in the file."""

endpoints = Table(
    "endpoints",
    metadata,
    Column("service", String(160), primary_key=True),
    Column("address", String(320), primary_key=True),
    Column("settings", Text, nullable=False),  # JSON: model.Endpoint
    Column("lease_ttl", Float),  # seconds; null: for good
    Column("registered", Float, nullable=False),
    Column("registered_by", String(255), nullable=False),
    Column("revision", Revision, nullable=False),
)
"""Registered through the API. When a lease ends is not here: a restart gives every lease its whole time."""

overrides = Table(
    "overrides",
    metadata,
    Column("service", String(160), primary_key=True),
    Column("address", String(320), primary_key=True),
    Column("weight", Integer),
    Column("weight_said", Integer),  # by the endpoint's source when `weight` was set
    Column("admin", String(8), nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_by", String(255), nullable=False),
    Column("until", Float),  # back to ready then
    Column("revision", Revision, nullable=False),
)
"""Set at run time, of endpoints of any source."""

splits = Table(
    "splits",
    metadata,
    Column("service", String(160), primary_key=True),
    Column("shares", Text, nullable=False),  # JSON: version -> share, as given
    Column("said", Text, nullable=False),  # JSON: by the service's source when it was set
    Column("set_by", String(255), nullable=False),
    Column("revision", Revision, nullable=False),
)
"""Set at run time."""

discovered = Table(
    "discovered",
    metadata,
    Column("service", String(160), primary_key=True),
    Column("question", Text, nullable=False),  # as asked; another one makes the row void
    Column("found", Text, nullable=False),  # JSON: [address, weight, priority] of each endpoint
    Column("time", Float, nullable=False),  # when the DNS last said so
)
"""The last good answers of the DNS."""

configurations = Table(
    "configurations",
    metadata,
    Column(
        "version", Revision, primary_key=True, autoincrement=False
    ),  # the revision at which it took effect
    Column("time", Float, nullable=False),
    Column("by", String(255), nullable=False),
    Column("note", Text, nullable=False),
    Column("digest", String(16), nullable=False),  # of the text
    Column("text", Text, nullable=False),
)
"""Texts of the configuration file that were in force."""

# ---- events ----------------------------------------------------------------------------------------------

events = Table(
    "events",
    metadata,
    Column("id", Integer().with_variant(BigInteger, "postgresql"), primary_key=True, autoincrement=True),
    Column("revision", Revision, nullable=False),
    Column("time", Float, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("service", String(160)),
    Column("address", String(320)),
    Column("by", String(255), nullable=False),
    Column("data", Text, nullable=False),  # JSON
    Index("events_revision", "revision"),
)

# ---- health ----------------------------------------------------------------------------------------------

health = Table(
    "health",
    metadata,
    Column("service", String(160), primary_key=True),
    Column("address", String(320), primary_key=True),
    Column("up", Integer, nullable=False),
    Column("since", Float(53), nullable=False),
    Column("reason", Text, nullable=False),
)
"""Of endpoints that are checked, as they were last; what a restart goes on from."""

# ---- access ----------------------------------------------------------------------------------------------

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("namespaces", Text, nullable=False),  # a JSON list of globs
    Column("created", Float(53), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires", Float(53)),
    Column("revoked", Float(53)),
    Column("revoked_by", Text),
    Column("last_used", Float(53)),
)
"""Never removed: who looks at the audit log finds them."""

audit = Table(
    "audit",
    metadata,
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),  # milliseconds since 1970
    Column("kind", String(16), nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("source", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("result", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)
"""Only added to; each hash covers the row and the hash before it."""

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1
    Column("n", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)
"""One row: the last of audit."""

# ---- API -------------------------------------------------------------------------------------------------

idempotency = Table(
    "idempotency",
    metadata,
    Column("caller", String(255), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),  # of what was asked for
    Column("status", Integer, nullable=False),
    Column("headers", Text, nullable=False),  # JSON
    Column("body", Text, nullable=False),
    Column("created", Float, nullable=False),
    Index("idempotency_created", "created"),
)
"""Answers to requests that have an Idempotency-Key, for a day."""
