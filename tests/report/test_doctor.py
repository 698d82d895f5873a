"""The doctor's rules: each planted cause is named and nothing else is, and healthy logs, answers and pairs are healthy.

A log here is a healthy one (noise of a fixed seed, TRL's column names) in which one thing is changed.
"""

import functools
import math
import random

import pytest

from phi_lab.core import paths
from phi_lab.core.files import read_rows
from phi_lab.report import doctor
from phi_lab.report.doctor import pairs, reinforcement
from phi_lab.stages.grpo_sampling import MAX_LOGPROB_GAP

STEPS = 60


def named(findings):
    return [finding.rule for finding in findings]


# ------------------------------------------------------------------ logs


def grpo_log(seed=0, **planted):
    """A healthy log of TRL's GRPOTrainer; `planted`: column -> function of the run's progress, 0 to 1, and the row."""
    rng, rows = random.Random(seed), []
    for step in range(STEPS):
        t = step / (STEPS - 1)
        row = {
            "step": step + 1, "epoch": t, "loss": rng.gauss(0, 0.02), "grad_norm": rng.lognormvariate(-1, 0.3),
            "learning_rate": 1e-6 * (1 - t), "reward": 0.3 + 0.3 * t + rng.gauss(0, 0.05), "kl": 0.01 * t,
            "frac_reward_zero_std": 0.3 + rng.gauss(0, 0.05), "entropy": 0.4 - 0.2 * t + rng.gauss(0, 0.02),
            "completions/mean_length": 300 + 60 * t + rng.gauss(0, 10), "completions/clipped_ratio": 0.05,
            "sampling/sampling_logp_difference/mean": 0.012, "sampling/importance_sampling_ratio/mean": 1.0,
            "clip_ratio/region_mean": 0.002,
        }
        row["rewards/accuracy_reward/mean"] = row["reward"]
        rows.append(row | {name.replace("__", "/"): change(t, row) for name, change in planted.items()})
    return rows


def ramp(start, end):
    return lambda t, row: start + (end - start) * t


PLANTED_IN_GRPO = {
    "zero-variance": {"frac_reward_zero_std": ramp(0.4, 1.0)},
    "truncation": {"completions__clipped_ratio": ramp(0.05, 0.6)},
    "no-stop": {"completions__clipped_ratio": ramp(0.97, 1.0)},
    "length-drift": {
        "completions__mean_length": ramp(200, 900), "reward": lambda t, row: 0.4 + row["loss"],
        "learning_rate": ramp(1e-6, 1e-6), "frac_reward_zero_std": ramp(0.6, 0.7)},
    "entropy-collapse": {"entropy": lambda t, row: 0.5 * math.exp(-5 * t)},
    "entropy-explosion": {"entropy": ramp(0.3, 3.0)},
    "flat-reward": {name: lambda t, row: 0.4 + row["loss"] for name in ("reward", "rewards__accuracy_reward__mean")},
    "reward-hacking": {"rewards__accuracy_reward__mean": ramp(0.3, 0.2)},
    "sampler-mismatch": {"sampling__sampling_logp_difference__mean": ramp(0.2, 0.2)},
    "kl-blow-up": {"kl": lambda t, row: 0.01 * math.exp(7 * t)},
    "gradient-spike": {"grad_norm": lambda t, row: 120.0 if row["step"] == 45 else row["grad_norm"]},
    "learning-rate-zero": {"learning_rate": lambda t, row: 0.0 if t > 0.3 else 1e-6},
    "no-gradient": {"grad_norm": lambda t, row: 0.0},
    "not-finite": {"loss": lambda t, row: math.nan if t > 0.5 else row["loss"]},
}


@pytest.mark.parametrize("rule", PLANTED_IN_GRPO)
def test_what_is_planted_in_a_log_of_grpo_is_all_that_is_found(rule):
    (finding,) = doctor.check_metrics(grpo_log(**PLANTED_IN_GRPO[rule]))
    assert finding.rule == rule
    assert any(sign.isdigit() for sign in finding.seen) or rule == "not-finite"
    assert all(text.endswith(".") for text in (finding.meaning, finding.cause, finding.remedy))


@pytest.mark.parametrize("seed", range(6))
def test_a_healthy_log_of_grpo_raises_no_alarm(seed):
    assert doctor.check_metrics(grpo_log(seed)) == []
    assert doctor.check_metrics(grpo_log(seed)[:3]) == []  # nor do the first steps of one


def test_shorter_answers_are_an_alarm_unless_accuracy_rises():
    shorter = {"completions__mean_length": ramp(400, 90), "rewards__accuracy_reward__mean": ramp(0.4, 0.1)}
    assert "length-drift" in named(doctor.check_metrics(grpo_log(**shorter)))
    assert doctor.check_metrics(grpo_log(completions__mean_length=ramp(400, 90))) == []


@pytest.mark.parametrize("column", ["sampling/importance_sampling_ratio/mean", "clip_ratio/region_mean"])
def test_a_mismatch_is_seen_by_ratios_too(column):
    planted = {column.replace("/", "__"): ramp(0.6, 0.6)}
    (finding,) = doctor.check_metrics(grpo_log(**planted))
    assert finding.rule == "sampler-mismatch" and ("0.60" in finding.seen or "60%" in finding.seen)


def test_a_cooler_sampler_has_less_entropy_and_that_is_no_collapse():
    rows = grpo_log(entropy=lambda t, row: 0.5 if t < 0.5 else 0.05, temperature=lambda t, row: 1.0 if t < 0.5 else 0.6)
    assert doctor.check_metrics(rows) == []
    assert named(doctor.check_metrics([{**row, "temperature": 1.0} for row in rows])) == ["entropy-collapse"]


@pytest.mark.parametrize("row", read_rows(paths.DATA / "reward_hacking.jsonl"), ids=lambda r: f"{r['seed']}-{r['arm']}")
def test_the_published_experiment_with_a_sloppy_verifier_is_recognised(row):
    """Real runs of GRPO: both arms' rewards, with the strict verifier's accuracy beside them."""
    rows = [{"step": step, "reward": reward, "accuracy": strict}
            for step, (reward, strict) in enumerate(zip(row["reward"], row["strict"], strict=True), 1)]
    assert named(doctor.check_metrics(rows)) == (["reward-hacking"] if row["arm"] == "sloppy" else [])


@pytest.mark.parametrize(("steps", "large", "finds"), [(40, 2, []), (40, 3, ["gradient-spike"]), (200, 8, []),
                                                        (200, 9, ["gradient-spike"])])
def test_gradients_may_be_large_twice_or_in_less_than_a_twentieth_of_the_steps(steps, large, finds):
    norms = [0.5] * steps
    norms[steps // 2 : steps // 2 + large] = [10.0] * large
    rows = [{"step": step, "grad_norm": norm} for step, norm in enumerate(norms)]
    assert named(doctor.check_metrics(rows)) == finds


def test_the_cause_of_groups_without_variance_is_read_from_the_reward():
    causes = {1.0: "too easy", 0.75: "every answer of their group", -0.97: "No answer is rewarded",
              0.5: "equally good or bad"}
    for reward, cause in causes.items():
        rows = [{"step": step, "reward": reward, "zero_variance_share": 0.9} for step in range(6)]
        assert cause in doctor.check_metrics(rows)[0].cause


def test_steps_without_any_advantage_are_found_in_the_log_of_the_minimal_grpo():
    rows = [{"step": step, "reward": -1.0, "mean_length": 256.0, "kept_share": 0.0} for step in range(1, 13)]
    (finding,) = doctor.check_metrics(rows)
    assert finding.rule == "zero-variance" and "in 100% of the steps no answer has an advantage" in finding.seen
    assert doctor.check_metrics([{**row, "kept_share": 0.03} for row in rows]) == []


def dpo_log(margin, chosen, steps=20):
    """A log of DPO in which the implicit rewards move in a straight line."""
    rows = []
    for step in range(steps):
        t = step / (steps - 1)
        rows.append({
            "step": step, "loss": -math.log(1 / (1 + math.exp(-margin * t))), "learning_rate": 1e-6, "grad_norm": 0.5,
            "rewards/chosen": chosen * t, "rewards/rejected": (chosen - margin) * t, "rewards/margins": margin * t,
        })
    return rows


def test_what_is_planted_in_a_log_of_dpo_is_found():
    assert doctor.check_metrics(dpo_log(margin=1.0, chosen=0.2)) == []
    assert doctor.check_metrics(dpo_log(margin=1.0, chosen=-0.3)) == []  # a usual fall, small beside the margin
    assert doctor.check_metrics(dpo_log(margin=0.02, chosen=-0.05)) == []  # a small one
    assert named(doctor.check_metrics(dpo_log(margin=2.0, chosen=-2.0))) == ["both-sides-fall"]
    assert named(doctor.check_metrics(dpo_log(margin=0.005, chosen=0.0))) == ["loss-at-ln2"]


def test_what_is_planted_in_a_log_of_fine_tuning_is_found():
    rows = [{"step": step, "loss": 2 / step, "learning_rate": 1e-4, "entropy": 2 / step} for step in range(1, 21)]
    healthy = [{"step": step, "eval_loss": 1.2 / step + 0.5} for step in (5, 10, 15, 20)]
    overfitted = [{"step": step, "eval_loss": 0.5 + 0.02 * step} for step in (5, 10, 15, 20)]
    assert doctor.check_metrics(rows + healthy) == []  # also: its entropy falls, as it should
    assert named(doctor.check_metrics(rows + overfitted)) == ["evaluation-loss-rises"]


# ------------------------------------------------------------------ answers


@functools.cache
def shipped_rollouts():
    return read_rows(paths.DISTILLED / "rollouts.jsonl.gz")


def rollouts(samples=8, questions=25, **change):
    """Verified rollouts of the shipped teacher to questions that it does not always get right; `change`: column ->
    function of the row's number and the row.
    """
    mixed = {row["id"] for row in shipped_rollouts() if row["verdict"] == "wrong"}
    rows = [row for row in shipped_rollouts() if row["id"] in mixed][: samples * questions]
    return [row | {name: value(number, row) for name, value in change.items()} for number, row in enumerate(rows)]


def every(nth, then, otherwise):
    """The column's new value in every nth row."""
    return lambda number, row: then(row) if number % nth == 0 else row[otherwise]


def test_the_shipped_rollouts_raise_no_alarm():
    assert doctor.check_rollouts(shipped_rollouts()) == []
    assert doctor.check_rollouts(read_rows(paths.DISTILLED / "validation_rollouts.jsonl.gz")) == []


PLANTED_IN_ROLLOUTS = {
    "no-stop": {"finish_reason": every(5, lambda row: "length", "finish_reason")},
    "truncation": {
        "finish_reason": every(5, lambda row: "length", "finish_reason"),
        "completion": every(5, lambda row: row["completion"][:60], "completion")},
    "unparsed": {"verdict": every(5, lambda row: "unparsed", "verdict")},
    "repetition": {"completion": every(10, lambda row: row["completion"][:40] + "wait, check, " * 9, "completion")},
    "all-wrong": {"verdict": lambda number, row: "wrong" if number < 104 else row["verdict"]},
    "zero-variance": {"verdict": lambda number, row: "wrong" if number < 80 else "right"},
    "leaked-answers": {
        "prompt": lambda number, row: row["prompt"] + f" The answer is {row['answer']}." if number < 24
        else row["prompt"]},
}


@pytest.mark.parametrize("rule", PLANTED_IN_ROLLOUTS)
def test_what_is_planted_in_rollouts_is_all_that_is_found(rule):
    assert named(doctor.check_rollouts(rollouts(**PLANTED_IN_ROLLOUTS[rule]))) == [rule]


def test_a_sentence_that_comes_back_is_a_repetition():
    thought = ". Let me compute this sum once more. First".join(f"step {n}" for n in range(6))
    assert "compute this sum" in doctor.answers.loop(thought)
    assert doctor.answers.loop("Step 1. Step 2. Step 3. Step 4. " + "-" * 80) == ""


@pytest.mark.parametrize(("prompt", "answer", "leaks"), [
    ("What is 3*4? #### 12", "12", True), ("Solve x. \\boxed{ 12} ", "12", True), ("Result: 12", "12", True),
    ("Compute 12-0.", "12", False), ("The answer is 120.", "12", False), ("The answer is 12.5", "12", False),
    ("Is the answer a prime? Compute 12.", "12", False),
])
def test_what_states_an_answer(prompt, answer, leaks):
    assert doctor.answers.states(prompt, answer) == leaks


# ------------------------------------------------------------------ pairs and tokenizers


def preference_pairs():
    """Pairs of the shipped rollouts, right against wrong, closest in length."""
    sides = {}
    for row in shipped_rollouts():
        sides.setdefault(row["prompt"], ([], []))[row["verdict"] != "right"].append(row["completion"])
    both = [(prompt, right, wrong) for prompt, (right, wrong) in sides.items() if right and wrong][:200]
    closest = [(prompt, *min(((good, bad) for good in right for bad in wrong),
                             key=lambda pair: abs(len(pair[0]) - len(pair[1])))) for prompt, right, wrong in both]
    return [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in closest]


def test_pairs():
    rows = preference_pairs()
    assert doctor.check_pairs(rows) == []
    longer = [{**row, "rejected": row["rejected"] + 30 * "and so on"} for row in rows]
    (finding,) = doctor.check_pairs(longer)
    assert finding.rule == "margin-by-length" and "shorter answer is chosen" in finding.seen
    assert named(doctor.check_pairs(rows + rows[:20])) == ["duplicate-pairs"]
    assert named(doctor.check_pairs([*rows[5:], *({**row, "rejected": row["chosen"]} for row in rows[:5])])) == [
        "duplicate-pairs"]
    leaked = [{**row, "prompt": f"{row['prompt']} ({row['chosen'].partition('</think>')[2]})"} for row in rows[:50]]
    assert named(doctor.check_pairs(leaked + rows[50:])) == ["leaked-answers"]


def test_pairs_in_trls_conversations():
    def turn(role, text):
        return [{"role": role, "content": text}]

    rows = [{"prompt": turn("user", row["prompt"]), "chosen": turn("assistant", row["chosen"]),
             "rejected": turn("assistant", row["chosen"])} for row in preference_pairs()]
    assert named(doctor.check_pairs(rows)) == ["duplicate-pairs"]
    without_prompt = [{name: row[name] for name in ("chosen", "rejected")} for row in preference_pairs()]
    assert doctor.check_pairs(without_prompt) == []


def test_a_template_that_never_writes_the_stop_token():
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    assert pairs.template_without_stop({"template": template, "stop_tokens": ["<|endoftext|>"]}).rule == (
        "template-without-stop")
    for fine in ({"template": template, "stop_tokens": ["<|endoftext|>", "<|im_end|>"]},
                 {"template": "{{ m.content }}{{ eos_token }}", "stop_tokens": ["</s>"]},
                 {"template": "", "stop_tokens": ["</s>"]}):
        assert pairs.template_without_stop(fine) is None


def test_the_bound_on_the_samplers_gap_is_that_of_the_stage():
    assert reinforcement.MISMATCH == MAX_LOGPROB_GAP
