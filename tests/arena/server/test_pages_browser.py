"""The pages in a real Chromium: they move by themselves, can be read and used, and reach nothing but their server."""

import itertools
import re
import subprocess
import sys

import httpx
import pytest

from arena.types import TimeStep, transition
from tests.arena.server.browser import CHROMIUM, browsing, visiting
from tests.arena.server.fake_pages_hub import DUEL, SOLO, FakeHub, guarded_app, open_app, serving, solo

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
HOSTILE = "</pre><script>window.attacked = 1</script><img src=x onerror='window.attacked = 1'>\u202e\x1b[2J"


@pytest.fixture(scope="module")
def browser():
    with browsing() as browser:
        yield browser


@pytest.fixture
def hub():
    return FakeHub()


@pytest.fixture
def site(hub):
    with serving(open_app(hub)) as url:
        yield url


def stay(page):
    """Leave a sign in the page that a reload would wipe out."""
    page.evaluate("window.sign = 1")


def stayed(page):
    return page.evaluate("window.sign") == 1


def test_a_live_session_moves_in_the_list_without_a_reload(browser, hub, site):
    session = hub.session("s-moving")
    with visiting(browser, site) as visit:
        page = visit.page
        page.goto("/sessions")
        stay(page)
        for index in (1, 2):
            session.add(solo("next", 0.5), {"player": "go"})
            page.wait_for_selector(f"#live-s-moving td.number:text-is('{index}')")
        hub.session("s-new")
        page.wait_for_selector("#live-s-new")
        session.finish()
        page.wait_for_selector("#finished-s-moving")
        assert page.locator("#live-s-moving").count() == 0
        assert page.locator("#live-s-new").count() == 1
        assert stayed(page)


def test_the_focus_stays_where_it_is_while_the_list_moves(browser, hub, site):
    session = hub.session("s-moving")
    with visiting(browser, site) as visit:
        page = visit.page
        page.goto("/sessions")
        page.locator("#live-s-moving a").focus()
        hub.session("s-newer")
        session.add(solo("next", 0.5), {"player": "go"})
        page.wait_for_selector("#live-s-newer")
        page.wait_for_selector("#live-s-moving td.number:text-is('1')")
        assert page.evaluate("document.activeElement.closest('tr').id") == "live-s-moving"


def test_a_transcript_grows_while_it_is_watched_and_ends_with_the_verdict(browser, hub, site):
    session = hub.session()
    with visiting(browser, site) as visit:
        page = visit.page
        page.goto("/sessions")
        page.get_by_role("link", name="s-1").click()
        page.wait_for_selector("#step-0")
        stay(page)
        session.add(solo("It is higher.", 0.0, legal=("1", "2")), {"player": "3"})
        page.wait_for_selector("#step-1")
        page.locator("#step-1 summary").click()
        session.add(solo("3 is right!", 1.0, ending="guessed"), {"player": "4"})
        page.wait_for_selector("#step-2 >> text=terminated: guessed")
        assert page.locator("#step-1 details").get_attribute("open") is not None
        session.finish()
        page.get_by_role("heading", name="Verdict").wait_for()
        page.get_by_text("This does not change any more.").wait_for()
        assert page.locator(".step").evaluate_all("steps => steps.map((step) => step.id)") == [
            "step-0",
            "step-1",
            "step-2",
        ]
        assert page.locator("#pause").is_hidden()
        assert stayed(page)


def test_a_finished_transcript_asks_for_nothing_more(browser, hub, site):
    hub.session().finish()
    with visiting(browser, site) as visit:
        visit.page.goto("/sessions/s-1")
        visit.page.wait_for_timeout(1500)
        assert [url for url in visit.requests if "fragment" in url] == []


def test_updates_can_be_paused_and_go_on(browser, hub, site):
    session = hub.session()
    with visiting(browser, site) as visit:
        page = visit.page
        page.goto("/sessions/s-1")
        button = page.get_by_role("button", name="Pause updates")
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        session.add(solo("next"), {"player": "go"})
        asked = len(visit.requests)
        page.wait_for_timeout(2500)
        assert len(visit.requests) <= asked + 1  # one may have been on its way
        button.click()
        page.wait_for_selector("#step-1")


def test_a_server_that_comes_back_is_heard_again(browser, hub):
    hub.session("s-1")
    with serving(open_app(hub)) as url, visiting(browser, url) as visit:
        page = visit.page
        page.goto("/sessions")
        page.route("**/*fragment*", lambda route: route.abort())
        page.get_by_text("No answer from the server; trying again.").wait_for()
        page.unroute("**/*fragment*")
        hub.session("s-2")
        page.wait_for_selector("#live-s-2")
        page.get_by_text("Updates every second.").wait_for()
        assert all("ERR_FAILED" in complaint for complaint in visit.complaints)
        visit.complaints.clear()


def test_a_step_can_be_linked_to_on_whatever_page_it_stands(browser, hub, site):
    session = hub.session()
    for index in range(1, 450):
        session.add(solo(f"observation {index}"), {"player": f"action {index}"})
    session.finish()
    with visiting(browser, site) as visit:
        page = visit.page
        page.goto("/sessions/s-1#step-317")
        page.wait_for_selector("#step-317:target")
        assert page.evaluate("Math.abs(document.getElementById('step-317').getBoundingClientRect().top) < innerHeight")
        page.get_by_role("link", name="Next").click()
        page.wait_for_selector("#step-449")
        assert page.locator(".step").count() == 50


def test_nothing_that_was_written_by_others_runs(browser, hub, site):
    session = hub.session("s-1", env=DUEL.id, task=HOSTILE, seats=(HOSTILE, "right"), owner=HOSTILE)
    hub.instructions = HOSTILE
    with visiting(browser, site) as visit:
        page = visit.page
        for path in ("/sessions", f"/environments/{SOLO.id}", "/sessions/s-1"):
            page.goto(path)
            assert page.locator("img").count() == 0
        session.add(TimeStep({HOSTILE: transition(HOSTILE, 1.0)}, ("right",)), {HOSTILE: HOSTILE})
        page.wait_for_selector("#step-1")
        assert page.locator("img").count() == 0
        assert page.locator("#step-1 .mark").first.is_visible()
        assert page.evaluate("window.attacked") is None


def test_the_policy_really_stops_scripts_styles_and_strangers(browser, hub, site):
    with visiting(browser, site) as visit:
        page = visit.page
        page.goto("/sessions")
        page.evaluate(
            """() => {
                for (const [tag, text] of [["script", "window.attacked = 1"], ["style", "h1 { display: none }"]]) {
                    const element = document.createElement(tag);
                    element.textContent = text;
                    document.body.append(element);
                }
                const image = new Image();
                image.src = "http://127.0.0.1:9/x.png";
                document.body.append(image);
            }"""
        )
        assert page.evaluate("window.attacked") is None
        assert page.get_by_role("heading", level=1).is_visible()
        page.wait_for_timeout(200)
        assert len(visit.complaints) == 3
        assert all("Content Security Policy" in complaint for complaint in visit.complaints)
        assert visit.strangers() == ["http://127.0.0.1:9/x.png"]
        visit.complaints.clear()
        visit.requests.clear()


def test_a_browser_logs_in_reads_and_logs_out(browser, hub):
    hub.session()
    with serving(guarded_app(hub)) as url, visiting(browser, url) as visit:
        page = visit.page
        page.goto("/sessions/s-1")
        page.get_by_label("Bearer token").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        assert [complaint for complaint in visit.complaints if "401" not in complaint] == []
        visit.complaints.clear()
        page.get_by_label("Bearer token").fill("good-token")
        page.get_by_role("button", name="Log in").click()
        page.wait_for_selector("#step-0")
        assert page.evaluate("document.cookie") == ""
        hub.sessions["s-1"].add(solo("more"), {"player": "go"})
        page.wait_for_selector("#step-1")
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Bearer token").wait_for()
        page.goto("/sessions")
        assert page.url.endswith("/login?next=/sessions")


# -- the real server ------------------------------------------------------------------------------------------------


@pytest.fixture
def arena_server():
    """An `arena serve` of its own; gives its address."""
    command = [sys.executable, "-c", "import arena.cli; arena.cli.main()", "serve", "--port", "0", "--workers", "1"]
    server = subprocess.Popen(
        [*command, "--env", "text/guess-v0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with server:
        try:
            greeting = server.stdout.readline()
            yield re.search(r"http://127\.0\.0\.1:\d+", greeting).group()
        finally:
            server.terminate()
            server.wait(60)


def test_a_game_on_the_real_server_is_watched_from_its_first_step_to_its_verdict(browser, arena_server):
    with httpx.Client(base_url=arena_server) as player, visiting(browser, arena_server) as visit:
        page = visit.page
        page.goto("/")
        page.get_by_role("link", name="text/guess-v0").click()
        page.get_by_text("Guesses allowed before the game is lost.").wait_for()
        page.get_by_role("link", name="Sessions").click()
        page.get_by_text("Nobody is playing now.").wait_for()
        stay(page)
        made = player.post(
            "/v1/sessions", json={"env": "text/guess-v0", "key": "watched-1", "task": "range-8", "seed": 1}
        )
        session, owner = made.json()["session"], {"Arena-Session": made.json()["capability"]}
        page.get_by_role("link", name=session).wait_for()
        assert stayed(page)
        page.get_by_role("link", name=session).click()
        page.wait_for_selector("#step-0 >> text=I think of a number from 1 to 8.")
        stay(page)
        for guess in range(1, 9):
            step = {"index": guess, "actions": {"player": str(guess)}}
            stepped = player.post(f"/v1/sessions/{session}/steps", json=step, headers=owner).raise_for_status().json()
            page.wait_for_selector(f"#step-{guess} .action >> text='{guess}'")
            if "end" in stepped:
                break
        page.wait_for_selector(f"#step-{guess} >> text=terminated: guessed")
        page.get_by_role("heading", name="Verdict").wait_for()
        assert page.locator(f"#step-{guess} .reward").inner_text() == "reward +1"
        assert page.locator("#verdict code").inner_text() == stepped["end"]["digest"]
        assert stayed(page)
        player.delete(f"/v1/sessions/{session}", headers=owner).raise_for_status()
        page.goto("/sessions")
        page.locator("#finished").get_by_role("link", name=session).click()
        assert page.locator(".step").count() == guess + 1
        page.get_by_text("1 (solved)").first.wait_for()


# -- what everybody can use -----------------------------------------------------------------------------------------

FACTS = """() => { const all = (found) => [...document.querySelectorAll(found)]; return {
    language: document.documentElement.lang,
    title: document.title,
    headings: all("h1, h2, h3, h4").map((heading) => Number(heading.tagName[1])),
    landmarks: ["header", "nav", "main"].map((name) => document.querySelectorAll(name).length > 0),
    bare_tables: all("table").filter((table) => !table.caption?.textContent.trim()).length,
    bare_headers: document.querySelectorAll("th:not([scope])").length,
    unnamed: all("nav, [role=region]").filter((part) => {
        const by = part.getAttribute("aria-labelledby");
        return !part.getAttribute("aria-label") && !(by && document.getElementById(by)?.textContent.trim());
    }).length,
    unlabelled: all("input:not([type=hidden])").filter((input) => !input.labels.length).length,
    empty_links: all("a, button").filter((link) => !link.textContent.trim()).length,
    twice: all("[id]").map((part) => part.id).filter((id, at, ids) => ids.indexOf(id) !== at),
    overflow: document.documentElement.scrollWidth - innerWidth,
}}"""


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("path", ["/", "/sessions", "/sessions/s-1", "/sessions/s-2", f"/environments/{SOLO.id}"])
def test_a_page_is_built_so_that_anybody_can_use_it(browser, hub, site, path, width):
    hub.session("s-1").add(solo("x" * 5000, 1.0, legal=("a", "b")), {"player": "y" * 5000})
    duel = hub.session("s-2", env=DUEL.id, seats=("left", "right"))
    duel.finish()
    with visiting(browser, site, viewport={"width": width, "height": 800}) as visit:
        visit.page.goto(path)
        facts = visit.page.evaluate(FACTS)
    headings = facts.pop("headings")
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))
    assert facts.pop("title").endswith(" · Arena")
    assert facts == {
        "language": "en", "landmarks": [True, True, True], "bare_tables": 0, "bare_headers": 0, "unnamed": 0,
        "unlabelled": 0, "empty_links": 0, "twice": [], "overflow": 0,
    }  # fmt: skip


def test_the_keyboard_reaches_every_link_and_the_focus_is_seen(browser, hub, site):
    hub.session("s-1")
    with visiting(browser, site) as visit:
        page = visit.page
        page.goto("/sessions")
        reached = []
        for _ in range(8):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.innerText.split('\\n')[0].trim()"))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        assert reached[:5] == ["Skip to the content", "Environments", "Sessions", "API", "Pause updates"]
        assert reached[5:] == ["1 live session", "s-1", "Finished not long ago"]
        page.goto("/sessions")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"


def test_dark_and_light_are_what_the_reader_prefers(browser, hub, site):
    grounds = []
    for scheme in ("light", "dark"):
        with visiting(browser, site, color_scheme=scheme) as visit:
            visit.page.goto("/")
            grounds.append(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(251, 251, 250)", "rgb(20, 23, 27)"]


def test_a_page_can_be_read_without_script(browser, hub, site):
    hub.session().add(solo("Without script."), {"player": "look"})
    with visiting(browser, site, java_script_enabled=False) as visit:
        visit.page.goto("/sessions/s-1")
        assert visit.page.get_by_text("Without script.").is_visible()
        assert visit.page.locator("#pause").is_hidden()
