"""Bearer tokens: made, listed, revoked, recognised.

A token reads tnt_<id>_<secret>. The store has its id, its SHA-256 and what it may; the secret, 256 bits that
nobody chose, is shown once. No slow hash is needed: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import string
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from turnout.control.access.later import Later
from turnout.control.access.namespaces import EVERY
from turnout.control.access.roles import Role
from turnout.control.storage.schema import tokens as table
from turnout.proxy.model import check_namespaces

if TYPE_CHECKING:
    from turnout.control.storage.store import Store

PREFIX = "tnt"
ID_BYTES = 6
SECRET_CHARACTERS = 43  # of 62: 256 bits
ALPHABET = string.ascii_letters + string.digits
FORM = re.compile(rf"{PREFIX}_([0-9a-f]{{{2 * ID_BYTES}}})_[A-Za-z0-9]{{{SECRET_CHARACTERS}}}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@/-]{0,63}")
NOTE_S = 60.0
"""Uses are written down so often: a use costs no write."""


class BadTokenError(Exception):
    """It opens nothing; the text says why as far as its bearer may know."""


class NoTokenError(LookupError):
    """No token has this id."""


@dataclass(frozen=True)
class Token:
    """Times are Unix epoch, seconds."""

    id: str
    name: str
    role: Role
    namespaces: tuple[str, ...]
    created: float
    created_by: str
    expires: float | None
    revoked: float | None
    revoked_by: str | None
    last_used: float | None

    def state(self, now: float) -> str:
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "valid"


class Tokens:
    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._used: dict[str, float] = {}
        self._noting = Later(NOTE_S, self._write_uses)

    async def create(
        self,
        name: str,
        role: Role,
        *,
        namespaces: Iterable[str] = (EVERY,),
        ttl_s: float | None = None,
        by: str,
    ) -> tuple[Token, str]:
        """The token and its text, which nobody can have again. Raises ValueError for a name, a namespace or a
        time that is none, and for a name that a valid token has.
        """
        now = self._clock()
        await self._check_name(name, now)
        if ttl_s is not None and ttl_s <= 0:
            raise ValueError(f"a token that is valid for {ttl_s:g} s is never valid")
        globs = check_namespaces(tuple(dict.fromkeys(namespaces)))
        number = secrets.token_hex(ID_BYTES)
        text = f"{PREFIX}_{number}_{''.join(secrets.choice(ALPHABET) for _ in range(SECRET_CHARACTERS))}"
        expires = None if ttl_s is None else now + ttl_s
        row = {
            "id": number,
            "name": name,
            "hash": digest(text),
            "role": str(role),
            "namespaces": json.dumps(globs),
            "created": now,
            "created_by": by,
            "expires": expires,
        }
        async with self._store.change(fenced=False) as change:
            await change.execute(insert(table).values(row))
        return Token(number, name, role, globs, now, by, expires, None, None, None), text

    async def list(self) -> list[Token]:
        """Oldest first, those that are no longer valid included."""
        rows = await self._store.read(select(table).order_by(table.c.created, table.c.id))
        return [self._token(row) for row in rows]

    async def get(self, number: str) -> Token:
        """By its id. Raises NoTokenError."""
        return self._token(await self._row(number))

    async def revoke(self, number: str, *, by: str) -> Token:
        """It opens nothing from here on. Again: nothing changes. Raises NoTokenError."""
        await self._row(number)
        change_it = (
            update(table)
            .where(table.c.id == number, table.c.revoked.is_(None))
            .values(revoked=self._clock(), revoked_by=by)
        )
        async with self._store.change(fenced=False) as change:
            await change.execute(change_it)
        return await self.get(number)

    async def check(self, text: str) -> Token:
        """Whose it is. Raises BadTokenError. The store is asked each time: a token that is revoked is so at
        once, whichever process did it.
        """
        form = FORM.fullmatch(text)
        if form is None:
            raise BadTokenError(f"this is no token of Turnout; one begins with {PREFIX}_")
        rows = await self._store.read(select(table).where(table.c.id == form[1]))
        if not hmac.compare_digest(rows[0].hash if rows else digest(""), digest(text)):
            raise BadTokenError("this token is not valid")
        token, now = self._token(rows[0]), self._clock()
        if token.state(now) != "valid":
            at = token.revoked if token.revoked is not None else token.expires
            raise BadTokenError(f'the token "{token.name}" is {token.state(now)} since {_moment(at)}')
        self._note_use(token.id, now)
        return token

    async def close(self) -> None:
        await self._noting.now()

    # ---- inside ------------------------------------------------------------------------------------------

    async def _check_name(self, name: str, now: float) -> None:
        if not NAME.fullmatch(name):
            raise ValueError(
                f'"{name}" is no name for a token; use up to 64 letters, digits, blanks and . _ @ / -'
            )
        rows = await self._store.read(select(table).where(table.c.name == name))
        for token in map(self._token, rows):
            if token.state(now) == "valid":
                raise ValueError(f'a valid token is named "{name}" already ({token.id})')

    async def _row(self, number: str) -> Any:
        rows = await self._store.read(select(table).where(table.c.id == number))
        if not rows:
            raise NoTokenError(f'no token has the id "{number}"')
        return rows[0]

    def _token(self, row: Any) -> Token:
        return Token(
            row.id,
            row.name,
            Role.named(row.role),
            tuple(json.loads(row.namespaces)),
            row.created,
            row.created_by,
            row.expires,
            row.revoked,
            row.revoked_by,
            self._used.get(row.id, row.last_used),
        )

    def _note_use(self, number: str, now: float) -> None:
        self._used[number] = now
        self._noting.soon()

    async def _write_uses(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        async with self._store.change(fenced=False) as change:
            for number, at in used.items():
                await change.execute(update(table).where(table.c.id == number).values(last_used=at))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _moment(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at or 0))
