"""How each peer is set up: equal work, one worker or thread, and nothing that holds it back.

Every peer keeps connections to the origin alive in a pool larger than the load needs, adds X-Forwarded-For,
writes no access log, and has timeouts long enough not to matter. Where a setting other than the default makes
a peer faster in this bench, it has that setting; `tuned` says which.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
SEARCH = [str(Path(sys.executable).parent), "/usr/local/sbin", "/usr/sbin", "/sbin"]


def program(name: str) -> str | None:
    """Where a program is: beside the running Python, on PATH, or where Debian puts servers."""
    return shutil.which(name, path=":".join([SEARCH[0], os.environ.get("PATH", ""), *SEARCH[1:]]))


@dataclass(frozen=True)
class Place:
    """Where a peer runs: its own folder, its port, the origin's port, the mode it is measured in."""

    folder: Path
    port: int
    origin: int
    mode: str
    tls: bool = False


@dataclass(frozen=True)
class Start:
    """What to run, and with which environment."""

    command: list[str]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    name: str
    binary: str
    version: list[str]
    setup: Callable[[Place], Start]
    tuned: str
    tls: bool = False
    """Whether it is set up for the modes with TLS."""

    def find(self) -> str | None:
        """The program's path, None when it is not installed."""
        if self.binary == "turnout":
            return sys.executable if importlib.util.find_spec("turnout") else None
        return program(self.binary)

    def version_text(self) -> str:
        path = self.find()
        if path is None:
            return ""
        done = subprocess.run([path, *self.version], capture_output=True, text=True, check=False)
        found = re.search(r"\d+\.\d+(\.\d+)?(-[\w.+]+)?", done.stdout + done.stderr)
        return found[0] if found else "unknown"


def turnout(at: Place) -> Start:
    file = at.folder / "turnout.toml"
    file.write_text(f"""
[proxy]
workers = 1
state = "{at.folder}/state"

[listeners.web]
bind = "127.0.0.1:{at.port}"
{'tls = { cert = "site.pem", key = "site.key" }' if at.tls else ""}

[services.origin]
endpoints = ["127.0.0.1:{at.origin}"]

[[routes]]
path = "/"
service = "origin"
""")
    return Start([sys.executable, "-m", "turnout", "run", str(file)])


def nginx(at: Place) -> Start:
    buffers = {
        "16k": "proxy_buffer_size 32k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;",
        "1m": "proxy_buffer_size 256k; proxy_buffers 8 256k; proxy_busy_buffers_size 1m;",
    }.get(at.mode.removeprefix("tls-"), "")
    certificate = (
        f"ssl_certificate {at.folder}/site.pem; ssl_certificate_key {at.folder}/site.key;"
        " ssl_protocols TLSv1.2 TLSv1.3;"
    )
    file = at.folder / "nginx.conf"
    file.write_text(f"""
worker_processes 1;
daemon off;
pid {at.folder}/nginx.pid;
error_log {at.folder}/nginx.err crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 18000; multi_accept on; }}
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 100000000;
    client_body_temp_path {at.folder}/body; proxy_temp_path {at.folder}/proxy;
    fastcgi_temp_path {at.folder}/fastcgi; uwsgi_temp_path {at.folder}/uwsgi;
    scgi_temp_path {at.folder}/scgi;
    upstream origin {{
        server 127.0.0.1:{at.origin};
        keepalive 512; keepalive_requests 100000000; keepalive_timeout 300s;
    }}
    server {{
        listen 127.0.0.1:{at.port} {"ssl" if at.tls else ""} backlog=4096;
        {certificate if at.tls else ""}
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            {buffers}
        }}
    }}
}}
""")
    return Start(
        [str(program("nginx")), "-p", str(at.folder), "-e", str(at.folder / "nginx.err"), "-c", str(file)]
    )


def haproxy(at: Place) -> Start:
    size = {"16k": 32768, "1m": 65536}.get(at.mode.removeprefix("tls-"), 16384)
    file = at.folder / "haproxy.cfg"
    file.write_text(f"""
global
    nbthread 1
    maxconn 9000
    tune.bufsize {size}
    tune.idle-pool.shared on
    tune.pool-high-fd-ratio 80
    tune.pool-low-fd-ratio 60
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
    option forwardfor
    http-reuse always
frontend web
    bind 127.0.0.1:{at.port} backlog 4096 {f"ssl crt {at.folder}/both.pem" if at.tls else ""}
    default_backend origin
backend origin
    server o 127.0.0.1:{at.origin} pool-max-conn -1 pool-purge-delay 300s
""")
    return Start([str(program("haproxy")), "-db", "-f", str(file)])


def envoy_tls(folder: Path) -> dict[str, Any]:
    pair = {
        "certificate_chain": {"filename": str(folder / "site.pem")},
        "private_key": {"filename": str(folder / "site.key")},
    }
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificates": [pair]},
            },
        }
    }


def envoy(at: Place) -> Start:
    def address(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "use_remote_address": True,
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "60s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{EXTENSIONS}.http.router.v3.Router",
                    "dynamic_stats": False,
                },
            }
        ],
    }
    many = 1000000
    limits = {
        "max_connections": many, "max_pending_requests": many, "max_requests": many, "max_retries": many,
    }  # fmt: skip
    config = {
        "static_resources": {
            "listeners": [
                {
                    "name": "web",
                    "address": address(at.port),
                    "filter_chains": [
                        {
                            **(envoy_tls(at.folder) if at.tls else {}),
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ],
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "origin",
                    "type": "STATIC",
                    "connect_timeout": "5s",
                    "circuit_breakers": {"thresholds": [limits]},
                    "load_assignment": {
                        "cluster_name": "origin",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(at.origin)}}]}],
                    },
                }
            ],
        }
    }
    file = at.folder / "envoy.json"
    file.write_text(json.dumps(config))
    return Start(
        [str(program("envoy")), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    )


def caddy(at: Place) -> Start:
    file = at.folder / "Caddyfile"
    file.write_text(f"""{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
    servers {{
        protocols h1
    }}
}}
http://:{at.port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{at.origin} {{
        transport http {{
            keepalive 300s
            keepalive_idle_conns 1024
            keepalive_idle_conns_per_host 1024
        }}
    }}
}}
""")
    home = {"HOME": str(at.folder), "XDG_CONFIG_HOME": str(at.folder), "XDG_DATA_HOME": str(at.folder)}
    return Start(
        [str(program("caddy")), "run", "--config", str(file), "--adapter", "caddyfile"],
        {"GOMAXPROCS": "1", **home},
    )


def traefik(at: Place) -> Start:
    dynamic = {
        "http": {
            "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "origin", "entryPoints": ["web"]}},
            "services": {
                "origin": {
                    "loadBalancer": {
                        "servers": [{"url": f"http://127.0.0.1:{at.origin}"}],
                        "serversTransport": "pool",
                    }
                }
            },
            "serversTransports": {"pool": {"maxIdleConnsPerHost": 1024}},
        }
    }
    (at.folder / "dynamic.json").write_text(json.dumps(dynamic))
    static = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"},
        "entryPoints": {
            "web": {
                "address": f"127.0.0.1:{at.port}",
                "transport": {"respondingTimeouts": {"idleTimeout": "300s"}},
            }
        },
        "providers": {"file": {"filename": str(at.folder / "dynamic.json"), "watch": False}},
    }
    (at.folder / "traefik.json").write_text(json.dumps(static))
    return Start([str(program("traefik")), f"--configFile={at.folder / 'traefik.json'}"], {"GOMAXPROCS": "1"})


PEERS = [
    Peer(
        "turnout", "turnout", ["-c", "import turnout; print(turnout.__version__)"], turnout, "defaults",
        tls=True,
    ),
    Peer(
        "nginx", "nginx", ["-v"], nginx,
        "multi_accept; upstream keepalive 512; proxy buffers of 32 kB for 16k and 256 kB for 1m", tls=True,
    ),
    Peer(
        "haproxy", "haproxy", ["-v"], haproxy,
        "http-reuse always; tune.bufsize 32 kB for 16k, 64 kB for 1m (better than splice-auto)", tls=True,
    ),
    Peer("envoy", "envoy", ["--version"], envoy, "no request id, no dynamic stats, no limits", tls=True),
    Peer("caddy", "caddy", ["version"], caddy, "HTTP/1 only; idle pool of 1024"),
    Peer("traefik", "traefik", ["version"], traefik, "maxIdleConnsPerHost 1024"),
]  # fmt: skip
