"""What each arm trains on, from which model and for how much compute."""

from collections import Counter, defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from experiment_rows import BUDGET

from phi_lab import sampling
from phi_lab.config import presets
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, write_rows
from phi_lab.core.run_folder import RunFolder, StageFolder
from phi_lab.experiments import EXPERIMENTS, batch_uses, grpo_arms, mid_training, rl_devices
from phi_lab.experiments.design import Trial
from phi_lab.model import chat, checkpoints
from phi_lab.pipeline import controls, stage_runner
from phi_lab.problems import arithmetic
from phi_lab.problems.step_check import first_wrong_step
from phi_lab.stages import grpo, lm_trainer, packing, sft

TRAINED = [arm for arm in EXPERIMENTS["one_batch"].arms if arm not in EXPERIMENTS["one_batch"].untrained]


# ------------------------------------------------------------------ one_batch


def test_whose_answers_stand_on_which_side(trial):
    own, teacher = batch_uses.sides(trial, "own"), batch_uses.sides(trial, "teacher")
    texts = {name: {row["completion"] for row in rows} for name, rows in zip(
        ("own right", "own wrong", "teacher right", "teacher wrong"), (*own, *teacher), strict=True)}
    assert not texts["own wrong"] & texts["teacher wrong"]
    for arm, chosen, rejected in (("teacher-pairs", "teacher right", "teacher wrong"),
                                  ("teacher-over-own", "teacher right", "own wrong"),
                                  ("own-matched", "own right", "own wrong"),
                                  ("own-pairs", "own right", "own wrong"),
                                  ("random-pairs", "own right", "own wrong")):
        pairs = batch_uses.pairs_of(trial, arm)
        assert {row["chosen"] for row in pairs} <= texts[chosen], arm
        other = {"own right": "teacher right", "teacher right": "own right"}[chosen]  # short ones are alike
        assert not {row["chosen"] for row in pairs} <= texts[other], arm
        assert {row["rejected"] for row in pairs} <= texts[rejected], arm


def test_whose_arms_have_as_many_pairs_of_each_level(trial):
    levels = batch_uses.levels_of(trial)
    counts = [Counter(levels[row["prompt"]] for row in batch_uses.pairs_of(trial, arm)) for arm in batch_uses.WHOSE]
    assert counts[0] == counts[1] == counts[2] and counts[0]
    kinds = {name: [{"prompt": level, "n": n} for n, level in enumerate(rows)] for name, rows in
             {"a": "1123", "b": "12233", "c": "3211"}.items()}
    found = batch_uses.equally_many(kinds, {"1": 1, "2": 2, "3": 3})
    assert {name: [row["n"] for row in rows] for name, rows in found.items()} == {
        "a": [0, 2, 3], "b": [0, 1, 3], "c": [0, 1, 2]}
    with pytest.raises(UserError, match="no number of operations has pairs of student and teacher"):
        batch_uses.equally_many({"a": kinds["a"], "b": []}, {"1": 1, "2": 2, "3": 3})


def test_a_random_wrong_side_is_always_of_another_question(trial):
    pairs, plain = batch_uses.pairs_of(trial, "random-pairs"), batch_uses.pairs_of(trial, "own-pairs")
    asked = {row["completion"]: row["prompt"] for row in batch_uses.sides(trial, "own")[1]}
    assert [row["chosen"] for row in pairs] == [row["chosen"] for row in plain]
    assert all(asked[row["rejected"]] != row["prompt"] for row in pairs)
    many = [{"prompt": str(number % 2), "rejected": str(number)} for number in range(40)]
    assert all((int(row["rejected"]) - int(row["prompt"])) % 2 for row in batch_uses.with_strangers(many, 0))
    with pytest.raises(UserError, match="all pairs are of one question"):
        batch_uses.with_strangers([{"prompt": "a", "rejected": "b"}] * 2, 0)


def test_cut_pairs_part_at_the_first_wrong_step(trial):
    problems = {problem.prompt: problem for problem in batch_uses.questions(trial)}
    pairs = batch_uses.pairs_of(trial, "cut-pairs")
    assert pairs
    for row in pairs:
        whole = row["prefix"] + row["rejected"]
        assert first_wrong_step(problems[row["prompt"]], whole) == len(row["prefix"])


@pytest.mark.parametrize("count", [3, 40, 200])
def test_pairs_are_used_as_often_as_the_compute_pays_for(count):
    rows, lengths = [{"n": number} for number in range(count)], [50 + number % 7 for number in range(count)]
    for compute in (3_000, 20_000, 100_000):
        used, epochs = batch_uses.as_often_as_paid(rows, lengths, compute, 8)
        tokens = sum(lengths[row["n"]] for row in used)
        cost = tokens * (epochs + 1 / 3)
        assert abs(cost - compute) <= (epochs + 1 / 3) * 8 * 56, (count, compute)
        assert len(used) % 8 == 0 and used
        often = Counter(row["n"] for row in used)
        assert max(often.values()) - min(often.get(number, 0) for number in range(count)) <= 1


@pytest.mark.slow
def test_every_use_takes_the_same_compute_from_the_same_student(trial, tmp_path):
    """Within a step of its own, as none can take half a step; and each ends with other weights."""
    made = {}
    for arm in TRAINED:
        result = batch_uses.USES[arm](trial, arm, tmp_path / arm)
        steps = result.metrics[-1]["step"]
        assert abs(result.compute - BUDGET) <= max(2.5 * result.compute / steps, 0.1 * BUDGET), arm
        assert StageFolder(tmp_path / arm).finished and result.forward_tokens >= (arm != "rejection")
        made[arm] = checkpoints.fingerprint(result.model)
    same = made["own-matched"] == made["own-pairs"]  # where the fixture has as many pairs of the teacher's
    assert len({*made.values(), checkpoints.fingerprint(trial.model("sft"))}) == len(TRAINED) + 1 - same


def test_rejection_has_the_right_answers_of_own_pairs_and_preferences_dpo_alone(trial, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(batch_uses.rollout_dpo, "train_on_chosen", lambda *given, **rest: seen.append((given, rest)))
    batch_uses.train_rejection(trial, "rejection", tmp_path)
    (student, rows, _, plan), rest = seen[0]
    assert student == trial.model("sft") and rest["compute"] == BUDGET and plan.replay_share == 0
    assert [row["chosen"] for row in rows] == [row["chosen"] for row in batch_uses.pairs_of(trial, "own-pairs")]
    seen.clear()
    monkeypatch.setattr(batch_uses.rollout_dpo, "train_on_pairs", lambda *given, **rest: seen.append(given))
    batch_uses.train_pairs(trial, "teacher-pairs", tmp_path)
    ((_, rows, _, plan),) = seen
    assert (plan.sft_weight, plan.muon, plan.learning_rate) == (0.0, False, pytest.approx(1e-4))
    assert len(rows) <= plan.max_pairs


def test_a_token_of_the_wider_teacher_costs_more(trial, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(batch_uses.fixed_batch, "train", lambda *given, **rest: seen.append((given, rest)))
    batch_uses.train_distill(trial, "distill", tmp_path)
    (_, steps, *_), rest = seen[0]
    read = sum(one.tokens for batch in steps for one in batch)
    weights = [checkpoints.load(place).num_parameters() for place in (batch_uses.paths.TEACHER, trial.model("sft"))]
    assert rest["read"] == pytest.approx(read * weights[0] / weights[1], abs=1) and weights[0] > 1.5 * weights[1]
    assert read + rest["read"] / 3 == pytest.approx(BUDGET, rel=0.2)


def test_grpo_trains_on_balanced_answers_and_the_coin_on_others(trial, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(batch_uses.fixed_batch, "scored", lambda model, flat, heat: [(0.0,) * len(one.completion)
                                                                                     for one in flat])
    monkeypatch.setattr(batch_uses.fixed_batch, "train", lambda student, steps, loss, out, **rest: seen.setdefault(
        out.name, {id(one): one for step in steps for one in step}.values()))
    big = replace(trial, settings=replace(trial.settings, budget=80_000))
    for arm in ("grpo", "coin"):
        batch_uses.train_grpo(big, arm, tmp_path / arm)
    right = {row["completion"] for row in batch_uses.sides(trial, "own")[0]}
    tokenizer, by_prompt = checkpoints.load_tokenizer(trial.model("sft")), defaultdict(list)
    for one in seen["grpo"]:
        by_prompt[tuple(one.prompt)].append(one.advantage)
        assert (one.advantage == 1.0) == (tokenizer.decode(one.completion[:-1]) in right)
    assert all(sum(values) == 0 for values in by_prompt.values()) and by_prompt
    assert len(by_prompt) == 8  # of twelve; four are more than half right
    assert sorted(one.completion for one in seen["coin"]) != sorted(one.completion for one in seen["grpo"])


def test_both_experiments_toss_a_coin_for_each_answer(trial, monkeypatch, tmp_path):
    """One for each text would push against the answer that a group gives most often."""
    seen = []
    monkeypatch.setattr(batch_uses.grpo, "rebalance", lambda rewards, generator: seen.append(rewards) or rewards)
    monkeypatch.setattr(batch_uses.fixed_batch, "scored", lambda model, flat, heat: [()] * len(flat))
    monkeypatch.setattr(batch_uses.fixed_batch, "train", lambda *given, **rest: None)
    monkeypatch.setattr(batch_uses.shards, "rows", lambda folder, real=batch_uses.shards.rows: (
        {**row, "completion": "7", "answer": "7"} for row in real(folder)))
    batch_uses.train_grpo(trial, "coin", tmp_path)
    by_device = grpo_arms.reward(trial, rl_devices.DEVICES["coin"])(["7"] * 200, ["7"] * 200)
    for rewards in (seen[0].flatten().tolist(), by_device):
        assert set(rewards) == {-1.0, 1.0} and abs(sum(rewards)) < len(rewards) / 2
    assert by_device == grpo_arms.reward(trial, rl_devices.DEVICES["coin"])(["7"] * 200, ["7"] * 200)


def test_an_answer_that_was_cut_has_no_end(trial, monkeypatch):
    whole = [one for group in batch_uses.own_examples(trial) for one in group]
    real = batch_uses.shards.rows
    monkeypatch.setattr(batch_uses.shards, "rows", lambda folder: (
        {**row, "finish_reason": "length"} for row in real(folder)))
    cut = [one for group in batch_uses.own_examples(trial) for one in group]
    assert [one.completion[:-1] for one in whole] == [one.completion for one in cut]


@pytest.mark.slow
def test_the_notes_of_an_untrained_arm_are_those_of_the_student(trial):
    found = batch_uses.notes(trial, "start")
    assert found["curves"] == [] and set(found["probe"]) == {"own right", "own wrong", "teacher right", "teacher wrong"}
    assert all(value < 0 for value in found["probe"].values())


# ------------------------------------------------------------------ rl_devices


def test_dapos_filter_trains_on_the_first_mixed_groups():
    rewards = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    values = grpo_arms.first_mixed(2)(rewards, None)
    assert (values != 0).any(1).tolist() == [False, True, False, True, False]
    assert torch.equal(values[[1, 3]], grpo.group_normalised(rewards, None)[[1, 3]])


def test_dr_grpo_does_not_divide_by_the_deviation():
    values = grpo_arms.without_std(torch.tensor([[1.0, -1.0, -1.0, -1.0], [1.0] * 4]), None)
    assert values.tolist() == [[1.5, -0.5, -0.5, -0.5], [0.0] * 4]


def test_each_arm_differs_from_the_devices_in_what_it_says(of_lab):
    trial = of_lab(EXPERIMENTS["rl_devices"])
    base, plan = rl_devices.DEVICES["devices"], trial.config.grpo
    heats = {arm: [grpo_arms.schedule(trial, device)(step, 20) for step in (0, 5, 10, 19)]
             for arm, device in rl_devices.DEVICES.items()}
    assert heats["devices"] == pytest.approx([1.0, 0.8, 0.6, 0.6]) and heats["hot"] == heats["plain"] == [1.0] * 4
    assert heats["cold"] == [0.6] * 4 and heats["reverse"] == pytest.approx([0.6, 0.6, 0.64, 1.0])
    mean = grpo_arms.mean_temperature(trial, base)
    assert grpo_arms.mean_temperature(trial, rl_devices.DEVICES["reverse"]) == pytest.approx(mean)
    changed = {"hot": {"temperatures"}, "cold": {"temperatures"}, "reverse": {"backwards"},
               "unbalanced": {"advantage"}, "any-length": {"prompts"}, "all-prompts": {"prompts"}, "coin": {"coin"}}
    for arm, names in changed.items():
        device = rl_devices.DEVICES[arm]
        assert {name for name in vars(base) if getattr(base, name) != getattr(device, name)} == names
    assert grpo_arms.config(trial, rl_devices.DEVICES["dapo"]).prompts_per_step == 2 * plan.prompts_per_step
    assert grpo_arms.advantage(trial, base) is grpo.rebalance
    assert grpo_arms.advantage(trial, rl_devices.DEVICES["plain"]) is grpo.group_normalised
    assert set(rl_devices.DEVICES) | set(EXPERIMENTS["rl_devices"].untrained) == set(rl_devices.ARMS)


def test_steps_are_what_the_budget_pays_for(trial, tokenizer, monkeypatch):
    """Answers of 20 tokens, the first half of each group right. A trial step of 4 prompts x 8 answers is sampled, and
    what choosing and trying has cost is deducted.
    """
    asked = []

    def sample(model, tokenizer, prompts, params, **_):
        asked.append((len(prompts), params.n, params.temperature))
        return [[sampling.Sample([1] * 20, [], str(number < params.n / 2), "stop") for number in range(params.n)]
                for _ in prompts]

    monkeypatch.setattr(sampling, "sample", sample)
    monkeypatch.setattr(grpo_arms.grpo, "verified", lambda texts, answers: [
        1.0 if text == "True" else -1.0 for text in texts])
    monkeypatch.setattr(chat, "prompt_ids", lambda tokenizer, prompt: [0] * 10)
    one = replace(trial, settings=rl_devices.Settings(30_000, 16, 1, 4), config=replace(
        trial.config, grpo=replace(trial.config.grpo, prompts_per_step=4)))
    sampled = 4 * 8 * 30
    for arm, groups in (("all-prompts", 4), ("plain", 4), ("dapo", 8)):
        choice = grpo_arms.choose(one, rl_devices.DEVICES[arm])
        step = groups * 8 * 30 / 3 + 4 * 8 * 30  # sampled at a third; all of the first four groups are trained on
        assert choice["forward_tokens"] == groups * 8 * 30
        assert choice["steps"] == round((30_000 - groups * 8 * 30 / 3) / step), arm
        assert len(choice["problems"]) == 16
    assert asked == [(4, 8, pytest.approx(0.7, abs=0.005)), (4, 8, 1.0), (8, 8, 1.0)]
    asked.clear()
    chosen = {arm: grpo_arms.choose(one, rl_devices.DEVICES[arm]) for arm in ("devices", "cold", "coin")}
    assert asked[0] == asked[2] == asked[4] == (16, 2, 1.0)  # one of two is right: all qualify, and 60 % are kept
    assert chosen["devices"]["problems"] == chosen["cold"]["problems"] == chosen["coin"]["problems"]
    assert len(chosen["devices"]["problems"]) == 10
    assert chosen["devices"]["forward_tokens"] == 16 * 2 * 30 + sampled
    few = replace(one, settings=rl_devices.Settings(30_000, 5, 1, 4))
    with pytest.raises(UserError, match="3 of 5 prompts to train on, fewer than 4: take more candidates"):
        grpo_arms.choose(few, rl_devices.DEVICES["devices"])


def test_prompts_are_half_right_and_alike_in_length(monkeypatch):
    monkeypatch.setattr(grpo_arms.grpo, "verified", lambda texts, answers: [
        1.0 if text == answer else -1.0 for text, answer in zip(texts, answers, strict=True)])
    problems = arithmetic.sample_problems(6, 0)
    lengths = [(10, 20), (10, 11), (10, 10), (10, 40), (10, 12), (10, 15)]
    probes = [[sampling.Sample([1] * long, [], text, "stop") for long, text in zip(both, texts, strict=True)]
              for both, texts in zip(lengths, [(p.answer, "no") for p in problems], strict=True)]
    probes[2] = [replace(one, text=problems[2].answer) for one in probes[2]]  # both right
    kept = grpo_arms.half_right(problems, probes, 0.6, True, 0)
    assert kept == [problems[1], problems[4], problems[5]]
    others = [grpo_arms.half_right(problems, probes, 0.6, False, seed) for seed in range(8)]
    assert all(len(some) == 3 and problems[2] not in some for some in others) and len(set(map(tuple, others))) > 1


@pytest.mark.slow
def test_a_stopped_arm_keeps_its_choice(trial, tmp_path, monkeypatch):
    tiny = replace(trial, run=RunFolder(tmp_path), settings=rl_devices.Settings(3_000, 6, 1), config=replace(
        trial.config, grpo=replace(presets.SMOKE.grpo, prompts_per_step=2, group_size=4, max_new_tokens=40)))
    real, trained = grpo.train, []
    monkeypatch.setattr(grpo, "train", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    folder = tiny.folder("dapo").path
    with pytest.raises(KeyboardInterrupt):
        rl_devices.train(tiny, "dapo", folder)
    before = (folder / "choice.json").read_bytes()
    monkeypatch.setattr(grpo_arms, "choose", lambda *_: pytest.fail("chose again"))
    monkeypatch.setattr(grpo, "train", lambda *given, **rest: trained.append((given, rest)) or real(*given, **rest))
    result = rl_devices.train(tiny, "dapo", folder)
    assert (folder / "choice.json").read_bytes() == before
    (student, problems, _, config), _ = trained[0]
    assert student == trial.model("sft") and len(problems) == 6 and problems[0].steps
    assert result.metrics[-1]["step"] == config.steps and rl_devices.extra_forward(tiny, "dapo") > 0
    assert rl_devices.notes(tiny, "dapo")["steps"] == config.steps and "entropy" in rl_devices.notes(tiny, "dapo")


# ------------------------------------------------------------------ mid_training

MID_TOKENS = 50_000


@pytest.fixture
def chain(data, tmp_path, shipped, monkeypatch):
    """A trial whose chain has the script's answers and has mid-trained for `MID_TOKENS`."""
    rows = read_rows(data / "train-right.jsonl")
    for number, row in enumerate(rows):
        row["pass_rate"] = number % 5 / 5
    source = RunFolder(tmp_path / "seed-3")
    write_rows(source.data.right, rows)
    write_rows(source.data.validation, rows[:4])
    result = stage_runner.finished_result
    monkeypatch.setattr(stage_runner, "finished_result", lambda folder: controls.TrainingResult(
        folder.model, [], 1.0, MID_TOKENS) if folder.path.name == "mid" else result(folder))
    config = replace(presets.LAB, sft=replace(presets.LAB.sft, documents=30))
    return Trial(RunFolder(tmp_path / "out"), 3, config, mid_training.Settings((6, 12, 24)), 3, source)


def test_sets_schedules_and_starts(chain, monkeypatch, tmp_path):
    """What the language-model trainer is given, arm by arm; all but three arms take SFT's compute."""
    seen = []
    monkeypatch.setattr(lm_trainer, "fit_rollouts", lambda *given, **rest: seen.append(given))
    compute, tokenizer = mid_training.sft_compute(chain), checkpoints.load_tokenizer(chain.model("base"))
    every = read_rows(chain.source.data.right)
    sizes = {"128": 6, "512": 12, "2048": 24, "all": len(every)}
    for arm in mid_training.ARMS:
        after = arm.startswith("mid") and arm != "mid-long"
        begins = chain.source.stage("mid").model if after else chain.model("base")
        assert mid_training.start(chain, arm) == begins
    monkeypatch.setattr(mid_training, "start", lambda trial, arm: chain.model("base"))  # which has a tokenizer
    for arm in mid_training.ARMS:
        if arm in (*EXPERIMENTS["mid_training"].untrained, "mid-long", "base-512-best"):
            continue
        seen.clear()
        mid_training.train(chain, arm, tmp_path / arm)
        ((_, rows, _, _, config),) = seen
        _, size, *how = arm.split("-")
        tokens = sum(len(packing.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows)
        wanted = compute + MID_TOKENS * (how == ["long"])
        assert config.epochs * tokens / (1 - config.replay_share) == pytest.approx(wanted), arm
        assert config.learning_rate == chain.config.sft.learning_rate / (4 if how == ["slow"] else 1)
        if size in sizes:
            chosen = every if size == "all" else sft.choose(every, sizes[size], 3)
            assert [row["id"] for row in rows] == [row["id"] for row in chosen], arm
        else:
            small = sft.choose(every, 12, 3)
            assert {row["id"] for row in rows} <= {row["id"] for row in small}
            assert sum(row["tokens"] for row in rows) <= sum(row["tokens"] for row in small)


def test_short_answers_are_those_of_the_small_sets_questions(monkeypatch):
    """The shortest of each question first, then the second of each, as long as the tokens of the set last."""
    rows = [{"id": name, "tokens": tokens, "completion": "+".join("a" * tokens)}
            for name, lengths in {"p": (5, 3, 9), "q": (4, 8), "r": (1,)}.items() for tokens in lengths]
    monkeypatch.setattr(sft, "mostly_written_out", lambda text: len(text) > 1)
    rung = SimpleNamespace(rows=lambda: rows, small_set=lambda: [rows[2], rows[4]])  # 9 and 8 tokens, of p and q
    found = mid_training.short_answers(rung)
    assert [(row["id"], row["tokens"]) for row in found] == [("p", 3), ("q", 4), ("p", 5)]  # 12; with q's 8 it were 20


def test_the_optimum_is_the_schedule_that_ends_lowest(chain, monkeypatch, tmp_path):
    """Each ends at its own rate of zero; the model of the lowest last validation loss is kept, and all are paid for."""
    asked, lowest = [], {0.25: 0.9, 0.5: 0.3, 1.0: 0.5, 2.0: 0.8}

    def fine_tune(on, out, rows, compute, **settings):
        share = compute / on.compute
        asked.append((share, settings, len(rows)))
        (out / "model").mkdir(parents=True)
        (out / "model" / "weights").write_text(str(share))
        metrics = [{"step": 1, "eval_loss": 0.1}, {"step": 2, "eval_loss": lowest[share]}]
        return controls.TrainingResult(out / "model", metrics, 1.0, 100, 30)

    monkeypatch.setattr(controls, "fine_tune", fine_tune)
    monkeypatch.setattr("phi_lab.stages.training.mark_finished", lambda *_: None)
    result = mid_training.best_of_schedules(mid_training.rung(chain, "base-512-best", 12), tmp_path / "best")
    assert asked == [(share, {}, len(sft.choose(read_rows(chain.source.data.right), 12, 3))) for share in lowest]
    assert (result.model / "weights").read_text() == "0.5" and result.model == tmp_path / "best" / "model"
    assert (result.train_tokens, result.forward_tokens) == (400, 120)
    assert read_rows(tmp_path / "best" / "metrics.jsonl")[-1]["eval_loss"] == 0.3
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["metrics.jsonl", "model"]


def test_the_longer_stage_is_mid_training_for_more_epochs(chain, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("phi_lab.stages.mid_training.train", lambda *given, **rest: seen.append((given, rest)))
    mid_training.train(chain, "mid-long", tmp_path)
    ((student, right, _, _, plan), rest), before = seen[0], chain.config.mid
    times = (MID_TOKENS + mid_training.sft_compute(chain)) / MID_TOKENS
    assert student == chain.model("base") and right == chain.source.data.right and rest == {"seed": 3}
    assert plan.epochs == pytest.approx(before.epochs * times) and plan.steps == round(before.steps * times)
    assert plan.learning_rate == before.learning_rate and plan.replay_share == before.replay_share


def test_sft_compute_is_that_of_its_epochs(chain):
    rows = sft.choose(read_rows(chain.source.data.right), 30, 3)
    tokenizer = checkpoints.load_tokenizer(chain.model("base"))
    tokens = sum(len(packing.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows)
    steps = -(-3 * len(rows) // 32)
    assert mid_training.sft_compute(chain) == pytest.approx(steps * 32 / len(rows) * tokens / 0.9, rel=1e-3)


def test_without_chains_a_seed_makes_its_own(chain, monkeypatch):
    made = []
    monkeypatch.setattr(stage_runner, "run_stage", lambda *given: made.append(given[0]))
    mid_training.prepare(chain, print)
    assert not made
    mid_training.prepare(replace(chain, source=None), print)
    assert made == ["mid"]
    assert mid_training.start(replace(chain, source=None), "mid-512") == chain.run.stage("mid").model
