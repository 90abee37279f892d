"""The page at `/`: its headers, and what a person does with it in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from api_fakes import FakeEngine, say

FILES = sorted(path.name for path in (Path(__file__).parents[2] / "jaxserve" / "api" / "page").iterdir())
SPOKEN = '<think>hm</think>It is <script>alert("x")</script> & fine'
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def test_the_page_is_served_whole_with_a_strict_policy(api):
    page = api.http.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name in ["", *(f"page/{name}" for name in FILES)]:
        answer = api.http.get(f"/{name}")
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    asked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"page/style.css", "page/app.js"} <= set(asked)
    assert api.http.head("/").status_code == 200


@pytest.mark.parametrize("name", ["page/nothing.js", "page/../app.py", "page/..%2fapp.py", "page/"])
def test_nothing_else_is_served(api, name):
    assert api.http.get(f"/{name}").status_code == 404


@pytest.mark.parametrize("name", FILES)
def test_nothing_outside_is_asked_for(name):
    text = (Path(__file__).parents[2] / "jaxserve" / "api" / "page" / name).read_text()
    assert not re.search(r"https?://|//cdn|@import|innerHTML|\beval\b\(|\bstyle=|\bon[a-z]+=", text)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-quic"])


@pytest.fixture
def visit(browser, make_live):
    """Opens the page of a new server; whatever the browser complains of fails the test."""
    complaints, contexts = [], []

    def open_page(engine=None, *, phone=False, **options):
        server = make_live(engine, **options)
        contexts.append(browser.new_context(viewport={"width": 390 if phone else 1200, "height": 800}))
        page = contexts[-1].new_page()
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text) if said.type == "error" and "status of 4" not in said.text else None
            ),
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(server.url) or complaints.append(asked.url))
        page.goto(server.url)
        page.locator("#facts", has_text="context").wait_for()
        page.server = server
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def read_docs(visit):
    """Opens /docs of a new server, once Swagger UI has drawn it."""

    def open_docs(engine=None, **options):
        page = visit(engine, **options)
        page.goto(page.server.url + "/docs")
        page.locator(".opblock").first.wait_for()
        return page

    return open_docs


def run_example(page, operation, name):
    """Chooses an example of an operation and sends it; returns status and body that are shown."""
    block = page.locator(f"#operations-default-{operation}")
    block.locator(".opblock-summary-control").click()
    block.locator(".body-param .examples-select-element, .examples-select-element").first.select_option(name)
    block.locator("button.execute").click()
    shown = block.locator(".live-responses-table")
    shown.wait_for()
    return shown.locator(".response-col_status").nth(1).inner_text(), shown.inner_text(), block


def test_the_documents_are_drawn_offline_and_their_examples_run(read_docs):
    page = read_docs(FakeEngine(say("Paris")))
    assert page.title() == "jaxserve: the API"
    assert page.locator(".opblock").count() >= 16
    status, shown, block = run_example(page, "create_chat_completion", "A question")
    assert status.startswith("200")
    assert "Paris" in shown
    assert '"model": "fake"' in block.locator("textarea.body-param__text").input_value()
    (request,) = page.server.engine.requests
    assert request.sampling.temperature == 0
    assert page.locator("img[src*=validator]").count() == 0


def test_a_key_is_entered_in_the_documents(browser, make_live):
    server = make_live(api_keys=("secret",))
    page = browser.new_page()
    page.goto(server.url + "/docs")
    page.locator(".opblock").first.wait_for()
    status, _, block = run_example(page, "create_completion", "A beginning")
    assert status.startswith("401")
    assert "fake" not in page.content(), "who has shown no key learns no names"
    page.locator("button.authorize").first.click()
    page.fill(".auth-container input", "secret")
    page.click(".auth-btn-wrapper .authorize")
    page.click(".btn-done")
    text = block.locator("textarea.body-param__text")
    text.fill(text.input_value().replace("a name from GET /v1/models", "fake"))
    block.locator("button.execute").click()
    block.locator(".live-responses-table", has_text="Hello world").wait_for()
    page.close()


def test_the_documents_policy_and_files(api):
    for path in ("/docs", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/page/docs.js"):
        answer = api.http.get(path)
        assert answer.status_code == 200
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
    for path in ("/docs/nothing.js", "/docs/redoc.standalone.js", "/docs/..%2fcore.py", "/docs/"):
        assert api.http.get(path).status_code == 404


def ask(page, text):
    page.fill("#input", text)
    page.press("#input", "Enter")
    page.locator("#send:enabled").wait_for()


def test_a_conversation_with_everything_set(visit):
    page = visit(FakeEngine(say("Hello world")))
    page.fill("#system", "Be kind.")
    page.fill("[name=temperature]", "0.5")
    page.fill("[name=top_k]", "7")
    ask(page, "Hi")
    assert page.inner_text(".message.assistant") == "Hello world"
    assert "2 " not in page.inner_text(".message.user")
    assert "tokens" in page.inner_text("#metrics")
    ask(page, "Again")
    first, second = page.server.engine.requests
    assert (first.sampling.temperature, first.sampling.top_k) == (0.5, 7)
    prompt = bytes(token for token in second.prompt if token < 256).decode()
    assert prompt == "Be kind.HiHello worldAgain"
    page.click("#clear")
    assert page.locator(".message").count() == 0


def test_every_knob_of_the_contract_is_there(visit):
    page = visit()
    names = set(page.eval_on_selector_all("#knobs input", "inputs => inputs.map(input => input.name)"))
    knobs = {"temperature", "top_p", "top_k", "min_p", "typical_p", "frequency_penalty", "presence_penalty"}
    knobs |= {"repetition_penalty", "mirostat_target", "mirostat_lr", "seed", "max_tokens"}
    assert knobs <= names
    assert page.get_attribute("[name=top_k]", "max") == "100"


def test_what_the_model_writes_is_text(visit):
    page = visit(FakeEngine(say(SPOKEN)), chat_format="qwen3")
    ask(page, "Hi")
    assert '<script>alert("x")</script> & fine' in page.inner_text(".message.assistant")
    assert page.locator(".message script").count() == 0


def test_the_lens_shows_rivals_and_goes_on_from_one(visit):
    page = visit(FakeEngine(say("Hello world")))
    ask(page, "Hi")
    tokens = page.locator(".message.assistant .token")
    assert tokens.count() >= len("Hello world")
    tokens.nth(4).focus()
    page.keyboard.press("Enter")
    rivals = page.locator("#rivals button")
    assert rivals.count() == 5
    rivals.nth(1).click()
    page.locator("#send:enabled").wait_for()
    assert page.locator(".message.assistant").nth(1).inner_text().startswith("Hellp")
    told = page.server.engine.requests[-1].prompt
    assert bytes(told[-5:]) == b"Hellp"
    page.keyboard.press("Escape")
    page.uncheck("#lens")
    ask(page, "Plain")
    assert page.locator(".message.assistant").nth(2).locator(".token").count() == 0


def test_stop_ends_the_answer(visit):
    page = visit(FakeEngine(say("x" * 500), delay=0.02))
    page.fill("#input", "Hi")
    page.press("#input", "Enter")
    page.locator(".message.assistant", has_text="xxx").wait_for()
    page.keyboard.press("Escape")
    page.locator("#send:enabled").wait_for()
    assert len(page.inner_text(".message.assistant")) < 500


def test_errors_are_shown_and_a_schema_is_sent(visit):
    page = visit()
    page.fill("#schema", json.dumps({"type": "nonsense"}))
    ask(page, "Hi")
    assert "nonsense" in page.inner_text(".message.error") or "type" in page.inner_text(".message.error")


def test_an_api_key_is_asked_for(browser, make_live):
    server = make_live(api_keys=("secret",))
    page = browser.new_page()
    page.goto(server.url)
    page.locator("#facts", has_text="key").wait_for()
    page.fill("#key", "secret")
    page.press("#key", "Tab")
    page.locator("#facts", has_text="context").wait_for()
    page.close()


def test_on_a_phone_the_settings_fold(visit):
    page = visit(phone=True)
    assert not page.is_visible("#settings")
    page.click("#toggle")
    assert page.is_visible("#settings")
    page.click("#toggle")
    ask(page, "Hi")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
