"""Every experiment, each of its arms trained and measured at toy size, from `run_seed` to tables and figure."""

from dataclasses import replace

import pytest

from phi_lab.config import presets
from phi_lab.core.files import read_rows, write_rows
from phi_lab.experiments import EXPERIMENTS, one_batch, rl_devices, runner, variance_bases
from phi_lab.model import checkpoints
from phi_lab.report import contrasts

TOY = {
    "one_batch": one_batch.Settings(24, 6_000, 8), "rl_devices": rl_devices.Settings(9_000, 16, 1, 1),
    "variance_bases": variance_bases.Settings(replace(presets.BASE, steps=4, eval_steps=2, documents=200)),
}


def has_learned(metrics):
    """Whether a step of a training had a gradient and a rate: of so few GRPO groups all may have one verdict."""
    return any(row.get("kept_share", 1) and row.get("learning_rate", 1) for row in read_rows(metrics))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_all_arms_of_two_seeds(name, tiny, tmp_path):
    """The second seed is that of the first with other numbers: tables and figure need two."""
    experiment = EXPERIMENTS[name]
    if name in TOY:
        experiment = replace(experiment, settings={"smoke": TOY[name]})
    seed = list(experiment.seeds)[1]
    said = []
    path = runner.run_seed(experiment, tmp_path, seed, profile="smoke", log=said.append)
    rows = {row["name"]: row for row in contrasts.read(path)}
    assert list(rows) == list(experiment.arms)
    trial = runner.trial_of(experiment, tmp_path, seed, "smoke", None)
    for arm, row in rows.items():
        trained = arm not in experiment.untrained
        assert (row["model"] != row["start"]) == (trained and has_learned(trial.folder(arm).metrics)), arm
        assert (row["compute"] > 0) == trained, arm
        assert contrasts.accuracy(row) is not None and 0 < row["diversity"] <= 1 and row["seconds"] > 0
    assert len({row["model"] for row in rows.values()}) > 1
    for arm in rows.keys() - experiment.untrained:
        assert checkpoints.fingerprint(trial.folder(arm).model) == rows[arm]["model"]
    before = path.read_bytes()
    runner.run_seed(experiment, tmp_path, seed, profile="smoke", log=said.append)
    assert path.read_bytes() == before

    other = tmp_path / f"seed-{seed + 1}" / "rungs.jsonl"
    write_rows(other, [{**row, "seed": seed + 1} for row in rows.values()])
    runner.collect(experiment, tmp_path)
    text = runner.conclude(experiment, tmp_path)
    assert text.startswith("2 seeds (") and (tmp_path / f"{name}.svg").exists()
    assert len(read_rows(tmp_path / f"{name}.jsonl")) == 2 * len(experiment.arms)
