"""Notebooks 01, 05 and 06 in a real browser: JupyterLab on loopback, headless Chromium driven by Playwright.

Where there is no Chromium these tests are not run, and pytest says so; with PHI_LAB_BROWSER=required, as in CI, that is
an error.
"""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from html_page import BROWSER

from phi_lab.lab.environment import ROOT
from phi_lab.pipeline import working_copies

REQUIRED = os.environ.get("PHI_LAB_BROWSER") == "required"
TOKEN = "a-token-of-the-tests"
PAGE = ".jp-NotebookPanel"
ERROR = "[data-mime-type='application/vnd.jupyter.error']"
MINUTES = 60_000  # milliseconds, in which Playwright counts
pytestmark = [
    pytest.mark.slow, pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(BROWSER is None and not REQUIRED, reason="NOT RUN: there is no Chromium on this computer"),
]


# ------------------------------------------------------------------ a server and a page


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(address, folder of the copies) of a JupyterLab that nobody's settings reach."""
    folder, own = tmp_path_factory.mktemp("copies"), tmp_path_factory.mktemp("jupyter")
    working_copies.make_copies(folder, log=lambda line: None)
    own_folders = {f"JUPYTER_{name}_DIR": str(own / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own_folders |= {f"JUPYTERLAB_{name}_DIR": str(own / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    environment = os.environ | own_folders | {
        "PHI_LAB_RUN": str(own / "run"), "PHI_LAB_PROFILE": "smoke", "PHI_LAB_SEED": "0", "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "jupyterlab", folder, "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root",
               f"--IdentityProvider.token={TOKEN}", "--ServerApp.root_dir=" + str(folder)]
    log = own / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
    try:
        yield address(own / "runtime", process, log), folder
    finally:
        process.terminate()
        process.wait(60)


def address(runtime, process, log):
    """Where the server listens, as it says in its runtime folder."""
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        for path in runtime.glob("jpserver-*.json"):
            try:
                return json.loads(path.read_text())["url"]
            except ValueError:  # it is being written
                pass
        time.sleep(0.1)
    raise AssertionError(f"no server after a minute: {log.read_text()}")


@pytest.fixture(scope="module")
def chromium():
    assert BROWSER, "PHI_LAB_BROWSER=required, and there is no Chromium: on Debian, apt-get install chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(chromium, address, name):
    """A notebook's page. Whatever the page reports as an error, or asks of another computer, fails the test."""
    context, complaints = chromium.new_context(viewport={"width": 1280, "height": 900}), []
    context.set_default_timeout(3 * MINUTES)  # a busy machine is slow, which is no fault of the page
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(f"asked {request.url}")
            if not request.url.startswith((address, address.replace("http", "ws"), "data:", "blob:")) else None)
    try:
        # a workspace of its own: in the shared one JupyterLab opens the pages of earlier tests again, and a cell that
        # is run while one of their kernels is idle and this page has none yet asks for a kernel in a dialog
        page.goto(f"{address}lab/workspaces/{name.partition('_')[0]}/tree/{name}?token={TOKEN}")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        yield page
        assert not complaints
    finally:
        context.close()


def menu(page, name, entry):
    """Choose an entry of the main menu."""
    page.locator(".lm-MenuBar-itemLabel", has_text=re.compile(f"^{name}$")).click()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile(f"^{entry}$")).click()


def run_all(page, minutes):
    """Run all cells, and wait until each has a number. Fails where a cell raised."""
    prompts = f"[...document.querySelectorAll('{PAGE} .jp-CodeCell .jp-InputPrompt')].map(one => one.textContent)"
    from playwright.sync_api import TimeoutError

    for _ in range(10):  # while JupyterLab is still busy with itself the entry is there and does nothing
        menu(page, "Run", "Run All Cells")
        try:
            page.wait_for_function(f"{prompts}.some(one => one.includes('*'))", timeout=20_000)
            break
        except TimeoutError:
            page.keyboard.press("Escape")
    else:
        raise AssertionError("no cell runs")
    page.wait_for_function(
        f"{prompts}.every(one => /[0-9]/.test(one)) || document.querySelector(\"{ERROR}\")",
        timeout=minutes * MINUTES, polling=500,
    )
    errors = page.locator(ERROR)
    assert errors.count() == 0, errors.first.inner_text()


def cell(page, source):
    """The code cell whose source contains this text."""
    return page.locator(f"{PAGE} .jp-CodeCell", has=page.locator(".jp-InputArea-editor", has_text=source)).first


def wait_until(page, condition, seconds=180):
    """Wait until a function without arguments returns something true, and return that."""
    for _ in range(seconds * 10):
        if value := condition():
            return value
        page.wait_for_timeout(100)
    raise AssertionError("it did not happen")


def write(page, where, source):
    """Replace the source of a cell and run it, and the cell after it."""
    where.locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    page.keyboard.press("Shift+Enter")
    page.keyboard.press("Shift+Enter")


def save(page, path):
    """Save as people do, and return the file's cells once they have changed."""
    before = path.stat().st_mtime_ns
    page.keyboard.press("Control+S")

    def written():
        try:
            return path.stat().st_mtime_ns != before and json.loads(path.read_text())["cells"]
        except ValueError:  # half of it is
            return None

    return wait_until(page, written)


def slide(where, key, times=4):
    """Move a slider by keys."""
    handle = where.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.focus()
    for _ in range(times):
        handle.press(key)


# ------------------------------------------------------------------ the pages


def test_distillation_with_its_exercise_and_its_slider(server, chromium):
    address, folder = server
    path = folder / "01_distillation.ipynb"
    with opened(chromium, address, path.name) as page:
        run_all(page, minutes=8)
        wrong = "def keep_questions(rollouts, low, high):\n    return {name for name, verdict in rollouts}"
        write(page, cell(page, "def keep_questions"), wrong)
        verdict = cell(page, "checks.KEEP_QUESTIONS.use").locator(".jp-OutputArea")
        wait_until(page, lambda: "wrong, because" in verdict.inner_text())
        right = ("def keep_questions(rollouts, low, high):\n    groups = {}\n    for name, verdict in rollouts:\n"
                 "        groups.setdefault(name, []).append(verdict == 'right')\n"
                 "    return {name for name, one in groups.items() if low <= sum(one) / len(one) <= high}")
        write(page, cell(page, "def keep_questions"), right)
        wait_until(page, lambda: "right" in (said := verdict.inner_text()) and "wrong, because" not in said)

        widget = cell(page, "widgets.filters")
        moved(page, widget)
        saved = save(page, path)
        assert any("sum(one) / len(one)" in "".join(one["source"]) for one in saved)
        page.reload()  # the kernel lives on, as it does when a tab is closed
        cell(page, "widgets.filters").locator("img.widget-image").wait_for()
        moved(page, cell(page, "widgets.filters"))


def moved(page, widget):
    """Moves the first slider of a widget, whose picture has to change."""
    picture = widget.locator("img.widget-image")
    before = picture.get_attribute("src")
    slide(widget, "ArrowLeft")
    wait_until(page, lambda: picture.get_attribute("src") != before)


def changed(page, view, act):
    """Does something, after which a view has to say something else; returns what it says. Text, not inner text: what
    lies outside of the window is not rendered.
    """
    before = view.inner_html()
    act()
    wait_until(page, lambda: view.inner_html() != before)
    return view.text_content()


def test_grpo_with_its_widgets_alive_again_after_a_reload(server, chromium):
    address, folder = server
    path = folder / "05_grpo.ipynb"
    with opened(chromium, address, path.name) as page:
        run_all(page, minutes=12)
        moved(page, cell(page, "widgets.schedule()"))
        ticks = cell(page, "widgets.rebalancing()")
        first = ticks.locator("input[type=checkbox]").nth(5)
        assert "3 of 8 right" in changed(page, ticks.locator(".widget-html table"), first.click)

        save(page, path)
        page.reload()
        group = cell(page, "group_live.widget")
        group.locator(".widget-html table").first.wait_for()
        step = group.get_by_role("button", name="another step")
        assert "After 2 steps" in changed(page, group.locator(".widget-html-content"), step.click)

        broken = cell(page, "break_it.widget")
        assert broken.get_by_role("button", name="predict first").is_disabled()
        for guess in broken.locator(".widget-radio").all():
            guess.locator("input").first.check()
        run = broken.get_by_role("button", name="run it")
        run.click()
        wait_until(page, lambda: "predictions held" in broken.inner_text())
        assert "The doctor finds" in broken.inner_text()
        wait_until(page, run.is_enabled)


def test_the_report_card_with_its_ladder_and_two_stages(server, chromium):
    address, _ = server
    with opened(chromium, address, "06_report_card.ipynb") as page:
        run_all(page, minutes=12)
        ladder = cell(page, "ladder_explorer.widget")
        view = ladder.locator(".widget-html-content")
        arm = ladder.get_by_label("dpo-control")
        assert "dpo-control" not in view.locator("img").get_attribute("alt")
        changed(page, view, arm.check)
        assert "dpo-control" in view.locator("img").get_attribute("alt")
        assert "Percent right on easy" in changed(
            page, view, lambda: ladder.get_by_label("benchmark").select_option("easy"))

        stages = cell(page, "two_stages.widget")
        answers = stages.locator(".widget-html-content")
        assert "Rollout DPO" not in answers.text_content()
        stages.get_by_label("left").select_option("Rollout DPO")
        wait_until(page, lambda: "Rollout DPO" in answers.text_content())
