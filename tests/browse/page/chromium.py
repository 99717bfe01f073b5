"""A headless browser for the tests of the page: the system's own, through Playwright."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser_path() -> str | None:
    """The browser of VIDEO_SAE_BROWSER, or one on the path; None if there is none."""
    named = os.environ.get("VIDEO_SAE_BROWSER")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright's, closed at the end."""
    from playwright.sync_api import sync_playwright

    path = browser_path()
    assert path is not None
    # Without its sandbox it also starts where tests run as root in a container; it only opens files made here.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, *, dark: bool = False, width: int = 1280, height: int = 800) -> Iterator[Any]:
    """A page in a context of its own; an error of its scripts fails the test."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if is_fault(message) else None)
    yield page
    context.close()
    assert errors == []


def is_fault(message: Any) -> bool:
    """Whether a message of the console is an error of the page; one of the network is none, since runs lack files."""
    return message.type == "error" and "Failed to load resource" not in message.text


def show(page: Any, address: str, hash_: str = "#/") -> None:
    """Go to an address of the page and wait until its view is there."""
    page.goto("about:blank")
    page.goto(address + hash_)
    settled(page)


def settled(page: Any) -> None:
    """Wait until the view of the present address is there."""
    until(page, "typeof videoSae !== 'undefined' && Boolean(videoSae.isSettled) && videoSae.isSettled()")


def until(page: Any, expression: str, timeout_s: float = 20) -> None:
    """Wait until a JavaScript expression is true; Playwright's own wait needs `eval`, which the policy forbids."""
    end = time.monotonic() + timeout_s
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < end, f"not true within {timeout_s} s: {expression}"
        page.wait_for_timeout(20)


def index_of(site: Path) -> str:
    return (site / "index.html").as_uri()
