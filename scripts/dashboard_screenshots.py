"""The pictures of docs/dashboard.md: `python scripts/dashboard_screenshots.py [FOLDER]`, by default docs/dashboard.

Launches a small real fleet over a synthetic zoo, has agents work on it for some minutes, and takes the pictures
meanwhile. Needs Chromium (scripts/browser.sh) and the `dev` dependencies.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright

from psserve.bench.load.options import LoadOptions
from psserve.bench.load.run import run_load
from psserve.bench.systems.fleet import launched
from psserve.bench.workloads.choice import WorkloadChoice

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("math", "code", "tools")
AGENTS = 4
WORK = {"sessions": None, "scale": 0.1, "think_s": 0.6}
"""Contexts that grow turn by turn, sent to one module after the other: the preset at a tenth of its lengths."""
WORK_S = 120
DESKTOP, PHONE = {"width": 1280, "height": 1240}, {"width": 375, "height": 812}
PICTURES: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESKTOP},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "device_scale_factor": 2, "color_scheme": "dark"},
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Take the pictures of docs/dashboard.md.")
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs" / "dashboard")
    folder = parser.parse_args().folder
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        print("dashboard_screenshots: there is no Chromium: run scripts/browser.sh", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    with fleet() as url:
        asyncio.run(picture(url, chromium, folder))
    return 0


@contextmanager
def fleet() -> Iterator[str]:
    """The URL of a fleet of random models."""
    from psserve.zoo.synthetic.zoo import build_zoo

    with tempfile.TemporaryDirectory(prefix="psserve-pictures-") as directory:
        zoo = Path(directory) / "zoo"
        build_zoo(zoo, modules=MODULES)
        with launched(zoo, ["--device", "cpu", "--kv-tokens", "16384", "--transfer", "nixl"], within_s=600) as running:
            yield running.url


async def picture(url: str, chromium: str, folder: Path) -> None:
    """Let agents work, then take every picture while they do."""
    sessions, _ = WorkloadChoice(preset="react", changes=WORK).sessions(MODULES)
    load = run_load(sessions, dict.fromkeys(MODULES, url), LoadOptions(concurrency=AGENTS))
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        agents = asyncio.create_task(load)
        await asyncio.sleep(WORK_S)
        for name, options in PICTURES.items():
            await take(browser, url, folder / f"{name}.png", options)
        agents.cancel()
        await browser.close()


async def take(browser: Browser, url: str, path: Path, options: dict[str, Any]) -> None:
    page = await browser.new_page(**options)
    await page.goto(f"{url}/dashboard")
    await page.locator("#requests tbody tr").first.wait_for(timeout=60_000)
    await page.wait_for_timeout(3000)  # for the second answer, and lines that grow
    await page.screenshot(path=path)
    await page.close()


if __name__ == "__main__":
    sys.exit(main())
