"""Access to a running proxy as programs meet it: tokens, certificates, and the audit log over its life."""

import contextlib
import json
import os
import signal
import sqlite3
import ssl
import tempfile
from pathlib import Path

import aiohttp
import pytest
from fakes.certs import Authority
from harness.client import until
from harness.turnout import config, free_port, scenario, turnout


@pytest.fixture
def folder():
    """With a short name: there is a unix socket in it."""
    with tempfile.TemporaryDirectory(prefix="turnout-test-") as out:
        yield Path(out)


class Running:
    """A proxy, its API over the unix socket, and over TCP at `url`."""

    def __init__(self, proxy, folder: Path, url: str) -> None:
        self.proxy = proxy
        self.folder = folder
        self.url = url

    async def local(self, method: str, path: str, body: object = None) -> tuple[int, dict]:
        (sock,) = self.folder.glob("turnout-*.sock")
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(sock))) as session:
            return await asked(session, method, f"http://localhost{path}", body)

    async def remote(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> tuple[int, dict]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connector = aiohttp.TCPConnector(ssl=True if tls is None else tls)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            return await asked(session, method, f"{self.url}{path}", body)

    async def token(self, name: str, role: str, **more: object) -> dict:
        status, made = await self.local("POST", "/v1/tokens", {"name": name, "role": role, **more})
        assert status == 201, made
        return made

    async def audit(self) -> list[tuple[str, str, str, str]]:
        """Who, action, subject, result of each entry."""
        _, found = await self.local("GET", "/v1/audit?limit=1000")
        return [(row["actor"], row["action"], row["subject"], row["result"]) for row in found["items"]]

    @property
    def database(self) -> Path:
        (path,) = self.folder.glob("state/*/control.db")
        return path


async def asked(session: aiohttp.ClientSession, method: str, url: str, body: object) -> tuple[int, dict]:
    async with session.request(method, url, **({} if body is None else {"json": body})) as answer:
        return answer.status, await answer.json(content_type=None)


@contextlib.asynccontextmanager
async def running(folder: Path, access: str = 'socket = "auto"', scheme: str = "http"):
    port = free_port()
    text = config(free_port(), "127.0.0.1:9", control=port, access=access, workers=1)
    text = text.replace("[[routes]]", '[services."trading:orders"]\nendpoints = ["127.0.0.1:9"]\n[[routes]]')
    async with turnout(folder, text) as proxy:
        yield Running(proxy, folder, f"{scheme}://127.0.0.1:{port}")


def drain(service: str) -> tuple[str, str, dict]:
    return "PATCH", f"/v1/services/{service}/endpoints/127.0.0.1:9", {"admin": "drain"}


@scenario
async def test_a_token_opens_what_its_role_and_namespaces_say_until_it_is_revoked(folder):
    async with running(folder) as at:
        made = await at.token("ci", "operator", namespaces=["trading"])
        text = made["token"]

        assert (await at.remote(*drain("trading:orders")))[0] == 401
        assert (await at.remote(*drain("trading:orders"), token=text))[0] == 200
        status, problem = await at.remote(*drain("app"), token=text)
        assert (status, problem["detail"]) == (
            403,
            "you are token ci, operator in trading; endpoint.change needs operator in default",
        )
        assert (await at.remote("POST", "/v1/stop", {}, token=text))[0] == 403
        _, seen = await at.remote("GET", "/v1/services", token=text)
        assert [row["name"] for row in seen["items"]] == ["trading:orders"]

        assert (await at.local("DELETE", f"/v1/tokens/{made['id']}"))[0] == 200
        assert (await at.remote(*drain("trading:orders"), token=text))[0] == 401
        assert (await at.local("GET", "/v1/tokens"))[1]["items"][0]["state"] == "revoked"


@scenario
async def test_every_change_and_every_refused_attempt_is_recorded_and_no_secret(folder):
    async with running(folder) as at:
        made = await at.token("ci", "viewer")
        await at.remote(*drain("app"), token=made["token"])
        await at.remote(*drain("app"))
        await at.local(*drain("app"))
        await at.local("POST", "/v1/reload", {})

        entries = await at.audit()
        (owner,) = {actor for actor, action, *_ in entries if action == "token.write"}
        assert [(*entry[:2], entry[3]) for entry in entries] == [
            (owner, "token.write", "ok"),
            ("ci", "endpoint.change", "refused"),
            ("", "endpoint.change", "refused"),
            (owner, "endpoint.change", "ok"),
            (owner, "proxy.reload", "ok"),
        ]
        assert "app" in entries[3][2]
        assert made["token"].split("_")[2] not in json.dumps((await at.local("GET", "/v1/audit"))[1])
        assert (await at.local("GET", "/v1/audit/verify"))[1]["ok"] is True


@scenario
async def test_tokens_and_the_log_outlive_an_upgrade_and_a_sudden_death(folder):
    async with running(folder) as at:
        text = (await at.token("ci", "deployer"))["token"]
        status, upgraded = await at.local("POST", "/v1/upgrade", {})
        assert (status, upgraded["pid"]) == (200, at.proxy.supervisor)
        await at.proxy.exit_code()
        assert (await at.remote("POST", "/v1/reload", {}, token=text))[0] == 200
        os.kill(upgraded["pid"], signal.SIGKILL)
        await until(lambda: at.proxy.said("serving goes on"))
        await at.proxy.start()
        await at.proxy.serving(times=3)

        assert (await at.remote("POST", "/v1/reload", {}, token=text))[0] == 200
        actions = [action for _, action, *_ in await at.audit()]
        assert actions == ["token.write", "proxy.upgrade", "proxy.reload", "proxy.reload"]
        assert (await at.local("GET", "/v1/audit/verify"))[1]["ok"] is True


@scenario
async def test_one_byte_changed_in_the_log_of_a_running_proxy_is_found(folder):
    async with running(folder) as at:
        for _ in range(5):
            await at.local("POST", "/v1/reload", {})
        with contextlib.closing(sqlite3.connect(at.database)) as database:
            database.execute("update audit set actor = 'roos' where n = 3")
            database.commit()

        _, verdict = await at.local("GET", "/v1/audit/verify")
        assert (verdict["ok"], verdict["broken"]["n"]) == (False, 3)


@scenario
async def test_many_wrong_tokens_are_held_up(folder):
    async with running(folder) as at:
        statuses = [(await at.remote("GET", "/v1/status", token="tnt_wrong"))[0] for _ in range(12)]
        refused = [entry for entry in await at.audit() if entry[3] == "refused"]

        assert statuses == [401] * 10 + [429] * 2
        assert len(refused) == 11


@scenario
async def test_over_tls_a_client_certificate_is_who_it_names(folder):
    authority = Authority()
    authority.leaf("127.0.0.1").write(folder)
    (folder / "ca.pem").write_text(authority.pem)
    access = (
        'socket = "auto"\ntls = { cert = "site.pem", key = "site.key", client_ca = "ca.pem" }\n'
        '[control.clients."ci.example"]\nrole = "operator"\nnamespaces = ["trading"]\n'
    )
    nobody = ssl.create_default_context(cadata=authority.pem)
    known = ssl.create_default_context(cadata=authority.pem)
    known.load_cert_chain(*authority.leaf("ci.example", client=True).write(folder, "client"))
    async with running(folder, access, "https") as at:
        assert (await at.remote(*drain("trading:orders"), tls=nobody))[0] == 401
        assert (await at.remote(*drain("trading:orders"), tls=known))[0] == 200
        assert (await at.remote(*drain("app"), tls=known))[0] == 403
        assert (await at.local(*drain("app")))[0] == 200, "the unix socket needs no TLS"
