"""The dashboard in a real browser: Chromium without a window, driven by Playwright, before a router and fake workers.

Skipped where there is no Chromium (scripts/browser.sh installs it).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Page, async_playwright, expect

from psserve.contracts.router_config import RouterConfig
from psserve.router.app import make_app
from tests.ports import own_ports
from tests.router.conftest import PATIENCE_S, Fleet, make_config

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=alert(1)>" + "-and-very-long" * 8
PHONE = {"width": 375, "height": 700}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here: run scripts/browser.sh")
expect.set_options(timeout=PATIENCE_S * 1000)

Serve = Callable[..., Awaitable[web.AppRunner]]


@pytest.fixture(scope="module")
def debugging_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the one Chromium of all these tests takes orders."""
    profile = tmp_path_factory.mktemp("chromium")
    # No sandbox: it needs rights that containers rarely have, and what is looked at is ours.
    options = ["--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    assert CHROMIUM is not None
    process = subprocess.Popen([CHROMIUM, *options], stderr=subprocess.DEVNULL)
    port = profile / "DevToolsActivePort"
    while not (port.exists() and port.read_text()):
        assert process.poll() is None, "chromium ended at its start"
        time.sleep(0.05)
    yield port.read_text().split()[0]
    process.terminate()
    process.wait()


@pytest.fixture
async def page(debugging_port: str) -> AsyncIterator[Page]:
    """A page whose scripts may not fail and which may ask nobody but the router."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(f"http://127.0.0.1:{debugging_port}")
        context = await browser.new_context()
        page = await context.new_page()
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: _is_ours(request.url) or trouble.append(request.url))
        yield page
        await context.close()
    assert trouble == []


def _is_ours(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "data:image/svg+xml,"))


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts routers, each on a port of its own or on a given one."""
    runners: list[web.AppRunner] = []

    async def start(config: RouterConfig, port: int = 0) -> web.AppRunner:
        runner = web.AppRunner(make_app(config), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        runners.append(runner)
        return runner

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_numbers_change_with_requests(fleet: Fleet, page: Page) -> None:
    await page.goto(fleet.url + "/dashboard")
    await expect(page.locator("#health")).to_have_text("3 servers ready")
    await expect(page.locator("#curl")).to_contain_text(f"curl {fleet.url}/v1/chat/completions")
    await fleet.stream()
    await expect(page.locator("#requests tbody tr")).to_have_count(1)
    await expect(page.locator("#links g.flowing")).to_have_count(1)
    fleet.code.faults.append("status_400")
    await fleet.complete(model="code")
    await expect(page.locator("#requests tbody tr.failed")).to_contain_text("code 400")
    await expect(page.locator("#figures")).to_contain_text("1 × 400")


async def test_it_says_when_the_router_is_lost_and_goes_on_after_a_restart(
    fleet: Fleet, page: Page, serve: Serve
) -> None:
    config = make_config(fleet.prefill, fleet.math, fleet.code)
    (port,) = own_ports(1)
    first = await serve(config, port)
    await page.goto(f"http://127.0.0.1:{port}/dashboard")
    await expect(page.locator("#live")).to_have_text("Live")
    await first.cleanup()
    await expect(page.get_by_role("alert").first).to_contain_text("does not answer")
    await serve(config, port)
    await expect(page.get_by_role("alert").first).to_contain_text("The router restarted")
    await expect(page.locator("#live")).to_have_text("Live")


async def test_hostile_and_long_names_stay_text_and_fit_a_phone(fleet: Fleet, page: Page, serve: Serve) -> None:
    fleet.math.module = HOSTILE
    config = make_config(fleet.prefill, fleet.math, fleet.code, modules=[{"name": HOSTILE}, {"name": "code"}])
    router = await serve(config)
    url = f"http://127.0.0.1:{router.addresses[0][1]}"
    await page.set_viewport_size(PHONE)
    await page.goto(url + "/dashboard")
    await expect(page.locator("#curl")).to_contain_text(HOSTILE)
    await expect(page.locator("#health")).to_have_text("3 servers ready")
    async with aiohttp.ClientSession() as http:
        await http.post(url + "/v1/completions", json={"model": HOSTILE, "prompt": "some prompt", "max_tokens": 3})
    await expect(page.locator("#requests tbody tr")).to_contain_text(HOSTILE)
    await expect(page.locator("#decodes")).to_contain_text(HOSTILE)
    assert await page.locator("main img").count() == 0
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


LEASES = """\
psserve_kv_leases 2.0
psserve_kv_lease_tokens 300.0
psserve_kv_lease_age_seconds 61.0
"""


async def test_one_pool_is_drawn_with_what_is_lent_and_each_modules_own(
    make_fleet: Callable[..., Awaitable[Fleet]], page: Page
) -> None:
    fleet = await make_fleet(one_pool=True)
    fleet.prefill.metrics_page = LEASES
    await page.goto(fleet.url + "/dashboard")
    await expect(page.locator("#fleet-note")).to_contain_text("One KV pool")
    lent = "KV in use 320 of 2,048 tokens, 300 lent to 2 requests (the oldest for 61 s)"
    await expect(page.locator("#prefills .pool")).to_contain_text(lent)
    await expect(page.locator("#decodes .pool").first).to_have_text("Own KV in use 320 of 2,048 tokens")
    await expect(page.locator("#prefills .meter .lent")).to_have_attribute("style", re.compile(r"width: 14\.6"))


async def test_it_asks_for_the_key(make_fleet: Callable[..., Awaitable[Fleet]], page: Page) -> None:
    fleet = await make_fleet(api_key="secret")
    await page.goto(fleet.url + "/dashboard")
    await page.get_by_label("API key").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.locator("#key-error")).to_contain_text("Refused: ")
    await page.get_by_label("API key").fill("secret")
    await page.keyboard.press("Enter")
    await expect(page.locator("#health")).to_have_text("3 servers ready")
    await expect(page.locator("#curl")).not_to_contain_text("secret")


async def test_keys_move_a_chart_s_cursor(fleet: Fleet, page: Page) -> None:
    await page.goto(fleet.url + "/dashboard")
    chart = page.get_by_role("img", name="Output")
    await chart.focus()
    await page.keyboard.press("ArrowLeft")
    await expect(chart).to_have_attribute("aria-label", "Output, 5 s ago: all modules –")
