"""The experiments with nested scores: what is trained with which seed, what a row keeps, what tables say."""

import math
import re
from dataclasses import replace

import pytest
from experiment_rows import measured, nested_rows
from experiment_rows import row as made_up

from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core.errors import UserError
from phi_lab.core.files import write_json, write_rows
from phi_lab.core.paths import SHIPPED
from phi_lab.core.run_folder import RunFolder
from phi_lab.experiments import EXPERIMENTS, runner, variance, variance_bases, verdicts
from phi_lab.experiments.design import Trial
from phi_lab.model import checkpoints
from phi_lab.pipeline import stage_runner
from phi_lab.report import chain_rows, components, contrasts, nested, power, spread
from phi_lab.report.ladder_rows import STAGE_TITLES
from phi_lab.stages import grpo, mid_training, rollout_dpo, sft

VARIANCE, BASES = EXPERIMENTS["variance"], EXPERIMENTS["variance_bases"]


def trial_of(experiment, folder, seed=12, source=None):
    return Trial(RunFolder(folder / f"seed-{seed}"), seed, presets.SMOKE, experiment.settings["smoke"], seed, source)


@pytest.fixture
def chain(tmp_path):
    """A chain of the profile lab that has finished every stage, with models that are names only."""
    run = RunFolder(tmp_path / "ladder" / "seed-12")
    write_json(run.config, {"config": presets.LAB.row(), "seed": 12})
    for stage in STAGES[1:]:
        run.stage(stage).model.mkdir(parents=True)
        write_json(run.stage(stage).done, {"files": {}})
    return run


# ------------------------------------------------------------------ what is trained and measured


def test_a_stage_is_repeated_from_the_chains_own_model_before_it(chain, tmp_path, monkeypatch):
    """With the chain's settings and data, and one other seed throughout."""
    trial, seen = trial_of(VARIANCE, tmp_path, source=chain), {}
    for module, stage in ((mid_training, "mid"), (sft, "sft"), (rollout_dpo, "dpo"), (grpo, "grpo")):
        monkeypatch.setattr(module, "train", lambda *given, stage=stage, **rest: seen.setdefault(stage, (given, rest)))
    asked = []
    from phi_lab.pipeline import run_data
    monkeypatch.setattr(run_data, "grpo_problems", lambda data, count, seed: asked.append((data, count, seed)) or ["q"])
    for arm in VARIANCE.arms:
        if arm not in VARIANCE.untrained:
            variance.train(trial, arm, trial.folder(arm).path)
    plan = presets.LAB  # of the chain, not of this trial's profile
    out = {stage: trial.folder(f"{stage}-new").path for stage in seen}
    assert seen["mid"] == ((SHIPPED / "base", chain.data.right, chain.data.validation, out["mid"], plan.mid),
                           {"seed": 1012})
    assert seen["sft"] == ((chain.stage("mid").model, chain.data.right, chain.data.validation, out["sft"], plan.sft),
                           {"seed": 1012})
    assert seen["dpo"] == ((chain.stage("sft").model, chain.data.right, chain.data.wrong, out["dpo"], plan.dpo),
                           {"seed": 1012, "questions": ["q"]})
    assert seen["grpo"] == ((chain.stage("dpo").model, ["q"], out["grpo"], plan.grpo), {"seed": 1012})
    assert [(data.path, count, seed) for data, count, seed in asked] == [
        (chain.data.path, plan.dpo.questions, 41_012), (chain.data.path, plan.grpo.candidate_prompts, 1012)]


def test_own_and_new_models_are_each_measured_twice_with_seeds_of_their_own(chain, tmp_path):
    trial = trial_of(VARIANCE, tmp_path, source=chain)
    starts = {arm: variance.start(trial, arm) for arm in VARIANCE.untrained}
    for stage in STAGES[1:]:
        assert starts[f"{stage}-own"] == starts[f"{stage}-own-again"] == chain.stage(stage).model
        assert starts[f"{stage}-new-again"] == trial.folder(f"{stage}-new").model
    for nest in VARIANCE.nests:
        arms = [arm for training in nest.arms for arm in training]
        assert {arm.partition("-")[0] for arm in arms} == {nest.name}
        assert len({variance.evaluation_seed(trial_of(VARIANCE, tmp_path, seed), arm)
                    for arm in arms for seed in range(10, 22)}) == 4 * 12
    bases = {variance_bases.evaluation_seed(trial_of(BASES, tmp_path, seed), arm) for arm in BASES.arms
             for seed in BASES.seeds}
    assert len(bases) == 12
    assert [nest.name for nest in VARIANCE.nests] == ["grpo", "dpo", "sft", "mid"]
    assert [nest.levels[0] for nest in VARIANCE.nests] == ["chain"] * 3 + ["distilled sample"]


def test_nested_scores_are_measured_on_hard_alone_without_pass_at_k():
    config = runner.config_of(VARIANCE, "lab").evaluation
    assert (config.benchmarks, config.pass_problems, config.cool_temperature) == (("", "hard", ""), 0, 0.0)
    assert (config.problems, config.samples, config.temperature) == (500, 4, 0.6)
    assert runner.config_of(EXPERIMENTS["one_batch"], "lab").evaluation.benchmarks == ("easy", "hard", "")


@pytest.mark.slow
def test_the_repetition_with_the_chains_own_seed_is_the_chains_own_model(tiny, tmp_path):
    """So a training differs from its repetition in its seed and in nothing else."""
    trial = trial_of(VARIANCE, tmp_path)
    plan = runner.config_of(VARIANCE, "smoke")
    wide = replace(plan.grpo, steps=3, prompts_per_step=6, candidate_prompts=48, probe_rollouts=4, max_new_tokens=320)
    trial = replace(trial, config=replace(plan, grpo=wide))  # some of so many groups have both verdicts
    runner.open_run(trial.run, trial.config, trial.seed)
    for stage in STAGES[1:]:
        own = stage_runner.run_stage(stage, trial.run, trial.config, trial.seed, lambda line: None)
        for seed in (trial.seed, trial.seed + 1):
            again = variance.train_stage(trial, stage, tmp_path / f"{stage}-{seed}", seed)
            same = checkpoints.fingerprint(again.model) == checkpoints.fingerprint(own.model)
            assert same == (seed == trial.seed), (stage, seed)


@pytest.mark.slow
def test_a_chain_of_another_folder_gives_the_same_models(tiny, tmp_path):
    """As one that the experiment made itself: same start, same data, same seeds."""
    experiment = replace(VARIANCE, arms={arm: "" for arm in VARIANCE.arms if arm.startswith("sft")}, nests=())
    made = {}
    for out, chains in ((tmp_path / "ladder", None), (tmp_path / "again", tmp_path / "ladder")):
        path = runner.run_seed(experiment, out, 12, profile="smoke", chains=chains, log=lambda line: None)
        made[out.name] = {row["name"]: row for row in contrasts.read(path)}
        assert not (tmp_path / "again" / "seed-12" / "sft").exists()
    for arm, row in made["ladder"].items():
        again = made["again"][arm]
        assert (row["model"], row["start"]) == (again["model"], again["start"]), arm
        assert row["notes"]["right"] == again["notes"]["right"] and row["unit"] == "chain seeds"
        assert contrasts.accuracy(row) == sum(map(int, row["notes"]["right"])) / 10 / row["notes"]["samples"]


def test_a_row_keeps_how_many_answers_to_each_problem_are_right(chain, tmp_path):
    trial = trial_of(VARIANCE, tmp_path, source=chain)
    trial = replace(trial, config=replace(trial.config, evaluation=replace(trial.config.evaluation, samples=3)))
    rows = [{"id": name, "temperature": heat, "verdict": "right" if right else "wrong"}
            for name, heat, rights in (("p", 0.0, [1]), ("q", 0.0, [1]), ("p", 0.6, [1, 1, 0]), ("q", 0.6, [0, 0, 0]))
            for right in rights]
    trial.run.evals.path.mkdir(parents=True)
    write_rows(trial.run.evals.answers("dpo-own", "hard"), rows)
    found = variance.notes(trial, "dpo-own")
    assert found == {"right": "20", "greedy": "11", "samples": 3, "evaluation": 10_012, "problems": found["problems"]}
    write_rows(trial.run.evals.answers("mid-1", "hard"), rows)
    again = variance_bases.notes(trial_of(BASES, tmp_path, 12), "mid-1")
    assert again["right"] == "20" and again["problems"] == found["problems"]
    write_rows(trial.run.evals.answers("mid-1", "hard"), [{**row, "id": f"{row['id']}2"} for row in rows])
    assert variance_bases.notes(trial_of(BASES, tmp_path, 12), "mid-1")["problems"] != found["problems"]


def test_a_base_has_chains_of_its_own_and_the_shipped_one_is_not_trained(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(stage_runner, "train_and_record", lambda folder, train, log: made.append(folder.path))
    from phi_lab.pipeline import run_data
    monkeypatch.setattr(run_data, "training_data", lambda run, config, seed, log: made.append((run.path.name, seed)))
    monkeypatch.setattr(mid_training, "train", lambda *given, **rest: made.append((given[0], given[1], rest["seed"])))
    seeds = []
    for seed in BASES.seeds:
        trial = trial_of(BASES, tmp_path, seed)
        variance_bases.prepare(trial, print)
        seeds += [one[1] for one in made if isinstance(one, tuple)]
        assert [one for one in made if not isinstance(one, tuple)] == (
            [trial.run.path / "base"] if seed else []), seed
        made.clear()
        variance_bases.train(trial, "mid-2", tmp_path)
        base = trial.run.stage("base").model if seed else variance_bases.paths.SHIPPED / "base"
        assert made.pop() == (base, trial.run.path / "chain-2" / "data" / "right.jsonl", 302 + 2 * seed)
        assert variance_bases.start(trial, "mid-2-again") == trial.folder("mid-2").model
    assert seeds == [301, 302, 303, 304, 305, 306]


def test_bases_take_no_chains(tmp_path):
    with pytest.raises(UserError, match="^variance_bases makes its own chains: leave out --chains$"):
        runner.trial_of(BASES, tmp_path, 0, "smoke", tmp_path)
    assert runner.unit(BASES, None) == "base seeds"


# ------------------------------------------------------------------ what is said before and after


@pytest.mark.parametrize("experiment", [VARIANCE, BASES], ids=lambda one: one.name)
def test_it_says_beforehand_what_would_count(experiment):
    module = __import__(f"phi_lab.experiments.{experiment.name}", fromlist=["x"])
    for word in ("Question.", "Arms.", "Primary measure.", "Claims", "Seeds.", "Budget"):
        assert f"**{word}" in module.__doc__, word
    assert "What would count" in module.__doc__.replace("\n", " ")
    first, *_, last = experiment.seeds
    assert f"phi-lab experiment {experiment.name} --seeds {first}-{last}" in module.__doc__
    assert all(f"`{arm}`" in module.__doc__ for arm in experiment.arms)
    count = {4: "eight", 1: "two"}[len(experiment.nests)]
    assert f"Holm over all {count}" in module.__doc__.replace("\n", " ")
    assert {arm for nest in experiment.nests for training in nest.arms for arm in training} == set(experiment.arms)


def test_what_it_says_it_can_see(tmp_path):
    """The standard deviations of the docstrings, in those of a training; an evaluation adds none, or as much."""
    for alpha, noise, said, units in ((0.05, 0, 1.3, 12), (0.05 / 8, 0, 1.9, 12), (0.05, 1, 1.6, 12),
                                      (0.05 / 8, 1, 2.3, 12), (0.05 / 2, 0, 5.7, 3)):
        anova = components.Anova((0.0, 2.0 + noise, noise), (units - 1, units, 2 * units), 2, 2)  # a training adds 1
        assert components._detectable(anova, 0, alpha) == pytest.approx(said, abs=0.05)
        assert f"{said}" in (variance if units == 12 else variance_bases).__doc__


@pytest.mark.slow
def test_tables_and_figure_tell_the_same(tmp_path):
    from phi_lab.report import figures_experiments

    rows = nested_rows(VARIANCE, range(10, 16), by_problem=0.1)
    text = nested.summary(rows, VARIANCE.arms, VARIANCE.nests)
    assert text.startswith("6 seeds (chain seeds); with all cells: 6 after GRPO, 6 after Rollout DPO, 6 after SFT, "
                           "6 after mid-training.")
    figure = figures_experiments.save("variance", rows, VARIANCE.arms, VARIANCE.nests, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("<svg") == 1 and "\n" not in figure.alt
    for one in components.levels(rows, VARIANCE.nests):
        assert f"| {one.nest.title} | {one.name} | 6 | {components.level_words(one)} |" in text
        assert f"{one.nest.title}, {one.name} {components.level_words(one)}, " in figure.alt
    found = spread.measured(rows, VARIANCE.nests[0])
    assert (found.problems, found.samples) == (200, 4)
    smallest = f"{100 * power.detectable(found.variances(200, 4), 6, True):.1f}"
    assert f"| 6 | {smallest} | " in text and f"{smallest} with 6" in figure.alt
    assert "| re-run of this model over its first value | AIME 2024 | -9.4 | 4.7 | 2.0 | – | – |" in text
    assert len(re.findall(r"^\| (GRPO|Rollout DPO|SFT|mid-training) \|", text, re.MULTILINE)) == 12 + 8 + 12 + 4
    assert text.count(" by itself | 6 | ") == 2 and "| GRPO over Rollout DPO | 6 | " in text


def test_the_chains_own_models_are_compared_with_the_published_ones(monkeypatch):
    """By fingerprint, seed and stage; a stage's repetition is none of them."""
    rows = nested_rows(VARIANCE, range(10, 12))
    published = [{"seed": 10, "name": stage, "model": f"{stage}-own-10"} for stage in STAGES[1:]]
    published += [{"seed": 11, "name": "sft", "model": "sft-new-11"}]
    monkeypatch.setattr(chain_rows, "published", lambda: published)
    assert nested.published_line(rows, VARIANCE.nests) == (
        "Of 8 models of the chains' own 4 are the published ones (data/chains.jsonl) to the byte.")


def test_trainings_with_another_seed_are_compared_with_the_chains_own():
    rows = nested_rows(VARIANCE, range(10, 22), sds=(0.02, 0.0))
    for row in rows:
        if row["name"].startswith("dpo-new"):
            row["measurements"][0]["accuracy"] += 0.05
    table = {line[0]: line[2] for line in nested.retrained_table(rows, VARIANCE.nests)[1:]}
    assert table["Rollout DPO"].startswith(("+4.", "+5.")) and "[-" in table["GRPO"]
    assert set(table) == {STAGE_TITLES[stage] for stage in STAGES[1:]}


def test_other_protocols_have_one_score_of_each_training():
    """Greedy scores of trainings 70, 72 and 76, 78: means 71 and 77, a variance of 18, of which 2 / 2 is of a training;
    with all answers to the first problem right in one evaluation alone, each training solves it, and no other one.
    """
    nest, greedy, rows = VARIANCE.nests[0], iter((0.70, 0.72, 0.76, 0.78)), []
    for seed in (10, 11):
        for training in nest.arms:
            share = next(greedy)
            for arm, right in zip(training, ("4000", "0000"), strict=True):
                one = made_up(seed, arm, share, notes={"right": right, "samples": 4, "problems": "first"})
                one["measurements"][0]["accuracy"] = 0.25 if right == "4000" else 0.0
                rows.append(one)
    head, sampled, greedily, solved = nested.protocols_table(rows, [nest])
    assert head[3:] == ["sd of chains", "sd of trainings, with what sampling adds"]
    assert sampled[:3] == ["GRPO", "T 0.6", "12.5 %"] and solved[:3] == ["GRPO", "pass@8", "25.0 %"]
    assert sampled[3].startswith("0.00 [0.00, ") and solved[4] == "0.00 [0.00, 0.00]"
    assert greedily[:3] == ["GRPO", "greedy", "74.0 %"]
    assert greedily[3].startswith(f"{(18 - 1) ** 0.5:.2f} [0.00, ")  # variance of 71 and 77: 18, less 2 / 2
    middle, low, high = map(float, re.findall(r"[\d.]+", greedily[4]))
    assert (middle, low, high) == (1.41, pytest.approx(1.414 / 1.921, abs=0.01), pytest.approx(1.414 / 0.159, rel=0.02))


def test_pairs_of_the_ladder_have_their_own_spread():
    """An arm and its rival of the same chains: differences of 1 and 3 points have a standard deviation of 1.41."""
    def chain(seed, share):
        return [{"seed": seed, "name": name, "measurements": [measured(value)]}
                for name, value in (("mid", 0.5), ("sft", share), ("sft-control", 0.6))]

    table = nested.pairs_table([*chain(1, 0.61), *chain(2, 0.63)])
    ((*line, one_point, _),) = table[1:]  # a stage before is no rival
    assert line[:2] == ["sft and sft-control", "2"] and line[2].startswith("1.41 [0.6")  # 1 / sqrt(5.02) of it
    seeds = power.seeds_needed(0.01, power.Variances(0.0, 0.0001, 0.0), paired=True)
    assert one_point.startswith(f"{seeds} [") and one_point.endswith(", more]")


def test_each_protocol_has_its_own_interval_and_number_of_problems():
    rows = nested_rows(VARIANCE, range(10, 18), by_problem=0.2)
    found = spread.measured(rows, VARIANCE.nests[0])
    titles, tables = zip(*nested.seeds_tables(found, "GRPO"), strict=True)
    assert all(" of GRPO" in title for title in titles)
    for table, paired in zip(tables, (True, False), strict=False):
        for place, (problems, samples) in enumerate(nested.PROTOCOLS, 1):
            factors = found.factors(paired, problems, samples)
            assert table[3][place] == str(power.needed(0.02, found.variances(problems, samples), paired, factors))
        assert table[0][0:2] == ["to see", "30 x 1"] and table[3][0] == "2 points"
    line = nested.problems_table({VARIANCE.nests[0]: found})[2]
    assert line[:2] == ["GRPO", "training"]
    for cell, count in zip(line[2:], (30, 200, 10**9), strict=True):
        assert cell == "{:.2f} [{:.2f}, {:.2f}]".format(*(100 * one for one in found.deviation("training", count)))


def test_three_bases_make_no_plan(tmp_path):
    rows = nested_rows(BASES, range(3), sds=(0.05, 0.01))
    text = nested.summary(rows, BASES.arms, BASES.nests)
    assert "| mid-training | base | 3 | " in text and "Seeds of each recipe" not in text and "paper" not in text


def test_the_list_tells_a_standard_deviation(tmp_path):
    rows = nested_rows(VARIANCE, range(10, 22), sds=(0.04, 0.005))
    path = tmp_path / "data" / "experiments" / "variance.jsonl"
    path.parent.mkdir(parents=True)
    write_rows(path, rows)
    found = verdicts.row(VARIANCE, tmp_path)
    first = components.levels(rows, VARIANCE.nests)[0]
    assert found["verdict"] == "supported" and found["effect"] == pytest.approx(100 * first.sd)
    assert found["ci"] == [pytest.approx(100 * first.sd_low), pytest.approx(100 * first.sd_high)]
    assert found["ci"][0] < 4 < found["ci"][1] and found["p_value"] == first.p_holm
    assert found["detectable"] == pytest.approx(100 * first.detectable)
    words = verdicts.in_words(found)
    assert f"in one of them do: supported, chains add a standard deviation of {found['effect']:.1f} points [" in words
    assert math.isfinite(found["detectable"]) and "12 seeds" in words
