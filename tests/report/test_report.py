"""The report: all there, missing parts named, hostile text harmless, the same bytes every time."""

import json
import re
import subprocess

import pytest
from html_page import BROWSER, HOSTILE, Page

from phi_lab.core.errors import UserError
from phi_lab.report import replications
from phi_lab.report.report import MAX_CHARACTERS, write_report

STAGES = ("base", "mid", "sft", "dpo", "grpo")
HAS_CHAINS = bool(replications.published())  # one more picture on every page


def rows():
    ladder = []
    for index, stage in enumerate(STAGES):
        for benchmark, start in (("easy", 0.70), ("hard", 0.10), ("transfer", 0.40)):
            for temperature in (0.0, 0.6):
                share = start + 0.05 * index
                ladder.append({
                    "stage": stage, "arm": "main", "benchmark": benchmark, "n": 1000,
                    "correct": round(1000 * share), "accuracy": share, "ci_low": share - 0.03,
                    "ci_high": share + 0.02, "temperature": temperature, "k": 1, "pass_at_k": None,
                    "seconds": 100.0 * index, "train_tokens": 5000 * index, "peak_rss_mb": 1500,
                    "seed": 0,
                })
        ladder.append(ladder[-4] | {"k": 8, "n": 1600, "pass_at_k": 0.25 + 0.1 * index})
    dpo = next(row for row in ladder if row["stage"] == "dpo" and row["temperature"] > 0)
    return [*ladder, dpo | {"arm": "own<b>"}]


def make(folder):
    """A small made-up run folder with everything in it but the base's own training."""

    def write(name, content):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def lines(made):
        return "".join(json.dumps(row) + "\n" for row in made)

    write("ladder.json", json.dumps(rows()))
    config = {"scale": "cpu", "profile": "smoke", "seed": 3, "stages": {"mid": {"rate": "<i>1e-3"}}}
    write("config.json", json.dumps(config))
    funnel = {
        "questions": 10, "rollouts": 80, "verdicts": {"right": 60, "wrong": 20},
        "steps": [{"name": "right", "kept": 60, "removed": 20, "why": "wrong <b>& $so_on"}],
    }
    write("data/funnel.json", json.dumps(funnel))
    steps = [
        {"step": s, "loss": 2 / s, "learning_rate": 1e-3, "tokens": 100 * s, "seconds": 2.0 * s} for s in range(1, 6)
    ]
    for stage in ("mid", "sft"):
        write(f"{stage}/metrics.jsonl", lines([*steps, steps[-1] | {"eval_loss": 0.5}]))
    pairs = {
        "logps/chosen": -1.0, "logps/rejected": -2.0, "rewards/chosen": 0.1,
        "rewards/rejected": -0.1, "rewards/accuracies": 0.6,
    }
    write("dpo/metrics.jsonl", lines(row | pairs for row in steps))
    seen = {
        "reward": 0.1, "zero_variance_share": 0.3, "mean_length": 50, "entropy": 0.4,
        "temperature": 0.8, "kept_share": 0.5,
    }
    write("grpo/metrics.jsonl", lines(row | seen for row in steps))
    ten = [
        {"id": f"hard-{i}", "prompt": f"What is {i}+{i}?", "answer": str(2 * i), "completions": {
            stage: {"completion": f"\\boxed{{{2 * i}}}", "verdict": "right" if s else "wrong"}
            for s, stage in enumerate(STAGES)
        }}
        for i in range(10)
    ]
    ten[0] |= {"prompt": HOSTILE, "answer": HOSTILE, "id": HOSTILE}
    ten[0]["completions"]["mid"] = {"completion": HOSTILE, "verdict": "unfinished"}
    ten[1]["completions"]["sft"]["completion"] = "9" * (MAX_CHARACTERS + 123_456)
    del ten[2]["completions"]["grpo"]
    write("ten.json", json.dumps(ten))
    return folder


@pytest.fixture
def run(tmp_path):
    return make(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return write_report(make(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def page(finished):
    assert finished.name == "report.html"
    return Page(finished.read_text(encoding="utf-8"))


def test_everything_is_there(page):
    says = page.says()
    assert page.tags().count("svg") == 6 + HAS_CHAINS  # ladder, funnel, mid, sft, dpo, grpo
    assert page.tags().count("details") == 10 + 1  # ten problems, the configuration
    assert "scale cpu · profile smoke · seed 3" in says
    assert "70.0 % → 90.0 %" in says and "10.0 % → 30.0 %" in says  # base to GRPO
    assert "7.0 to 12.0" in says  # an interval
    assert "57.5 %" in says and "48.1 on AIME 2024" in says  # the paper, and its later re-run
    assert "k = 8" in says and "65.0 %" in says
    assert "Rollout DPO, arm “own<b>”" in says
    assert "5 steps, 500 tokens, 10 seconds." in says
    assert "together 1,300 65,000" in says  # each stage's cost counted once; the arm's added
    assert "✓ right" in says and "✗ wrong" in says and "✗ unfinished" in says
    assert "base/metrics.jsonl" not in says  # nobody expects a run to pretrain its base
    assert "<i>1e-3" in says


def test_stages_that_started_from_shipped_checkpoints_are_no_climb(run):
    """In smoke each stage does; then GRPO is compared with its start and not with the base."""
    start = [
        row | {"stage": "dpo", "arm": "shipped", "accuracy": row["accuracy"] - 0.005, "seconds": 0.0, "train_tokens": 0}
        for row in rows() if row["stage"] == "grpo"
    ]
    assert "chain:" not in Page(write_report(run).read_text(encoding="utf-8")).says()
    (run / "ladder.json").write_text(json.dumps([*rows(), *start]), encoding="utf-8")
    says = Page(write_report(run).read_text(encoding="utf-8")).says()
    assert "10.0 % → 30.0 %" not in says
    assert "hard 29.5 % → 30.0 % shipped Rollout DPO → GRPO" in says
    assert (
        "Not one chain: GRPO starts from the shipped checkpoint of the stage before, not from this run's own." in says
    )
    assert "The training of shipped checkpoints from which stages start is not counted." in says
    assert "together 1,300 65,000" in says and "shipped Rollout DPO 0 0" not in says
    assert "The same hard problems after each stage. GRPO starts from" in says


def test_joules_are_a_column_where_a_stage_has_them(run):
    assert "joules" not in Page(write_report(run).read_text(encoding="utf-8")).says()
    counted = [row | ({"joules": 12_345} if row["stage"] == "sft" else {}) for row in rows()]
    (run / "ladder.json").write_text(json.dumps(counted), encoding="utf-8")
    says = Page(write_report(run).read_text(encoding="utf-8")).says()
    assert "peak memory, MB joules of the processors" in says
    assert "SFT 200 10,000 1,500 12,345" in says and "mid-training 100 5,000 1,500 –" in says


def test_the_page_needs_nothing_and_runs_nothing(page, finished):
    assert not {"script", "img", "iframe", "link", "object"} & set(page.tags())
    policy = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
    assert len(page.ids) == len(set(page.ids))
    style = finished.read_text(encoding="utf-8")
    assert "@import" not in style and "prefers-color-scheme" in style and "@media print" in style


def test_hostile_text_is_shown_as_text(page):
    assert page.says().count("<script>alert(1)</script>") >= 3  # prompt, answer, completion


def test_huge_text_is_cut_and_says_so(page, finished):
    assert "… and 123,456 characters more" in page.says()
    assert finished.stat().st_size < 600_000


def test_only_the_ladder_is_needed_and_gaps_are_named(tmp_path):
    some = [row for row in rows() if row["stage"] in ("base", "mid") and row["benchmark"] == "easy"]
    (tmp_path / "ladder.json").write_text(json.dumps(some))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    for name in ("data/funnel.json", "sft/metrics.jsonl", "grpo/metrics.jsonl", "ten.json"):
        assert f"Not in this run: {name}." in page.says()
    assert "Not in this run: config.json." in page.says()
    assert "70.0 % → 75.0 %" in page.says() and page.tags().count("svg") == 1 + HAS_CHAINS
    (tmp_path / "ladder.json").write_text("[]")
    assert "nothing measured yet" in write_report(tmp_path).read_text(encoding="utf-8")


def test_same_files_same_bytes(run):
    (run / "ten.json").unlink()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not list(run.glob("*.part"))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("ladder.json", None, "ladder.json"),
        ("ladder.json", "[{", "ladder.json"),
        ("ladder.json", '[{"stage": "mid"}]', "arm"),
        ("ladder.json", '{"stage": "mid"}', "unexpected form"),
        ("ten.json", '[{"id": 1}]', "completions"),
        ("mid/metrics.jsonl", '{"step": 1}\n{"st', "metrics.jsonl"),
        ("data/funnel.json", "{}", "rollouts"),
    ],
)
def test_a_broken_run_folder_is_reported_in_one_line(run, name, content, message):
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        write_report(run)
    assert "\n" not in str(error.value) and str(run) in str(error.value)


def test_a_folder_that_cannot_be_written_is_reported(run):
    (run / "report.html").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_report(run)


# ------------------------------------------------------------------ in a real browser



def browse(page, *options):
    """What headless Chromium, which reaches no other computer, says and prints about a page."""
    return subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         "--host-resolver-rules=MAP * ~NOTFOUND", *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this computer")
def test_a_browser_shows_the_page_and_complains_about_nothing(finished, tmp_path):
    done = browse(finished, "--dump-dom")
    source = finished.read_text(encoding="utf-8")
    for tag in ("svg", "table", "details", "h2", "pre"):
        assert done.stdout.count(f"<{tag}") == source.count(f"<{tag}") > 0
    assert not re.findall(r".*CONSOLE.*", done.stderr)
    blank = tmp_path / "blank.html"
    blank.write_text("<!doctype html>", encoding="utf-8")
    sizes = []
    for shown in (finished, blank):
        browse(shown, "--window-size=400,900", f"--screenshot={tmp_path / 'picture.png'}")
        sizes.append((tmp_path / "picture.png").stat().st_size)
    assert sizes[0] > 5 * sizes[1]
