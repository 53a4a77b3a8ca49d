"""A real headless Chromium that opens a page, lets a script look around in it, and says what it saw."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from html import escape, unescape
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
NARROWEST = 500
WATCH = """<script>
window.faults = [];
addEventListener('error', e => faults.push(String(e.message || e.target.src)), true);
for (const kind of ['error', 'warn']) console[kind] = (...words) => faults.push(words.join(' '));
</script>"""
REPORT = """<script>
addEventListener('load', () => setTimeout(() => {
  let seen;
  try { seen = (() => { %s })() } catch (error) { seen = {thrown: String(error)} }
  seen.faults = window.faults;
  seen.opened_ms = performance.getEntriesByType('navigation')[0].loadEventEnd;
  seen.requests = performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:'));
  const said = document.createElement('pre');
  said.id = 'seen';
  said.textContent = JSON.stringify(seen);
  window.parent.document.body.append(said);
}, 50));
</script>"""


def look(page: Path, script: str, width: int = 1280, screenshot: Path | None = None) -> dict[str, Any]:
    """What `script` (the body of a function) returns in the page as a browser of this width shows it.

    Beside it: `faults` (errors and warnings of the console), `opened_ms` until everything was loaded, `requests` for
    anything that was not in the page.
    """
    text = page.read_text(encoding="utf-8").replace("<head>", f"<head>{WATCH}", 1)
    text = text.replace("</body>", f"{REPORT % script}</body>")
    if width < NARROWEST:  # windows do not get as narrow as a phone, frames do
        text = f'<body style="margin:0"><iframe style="border:0" width="{width}" height="4000" srcdoc="{escape(text)}">'
    with tempfile.TemporaryDirectory() as folder:
        watched = Path(folder) / "page.html"
        watched.write_text(text, encoding="utf-8")
        dom = _chromium(folder, width, "--dump-dom", watched.as_uri()).stdout
        if screenshot is not None:
            _chromium(folder, width, f"--screenshot={screenshot}", watched.as_uri())
    found = re.findall(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-500:]
    return json.loads(unescape(found[-1]))


def print_page(page: Path, target: Path) -> None:
    """The page on paper, as PDF."""
    with tempfile.TemporaryDirectory() as folder:
        _chromium(folder, 1280, f"--print-to-pdf={target}", "--no-pdf-header-footer", page.resolve().as_uri())


def _chromium(profile: str, width: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        f"--user-data-dir={profile}/profile",
        f"--window-size={max(width, NARROWEST)},4000",
        "--virtual-time-budget=3000",
        *words,
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DBUS")}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=clean)
