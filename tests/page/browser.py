"""A headless Chromium for tests of pages, where the machine has one."""

import shutil
from contextlib import contextmanager

import pytest

NO_BROWSER = "no Chromium is installed"


@contextmanager
def chromium():
    """Start the machine's Chromium, or skip."""
    path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if path is None:
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, page, **settings):
    """Open a page in a context of its own; yields it, with what it should not have done.

    That are messages of errors, and requests beyond its own file.
    """
    context = browser.new_context(**settings)
    view, wrongs = context.new_page(), []
    view.on("console", lambda said: wrongs.append(said.text) if said.type == "error" else None)
    view.on("pageerror", lambda error: wrongs.append(str(error)))
    view.on("request", lambda one: wrongs.append(one.url) if _leaves(one.url, page) else None)
    view.goto(page.as_uri())
    if settings.get("java_script_enabled", True) and view.query_selector("#explore"):
        view.wait_for_selector("#explore[data-shown]")
    yield view, wrongs
    context.close()


def _leaves(address, page):
    return address != page.as_uri() and not address.startswith(("data:", "blob:"))
