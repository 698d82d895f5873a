"""`phi-lab doctor --machine`: facts, what is lacking, and tokens over speed."""

import json
from dataclasses import replace

import pytest

from phi_lab import cli
from phi_lab.config import presets
from phi_lab.pipeline import machine

FINE = {
    "python": "3.12.1", "system": "Linux x86_64", "cores": 2, "load": 0.1, "memory": 8e9, "memory_free": 6e9,
    "disk_free": 9e9, "versions": dict.fromkeys(machine.PACKAGES, "1.0"), "jupyter": True, "browser": "firefox",
}


def test_this_computer_has_what_runs_the_tests():
    found = machine.facts()
    assert found["cores"] >= 1 and found["memory"] > found["memory_free"] > 0 and found["disk_free"] > 0
    assert all(found["versions"].values()) and found["jupyter"]


@pytest.mark.parametrize(("changed", "line"), [
    ({}, None), ({"memory_free": 1e9}, "1.0 GB of memory are free"), ({"disk_free": 5e8}, "0.5 GB of disk are free"),
    ({"versions": {"torch": None}}, "not installed: torch"), ({"load": 9.0}, "load 9.0 on 2 cores"),
    ({"load": None}, None), ({"browser": None}, "no browser here"),
])
def test_what_is_lacking_is_told(changed, line):
    lines = machine.lacking({**FINE, **changed})
    assert (lines == []) if line is None else (len(lines) == 1 and line in lines[0])
    assert all(f"! {one}" in machine.facts_text({**FINE, **changed}) for one in lines)


def test_tokens_of_the_configuration():
    tokens = machine.work(presets.LAB, 100.0)
    mid, grpo = presets.LAB.mid, presets.LAB.grpo
    assert tokens["mid-training"] == (mid.steps * mid.batch_size * mid.row_length, 0)
    rollouts = grpo.steps * grpo.prompts_per_step * grpo.group_size
    assert tokens["GRPO"][0] == rollouts / 2 * 125 and tokens["GRPO"][1] == rollouts * 100
    probed = replace(presets.LAB, grpo=replace(grpo, probe_rollouts=4))
    assert machine.work(probed, 100.0)["GRPO"][1] == (rollouts + 2 * grpo.candidate_prompts) * 100
    dpo = presets.LAB.dpo
    assert tokens["Rollout DPO"][1] == 8 * dpo.questions * 100 > 0 and tokens["the paper's DPO"][0] > 0
    teachers = machine.work(replace(presets.LAB, dpo=replace(dpo, pairs="teacher")), 100.0)
    assert teachers["Rollout DPO"][1] == 0 == teachers["the paper's DPO"][0]
    answers = presets.LAB.evaluation.answers
    assert (tokens["measurements"][1], teachers["measurements"][1]) == (6 * answers * 100, 5 * answers * 100)
    half = replace(presets.LAB, mid=replace(mid, steps=mid.steps // 2))
    assert machine.work(half, 100.0)["mid-training"][0] == tokens["mid-training"][0] / 2


def test_twice_the_speed_is_half_the_time():
    slow = machine.estimate(presets.LAB, {"training": 1000.0, "sampling": 500.0})
    fast = machine.estimate(presets.LAB, {"training": 2000.0, "sampling": 1000.0})
    assert all(fast[step] == pytest.approx(seconds / 2) for step, seconds in slow.items()) and min(slow.values()) > 0
    assert "together" in machine.estimate_text(presets.LAB, {"training": 1.0, "sampling": 1.0}, slow)


def test_the_speed_is_measured_and_told(monkeypatch, capsys):
    real = machine.speeds
    monkeypatch.setattr(machine, "speeds", lambda: real(0.2))
    assert cli.main(["doctor", "--machine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tokens_per_second"]["training"] > 0 and told["tokens_per_second"]["sampling"] > 0
    assert set(told["seconds"]) == set(machine.work(presets.LAB, 1.0))
