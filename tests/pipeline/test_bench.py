"""The benchmark measures both sides for real: every figure it promises, on a lab small enough for a test."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from phi_lab import cli
from phi_lab.config import presets
from phi_lab.pipeline import bench

RATIOS = (
    "rollouts_vs_generate", "rollouts_vs_generate_single", "rollouts_vs_roofline", "sft_vs_trl_packing",
    "sft_vs_trl_packing_same_rows", "sft_vs_bare_loop", "dpo_vs_trl", "grpo_step_vs_trl",
    "verify_vs_math_verify_long", "verify_vs_math_verify_short",
)


@pytest.mark.slow
def test_every_figure_is_measured(tmp_path, monkeypatch):
    small = replace(
        presets.LAB,
        mid=replace(presets.LAB.mid, batch_size=2),
        dpo=replace(presets.LAB.dpo, batch_size=2),
        grpo=replace(presets.LAB.grpo, prompts_per_step=2, group_size=4, max_new_tokens=24),
    )
    monkeypatch.setattr(presets, "LAB", small)
    monkeypatch.setattr(bench, "RUNS", 2)
    monkeypatch.setattr(bench, "STEPS", 12)
    monkeypatch.setattr(bench, "TRL_DEFAULT_ROWS", {"per_device_train_batch_size": 2, "max_length": 64})
    monkeypatch.setattr(bench, "PROMPTS", (4, 8))
    monkeypatch.setattr(bench, "DECADES", (2, 8))
    assert cli.main(["bench", "--json", str(tmp_path / "bench.json")]) == 0
    figures = json.loads((tmp_path / "bench.json").read_text())
    others = {"ladder_seconds", "matmul_gflops", "peak_rss_mb", "rollouts_exponent", "training_exponent"}
    assert set(figures) == {*RATIOS, *others}
    for name in RATIOS:
        found = figures[name]
        assert 0 < found["low"] <= found["ratio"] <= found["high"] and found["runs"] == 2, name
    assert figures["ladder_seconds"] > 1 and figures["matmul_gflops"] > 1 and figures["peak_rss_mb"] > 100
    assert figures["rollouts_vs_roofline"]["ratio"] < 1  # nothing is faster than its matrix products
    assert 0 < figures["training_exponent"] < 2


def test_rollout_dpo_is_compared_with_trl_on_equal_work(tmp_path, monkeypatch):
    """TRL has DPO's loss alone, one pass over the pairs, and AdamW."""
    seen = []

    def train(*given, **rest):
        seen.append(given[4])
        return SimpleNamespace(seconds=2.0)

    monkeypatch.setattr(bench.rollout_dpo, "train", train)
    rate = bench.Workloads(tmp_path).dpo()
    (config,) = seen
    assert (config.epochs, config.sft_weight, config.muon) == (1, 0.0, False) and rate == config.max_pairs / 2.0


def test_the_exponent_of_a_power_is_that_power():
    sizes = (3, 30, 300)
    for power in (0.5, 1.0, 2.0):
        assert bench.exponent(sizes, [7 * size**power for size in sizes]) == pytest.approx(power)


def test_the_start_of_math_verifys_process_is_not_counted(monkeypatch):
    class Starting:
        def __init__(self, program, spare):
            assert program == "phi_lab.verify.reference"
            self.seconds = 0.5

        def ask(self, question, limit):
            time.sleep(self.seconds)
            self.seconds = 0.0

        def close(self):
            self.seconds = 0.5

    monkeypatch.setattr(bench.worker, "Pool", Starting)
    assert object.__new__(bench.Workloads).math_verify(long=True) > 100 / 0.5
