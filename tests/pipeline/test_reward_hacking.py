"""Reward hacking: what the sloppy verifier accepts, that both arms run, and the published rows.

python -m pytest tests/pipeline/test_reward_hacking.py
"""

from dataclasses import replace

import nbformat
import pytest

from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.lab import reward_hacking as shown
from phi_lab.pipeline import reward_hacking
from phi_lab.stages import grpo

TINY = replace(reward_hacking.LAB, steps=2, prompts_per_step=2, group_size=4)


@pytest.mark.parametrize("completion, gold, sloppy, strict", [
    (r"\boxed{15}", "15", 1, 1),
    (r"\boxed{1}", "15", 1, -1),
    (r"\boxed{}", "15", 1, -1),
    (r"\boxed{3/10}", "3", 1, -1),
    (r"\boxed{7}", "15", -1, -1),
    ("15", "15", -1, 1),
])
def test_sloppy_accepts_a_part_of_the_answer_and_strict_does_not(completion, gold, sloppy, strict):
    assert reward_hacking.sloppy([completion], [gold]) == [sloppy]
    assert grpo.verified([completion if "boxed" in completion else f"The answer is {completion}."], [gold]) == [strict]


def test_both_arms_run_write_rows_and_are_found_again(tmp_path):
    rows = reward_hacking.run(tmp_path, range(1), TINY, log=lambda line: None)
    assert [(row["seed"], row["arm"]) for row in rows] == [(0, "sloppy"), (0, "strict")]
    for row in rows:
        assert len(row["reward"]) == len(row["strict"]) == 2 and row["steps"] == 2
        assert all(0 <= right <= got <= 1 for got, right in zip(row["reward"], row["strict"], strict=True))
        before, _ = row["accuracy"]["easy"]
        assert before > 0.7, "the base answers most of `easy` right"
        assert len(row["examples"]) == 8 and {"prompt", "answer", "completion"} == set(row["examples"][0])
    assert rows[1]["reward"] == rows[1]["strict"], "the strict arm is trained on the strict verdicts"
    weights = tmp_path / "seed-0-sloppy" / "model" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert reward_hacking.run(tmp_path, range(1), TINY) == read_rows(tmp_path / "rows.jsonl") == rows
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(UserError, match="steps differs"):
        reward_hacking.run(tmp_path, range(1), replace(TINY, steps=3))


def test_the_published_rows_are_three_seeds_with_both_arms_and_what_the_page_shows():
    rows = read_rows(reward_hacking.PUBLISHED)
    assert {(seed, arm) for seed in (0, 1, 2) for arm in reward_hacking.ARMS} <= {(r["seed"], r["arm"]) for r in rows}
    for row in rows:
        assert len(row["reward"]) == len(row["strict"]) == row["steps"] == reward_hacking.LAB.steps
    outputs = [output for cell in nbformat.read(paths.NOTEBOOKS / "05_grpo.ipynb", 4).cells
               for output in cell.get("outputs", [])]
    page = [output.data.get("text/html") for output in outputs if "data" in output]
    assert shown.table(rows) in page
    said = "".join(output.get("text", "") for output in outputs)
    assert all(sentence in said for sentence in shown.verdict(rows))


def test_the_results_page_says_what_the_rows_say():
    rows, page = read_rows(reward_hacking.PUBLISHED), (paths.ROOT / "docs" / "results.md").read_text()
    for arm in reward_hacking.ARMS:
        found = [row for row in rows if row["arm"] == arm]
        first, last = (", ".join(f"{100 * value:.1f}" for value in values)
                       for values in zip(*map(shown.reward_change, found), strict=True))
        easy = ", ".join(f"{100 * row['accuracy']['easy'][1]:.1f}" for row in found)
        before = 100 * found[0]["accuracy"]["easy"][0]
        assert f"| {arm} | {first} % to {last} % | {before:.1f} % | {easy} % |" in page


def test_the_sentence_follows_the_numbers():
    def row(arm, reward, after):
        return {"arm": arm, "reward": reward, "accuracy": {"easy": [0.8, after]}}

    rising = [row("sloppy", [0.1, *[0.1] * 4, *[0.5 + i / 100] * 5], 0.5 + i / 100) for i in range(3)]
    strict = [row("strict", [0.1] * 10, 0.8 + (i - 1) / 50) for i in range(3)]
    ends = [line.rpartition(": ")[2] for line in shown.verdict(rising + strict)]
    assert ends == ["higher", "lower", "no difference is shown", "lower"]
    noise = [row("sloppy", [0.1] * 5 + [0.1 + sign] * 5, 0.8 + sign) for sign in (0.1, -0.1, 0.0)]
    ends = [line.rpartition(": ")[2] for line in shown.verdict(noise + strict)]
    assert ends == ["no difference is shown"] * 4
