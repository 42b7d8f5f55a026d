"""A real Chromium without a window, and what went wrong in it."""

import contextlib
import shutil
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def browsing():
    """Start a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page of a fresh browser profile that notes every complaint and every request.

    Attributes:
        page: Playwright's page.
        complaints: Console errors and warnings (a CSP violation is one), uncaught errors, failed requests.
        requests: Addresses that were asked for.
    """

    def __init__(self, browser, base_url, **options):
        self.base_url = base_url
        self.context = browser.new_context(base_url=base_url, **options)
        self.context.set_default_timeout(20_000)
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def strangers(self):
        """Return the requests that went anywhere else."""
        own = urlsplit(self.base_url).netloc
        return [url for url in self.requests if urlsplit(url).netloc != own]


@contextlib.contextmanager
def visiting(browser, base_url, **options):
    """Open a page; fails if there was any complaint, or a request to anywhere else."""
    visit = Visit(browser, base_url, **options)
    try:
        yield visit
        assert visit.complaints == []
        assert visit.strangers() == []
    finally:
        visit.context.close()
