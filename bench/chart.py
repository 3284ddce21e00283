"""The result as one SVG: a panel for each mode, a bar for each peer, for light and dark pages."""

from __future__ import annotations

from html import escape
from typing import Any

PANEL_W, GAP, COLUMNS = 400, 24, 2
BAR_H, BAR_STEP, TOP = 14, 22, 46
NAME_W, VALUE_W = 62, 92
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 13px; }
  .note { fill: #57606a; font-size: 11px; }
  .bar { fill: #afb8c1; }
  .own { fill: #0969da; }
  .strong { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note { fill: #8d96a0; }
    .bar { fill: #484f58; }
    .own { fill: #4493f8; }
  }
"""


def text(x: float, y: float, what: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(what)}</text>'


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def panel(x: float, y: float, mode: dict[str, Any]) -> list[str]:
    """Bars from the lowest value to the highest, on a scale that starts at zero."""
    rows = sorted((row["value"], name) for name, row in mode["peers"].items() if row["value"] is not None)
    out = [text(x, y + 14, mode["title"], "title")]
    out.append(
        text(
            x, y + 30, f"{mode['unit'].replace('us/', 'CPU microseconds per ').replace('/', ' per ')}", "note"
        )
    )
    widest = max((value for value, _ in rows), default=1.0) or 1.0
    room = PANEL_W - NAME_W - VALUE_W
    for i, (value, name) in enumerate(rows):
        top = y + TOP + i * BAR_STEP
        own = name == "turnout"
        width = max(1.0, max(value, 0) / widest * room)
        out.append(text(x, top + 11, name, "strong" if own else ""))
        out.append(
            f'<rect x="{x + NAME_W:g}" y="{top:g}" width="{width:.1f}" height="{BAR_H}" rx="2" '
            f'class="{"own" if own else "bar"}"/>'
        )
        out.append(text(x + NAME_W + width + 6, top + 11, shown(value), "strong" if own else "note"))
    return out


def draw(result: dict[str, Any]) -> str:
    modes = list(result["modes"].values())
    rows = max((len(m["peers"]) for m in modes), default=0)
    panel_h = TOP + rows * BAR_STEP + GAP
    width = COLUMNS * PANEL_W + (COLUMNS + 1) * GAP
    height = (len(modes) + COLUMNS - 1) // COLUMNS * panel_h + 2 * GAP
    body: list[str] = []
    for i, mode in enumerate(modes):
        body += panel(GAP + i % COLUMNS * (PANEL_W + GAP), GAP / 2 + i // COLUMNS * panel_h, mode)
    versions = ", ".join(f"{name} {peer['version']}" for name, peer in result["peers"].items())
    body.append(text(GAP, height - 26, f"Shorter is better. One worker each. {versions}", "note"))
    body.append(
        text(GAP, height - 10, f"{result['machine']['cpu']}, Linux {result['machine']['kernel']}", "note")
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" '
            f'height="{height:g}" role="img" aria-label="Turnout beside other proxies">',
            f"<style>{STYLE}</style>",
            *body,
            "</svg>",
        ]
    )
