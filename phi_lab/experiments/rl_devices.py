"""Which of the paper's three devices does RL need: the temperature, rebalancing, or prompts of uniform length?

Written before the first run.

**Question.** The paper stabilises GRPO (section 3.4) by a temperature that falls from 1.0 to 0.6 over half of the
steps, by rebalancing right and wrong answers in a group, and by prompts whose answers are alike in length. It shows all
three together; we found no ablation, theirs or another's. Does the whole beat plain GRPO at equal compute, and which of
the three is missed when it alone is taken away?

**Arms.** All start from the same student, a chain's SFT model, and not from Rollout DPO as in the paper's order: after
three epochs of Rollout DPO 81 % of the ladder's groups hold one verdict, and all of GRPO gains 1.2 points, so that
variants of it could not be told apart. The design is not a full factorial: the devices together, each taken away or
replaced alone, and the rivals.

- `devices`: 1.0 -> 0.6 over half of the steps, `rebalance`, length-uniform prompts: of 1,024 candidates those of whose
  two answers at T = 1.0 one is right, and of these the 60 % whose two are most alike in length
- `hot`, `cold`, `reverse`: the same at a fixed 1.0, at a fixed 0.6, and the same schedule backwards: 0.6 for half of
  the steps, then up to 1.0
- `unbalanced`: the same with plain GRPO's advantages (`group_normalised`)
- `any-length`: the same with 60 % of those prompts at random; `all-prompts`: without a choice of prompts, so that
  nothing is spent on one. The choice costs a fifth of the budget
- `plain`: plain GRPO, T = 1.0, `group_normalised`, all prompts. The trainer leaves out rows without an advantage and
  divides by the tokens that are left, so groups of one verdict are already no part of its mean
- `dapo`: as `plain` on twice the prompts a step, of which the first 32 groups with both verdicts are trained on: DAPO's
  dynamic sampling (arXiv 2503.14476), without its other changes
- `dr-grpo`: as `plain` without the division by the standard deviation (arXiv 2503.20783). Its other change, a constant
  in place of the answer's length, does not apply: the loss is a mean over all tokens of a step already
- `coin`: `devices`, on the same prompts, with a coin's reward, one toss an answer (run again: at first it had one a
  text, which is no noise; docs/log.md, 109 and 112)
- `start`: the student, and `dial`: the student at T = 0.3, what only a cooler sampler gains

In TRL the step's temperature divides the logits of the loss as well as those of sampling; both move together, as
`test_the_gradient_is_the_one_on_paper` in tests/stages/test_grpo_trainer.py shows at two temperatures.

**Settings** are those of the course's GRPO (`presets.LAB.grpo`) but for the above: Muon at 8e-4, linear, 32 prompts of
eight answers a step, one update each. **Equal compute**: each arm has 450,000 training tokens, a third of a sampled
token's among them, as the arms of `one_batch`. How many steps that makes is settled before its first: candidates are
probed and chosen, two trial steps are sampled from the student at the arm's mean temperature, and what they would cost
is taken for every step; choice and trial are paid for. A step becomes cheaper when fewer groups have both verdicts, so
arms may end below the budget; what each took is in its row, and the table shows it.

**Primary measure.** Accuracy at T = 0.6 (pass@1) on 500 problems of `hard`, four samples each; greedy and pass@8 (200
problems) beside it, and `easy`. Also kept: entropy at the first and last three steps, rewards, lengths, the share that
is trained on, and diversity: the share of different answers among the four to a problem at T = 0.6.

**Contrasts** (paired t over chains, Holm over all twelve; `CONTRASTS`, the first is the primary one). What would count:
the devices are worth it if they lie above `plain`; one of them is if the arm without it lies below. `dapo` and
`dr-grpo` are held against `plain`, which they change least: `dr-grpo` in the advantage alone, `dapo` in which groups a
step has, and so also in its answers and in how many steps it can pay for. `all-prompts` also asks no prompt twice, and
`cold` has the prompts that were mixed at T = 1.0.

**Seeds.** 10 to 21: each seed is a chain of the ladder (`--chains`), whose SFT model is the student, so what is shown
holds for chains of this base and teacher. Twelve see 0.9 standard deviations of the differences with 80 % power alone,
1.3 at Holm's strictest level of twelve. Over the ladder's twelve chains differences of trained arms had standard
deviations of 0.8 to 3.6 points, that of GRPO and rejection fine-tuning 1.3; on half the problems a little more: so 1.3
to 3.3 and 1.9 to 4.8 points.

**Budget**, counted at 7,000 training and 10,000 sampled tokens a second and thread: an arm samples 0.6 to 1.2 million
tokens and trains on 0.1 to 0.2 million, 110 s; eleven of them, and thirteen measurements of 3,300 answers of 180
tokens and of `easy`, 65 s each: 34 minutes a seed and thread, 3.4 hours for twelve seeds on two threads.

    phi-lab experiment rl_devices --seeds 10-21 --jobs 2 --chains runs/ladder --out runs/rl_devices
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.core.files import read_json, read_rows, write_json
from phi_lab.experiments.design import DIAL, Experiment, Log, Trial
from phi_lab.report.contrasts import Contrast

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult


@dataclass(frozen=True)
class Settings:
    """budget: training tokens of an arm. candidates: prompts to choose from. trial_steps: sampled to count a step.
    least_prompts: fewer chosen ones are an error, as an arm would ask the same few over and over.
    """

    budget: int
    candidates: int
    trial_steps: int = 2
    least_prompts: int = 64


@dataclass(frozen=True)
class Device:
    """How an arm differs from plain GRPO. temperatures: at the start, at the end, and the share of steps between."""

    temperatures: tuple[float, float, float] = (1.0, 1.0, 0.5)
    advantage: str = "plain"  # "rebalance", "plain", "mixed" or "mean"
    prompts: str = "all"  # "all"; "mixed": one of two answers is right; "uniform": of these the most alike in length
    backwards: bool = False  # the last step has the temperature of the first
    coin: bool = False


SETTINGS = {"lab": Settings(450_000, 1024), "smoke": Settings(20_000, 24, 1, 1)}
FALLING = (1.0, 0.6, 0.5)
ALL = Device(FALLING, "rebalance", "uniform")
DEVICES = {
    "devices": ALL, "hot": replace(ALL, temperatures=(1.0, 1.0, 0.5)),
    "cold": replace(ALL, temperatures=(0.6, 0.6, 0.5)), "reverse": replace(ALL, backwards=True),
    "unbalanced": replace(ALL, advantage="plain"), "any-length": replace(ALL, prompts="mixed"),
    "all-prompts": replace(ALL, prompts="all"), "plain": Device(), "dapo": Device(advantage="mixed"),
    "dr-grpo": Device(advantage="mean"), "coin": replace(ALL, coin=True),
}
ARMS = {
    "start": "the student as it is",
    "dial": f"the student, sampled at T = {DIAL}",
    "devices": "GRPO with the paper's three devices",
    "hot": "with T = 1.0 throughout",
    "cold": "with T = 0.6 throughout",
    "reverse": "with the schedule of T backwards, 0.6 to 1.0",
    "unbalanced": "without rebalancing",
    "any-length": "with prompts of the same difficulty and any length",
    "all-prompts": "without a choice of prompts",
    "plain": "plain GRPO, T = 1.0",
    "dapo": "plain, steps filled with groups of both verdicts (DAPO)",
    "dr-grpo": "plain, not divided by the standard deviation (Dr. GRPO)",
    "coin": "the three devices with a coin's reward",
}
CONTRASTS = (
    Contrast("devices", "plain", "are the three devices worth it?"),
    Contrast("devices", "start", "does reinforcement learning gain anything?"),
    Contrast("devices", "dial", "is it more than a cooler sampler?"),
    Contrast("devices", "hot", "does it need the falling temperature?"),
    Contrast("devices", "cold", "does it need the hot beginning?"),
    Contrast("devices", "reverse", "must the temperature fall and not rise?"),
    Contrast("devices", "unbalanced", "does it need rebalancing?"),
    Contrast("devices", "any-length", "does it need prompts alike in length?"),
    Contrast("devices", "all-prompts", "is a choice of prompts worth its cost?"),
    Contrast("dapo", "plain", "do steps filled with groups of both verdicts help?"),
    Contrast("dr-grpo", "plain", "does it help not to divide by the standard deviation?"),
    Contrast("devices", "coin", "does it need the verifier?"),
)


def prepare(trial: Trial, log: Log) -> None:
    """Nothing is shared but the student."""


def start(trial: Trial, arm: str) -> Path:
    """The student: a chain's SFT model."""
    return trial.model("sft")


def train(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """GRPO of one arm, as many steps as its budget pays for."""
    from phi_lab.experiments import grpo_arms
    from phi_lab.problems.problem import Problem
    from phi_lab.stages import grpo

    device, path = DEVICES[arm], out / "choice.json"
    if not path.exists():
        write_json(path, grpo_arms.choose(trial, device))
    choice = read_json(path, ("problems", "steps", "forward_tokens"))
    problems = [Problem(**{**problem, "steps": tuple(map(tuple, problem["steps"]))}) for problem in choice["problems"]]
    return grpo.train(
        start(trial, arm), problems, out, replace(grpo_arms.config(trial, device), steps=choice["steps"]),
        seed=trial.seed, reward=grpo_arms.reward(trial, device), advantage=grpo_arms.advantage(trial, device),
        temperature=grpo_arms.schedule(trial, device))


def extra_forward(trial: Trial, arm: str) -> int:
    """Tokens read and sampled to choose prompts and to count steps."""
    return int(read_json(trial.folder(arm).path / "choice.json", ("forward_tokens",))["forward_tokens"])


def notes(trial: Trial, arm: str) -> dict:
    """An arm's devices, prompts and steps; entropy (nats a token), reward (-1 to 1), length (tokens) and the share of
    answers that is trained on, each the mean of its first and of its last three steps.
    """
    if arm not in DEVICES:
        return {}
    rows, found = read_rows(trial.folder(arm).metrics), {}
    for name in ("entropy", "reward", "mean_length", "kept_share"):
        values = [row[name] for row in rows if name in row]
        if values:
            found[name] = [round(sum(part) / len(part), 4) for part in (values[:3], values[-3:])]
    choice = read_json(trial.folder(arm).path / "choice.json", ("problems",))
    return {"device": asdict(DEVICES[arm]), "prompts": len(choice["problems"]), "steps": len(rows), **found}


EXPERIMENT = Experiment(
    name="rl_devices", question="Which of the paper's three devices does reinforcement learning need?", arms=ARMS,
    contrasts=CONTRASTS, seeds=range(10, 22), stage="sft", makes_chains=False, settings=SETTINGS, problems=1,
    prepare=prepare, start=start, train=train, untrained={"start": 0.6, "dial": DIAL}, notes=notes,
    extra_forward=extra_forward,
)
