"""Is mid-training necessary, and do small sets hurt? Size of the set x steps x rate, without and after mid-training.

Written before the first run.

**Question.** The paper (section 3 and its tables) reports that fine-tuning the base on small curated sets alone, LIMO
or S1K, takes MATH-500 from 71.8 to 57.8 and 47.0, and concludes that a small model needs mid-training on much data
first. Is it the *stage* that is needed, or only its data and its compute? And is it the *small set* that hurts, or so
short a schedule on a new form of answer? On an earlier base a small set and all answers fell as far on the same
schedule, to 0 % of `easy` (docs/log.md, 81): at the floor neither can be told.

**Arms.** SFT's schedule (cosine, batch 32, no packing, a tenth replayed) and, but where said, its rate 2e-3 and its
compute C, the three epochs over 1,536 answers that the course's SFT takes (about 0.7 million training tokens). From the
base, without mid-training: 128, 512, 2,048 answers and all right ones (of 3,600 or so); 512 and 2,048 at a quarter of
the rate; 512 at its own validation optimum (cosines of C / 4, C / 2, C and 2 C, each to a rate of zero, of which the
one with the lowest validation loss is kept); 512's own questions with the shortest answers, as many tokens; all answers
for the compute of mid-training *and* C; and `mid-long`, mid-training's own settings for that compute. After
mid-training: 128, 512, 2,048 and all. `base` and `mid` are measured as they are. Sets are chosen by `stages/sft.py`,
from the right answers of the chain's own distillation.

**Primary measure.** Accuracy at T = 0.6, four samples each on 500 problems of `hard`; where the claim is the paper's
about MATH-500, on 500 of `easy` with one sample each, whose part it plays (the base is right on 70 % of it, on 2 % of
`hard`). Greedy and pass@8 beside it. `transfer` is not measured.

**Contrasts** (paired t over chains, Holm over all ten; `CONTRASTS`, the first is the primary one). What would count:
mid-training is necessary if mid-training and 2,048 answers lie above all answers at the same total compute without the
stage; how much of that is how the stage trains (rows packed, another rate, batch and schedule) and not that it comes
first, `mid-long` shows, and `mid-2048` against it what SFT adds to the stage for the same compute. Small sets hurt if
512 answers lie below the base *and* below 2,048 on the same schedule; if only the first holds, the schedule hurts. At
the rate of the course both may end at 0 % of `easy`; then the pair at a quarter of the rate has to tell. Where both
arms have less than 5 % in the mean they are at the floor, and no difference is shown, whatever p is. `mid-512` has had
mid-training's answers and compute before its own, and `base-512-best` has not: their difference is what mid-training
is worth to a small set, not at equal compute. `base-128`, `base-all`, `mid-128` and `mid-all` are points of the figure
and are in no claim. A difference that is not shown is not shown, with the smallest one that would have been.

**Seeds.** A seed is a whole chain: its own distillation and mid-training. Eight, fixed before the first: 10 to 17, of
the ladder (`--chains` takes its data and its mid-trained model; without it they are made here). Eight see 1.2 standard
deviations of the differences of chains with 80 % power alone, 1.8 at Holm's strictest level. On `easy` the evaluation
alone has a standard deviation of up to 3.2 points a difference, so 3.8 and 5.8 points there.

**Budget**, counted at 7,000 training and 10,000 sampled tokens a second and thread: from the base 9 arms of C (the
rates and the short answers among them), 3.75 C for the optimum, twice 3.9 million tokens at length, 4 C after
mid-training: 19.5 million tokens, 2,800 s. Measuring 16 models: 3,300 answers of 180 tokens on `hard` and 1,000 short
ones, 65 s each, 1,050 s. So 64 minutes a chain and thread; eight chains on two threads 4.3 hours, and 1.5 more where
distillation and mid-training are made here.

    phi-lab experiment mid_training --seeds 10-17 --jobs 2 --chains runs/ladder --out runs/mid_training
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.core.files import read_rows, remove_folder, replace_folder, write_rows
from phi_lab.core.run_folder import StageFolder
from phi_lab.experiments.design import Experiment, Log, Trial
from phi_lab.report.contrasts import Contrast

if TYPE_CHECKING:
    from phi_lab.pipeline.controls import Rung
    from phi_lab.stages.training import TrainingResult

SLOW = 4  # times the rate of SFT is that of the slow arms
LONG_STAGE = "mid-long"  # mid-training itself, so from the base
OPTIMA = (0.25, 0.5, 1.0, 2.0)  # times the compute of SFT: the schedules among which the small set has its optimum


@dataclass(frozen=True)
class Settings:
    """sizes: of the sets, in answers; the second is the small set of the controls, the third that of the recipe."""

    sizes: tuple[int, int, int]


SETTINGS = {"lab": Settings((128, 512, 2048)), "smoke": Settings((8, 16, 32))}
SIZES = {"128": 0, "512": 1, "2048": 2}  # names of arms keep the lab's sizes, whatever the profile
ARMS = {
    "base": "the base as it is",
    "base-128": "SFT of the base on 128 answers",
    "base-512": "SFT of the base on 512 answers",
    "base-2048": "SFT of the base on 2,048 answers",
    "base-all": "SFT of the base on all right answers, on the same schedule",
    "base-512-slow": "512 answers at a quarter of the rate",
    "base-2048-slow": "2,048 answers at a quarter of the rate",
    "base-512-best": "512 answers at their own validation optimum",
    "base-short": "the 512's questions with the shortest answers, as many tokens",
    "base-all-long": "all answers for the compute of mid-training and SFT",
    "mid-long": "mid-training for the compute of mid-training and SFT",
    "mid": "mid-training as it is",
    "mid-128": "mid-training, then SFT on 128 answers",
    "mid-512": "mid-training, then SFT on 512 answers",
    "mid-2048": "mid-training, then SFT on 2,048 answers",
    "mid-all": "mid-training, then SFT on all right answers",
}
CONTRASTS = (
    Contrast("mid-2048", "base-all-long", "is it the stage, or its data and compute?"),
    Contrast("mid-long", "base-all-long", "is it how the stage trains?"),
    Contrast("mid-2048", "mid-long", "is SFT after it more than as much of the stage?"),
    Contrast("mid-512", "base-512-best", "is a small set worth more after mid-training than at its own optimum?"),
    Contrast("base-512", "base", "does so short a training on a small set hurt?", "easy", -1),
    Contrast("base-512", "base-2048", "is it the small set, or the short schedule?", "easy", -1),
    Contrast("base-512-slow", "base-2048-slow", "is it the small set, at a lower rate?", "easy", -1),
    Contrast("base-512", "base-short", "is it the length of its answers?", "easy", -1),
    Contrast("base-512-best", "base", "does it hurt at its own optimum, too?", "easy", -1),
    Contrast("mid-2048", "mid-512", "after mid-training, are more answers better than few?"),
)


def prepare(trial: Trial, log: Log) -> None:
    """The chain's distillation and mid-training, where no other folder has them."""
    from phi_lab.pipeline.stage_runner import run_stage

    if trial.source is None:
        run_stage("mid", trial.run, trial.config, trial.seed, log)


def start(trial: Trial, arm: str) -> Path:
    """The base, or the chain's mid-trained model."""
    if arm.startswith("base") or arm == LONG_STAGE:
        return trial.model("base")
    return (trial.source or trial.run).stage("mid").model


def rung(trial: Trial, arm: str, size: int) -> Rung:
    """What the controls of the ladder take: a start, and the compute that an arm has. size: of the small set."""
    from phi_lab.pipeline.controls import Rung
    from phi_lab.stages.training import TrainingResult

    run = trial.source or trial.run
    config = replace(trial.config, sft=replace(trial.config.sft, documents=size))
    return Rung(run, config, trial.seed, start(trial, arm), TrainingResult(run.path, [], 0.0, sft_compute(trial)))


def sft_compute(trial: Trial) -> int:
    """What the course's SFT takes, C: its epochs over its choice of answers, and what it replays, in tokens."""
    from phi_lab.model import checkpoints
    from phi_lab.stages import lm_trainer, sft
    from phi_lab.stages.packing import document

    plan, run = trial.config.sft, trial.source or trial.run
    tokenizer = checkpoints.load_tokenizer(trial.model("base"))
    rows = sft.choose(read_rows(run.data.right), plan.documents, trial.seed)
    tokens = sum(len(document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows)
    steps = lm_trainer.count_steps(len(rows), plan)
    return round(steps * plan.batch_size * tokens / len(rows) / (1 - plan.replay_share))


def train(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """SFT of one arm, or the longer mid-training."""
    from phi_lab.pipeline import controls
    from phi_lab.stages import sft

    _, size, *how = arm.split("-")
    small = trial.settings.sizes[1]
    on = rung(trial, arm, trial.settings.sizes[SIZES[size]] if size in SIZES else small)
    if arm == LONG_STAGE:
        return longer_stage(trial, out, on.compute)
    if how == ["best"]:
        return best_of_schedules(on, out)
    if how == ["long"]:
        return controls.fine_tune(on, out, on.rows(), mid_compute(trial) + on.compute)
    settings = {"learning_rate": trial.config.sft.learning_rate / SLOW} if how == ["slow"] else {}
    if size == "short":
        return controls.fine_tune(on, out, short_answers(on), on.compute)
    choose: Callable[[], list[dict]] = on.rows if size == "all" else lambda: sft.choose(
        on.rows(), on.config.sft.documents, trial.seed)
    return controls.fine_tune(on, out, choose(), on.compute, **settings)


def mid_compute(trial: Trial) -> float:
    """What the chain's mid-training took, in tokens. Raises UserError where its files are damaged."""
    from phi_lab.pipeline.stage_runner import finished_result

    mid = finished_result((trial.source or trial.run).stage("mid"))
    return mid.compute if mid else 0.0


def longer_stage(trial: Trial, out: Path, more: float) -> TrainingResult:
    """Mid-training of the base by its own settings, for as many epochs as its compute and `more` (tokens) pay for."""
    from phi_lab.stages import mid_training

    run, plan, took = trial.source or trial.run, trial.config.mid, mid_compute(trial)
    times = (took + more) / took
    plan = replace(plan, epochs=plan.epochs * times, steps=round(plan.steps * times))
    return mid_training.train(trial.model("base"), run.data.right, run.data.validation, out, plan, seed=trial.seed)


def best_of_schedules(on: Rung, out: Path) -> TrainingResult:
    """SFT on the small set by each of `OPTIMA`, all to a rate of zero; the model with the lowest validation loss at its
    end, with what all of them took.
    """
    from phi_lab.pipeline import controls
    from phi_lab.pipeline.stage_runner import finished_result
    from phi_lab.stages.training import mark_finished

    rows, results = on.small_set(), []
    for share in OPTIMA:
        folder = StageFolder(out / f"{share:g}")
        results.append(finished_result(folder) or controls.fine_tune(on, folder.path, rows, share * on.compute))
    best = min(results, key=lambda result: [row["eval_loss"] for row in result.metrics if "eval_loss" in row][-1])
    folder = StageFolder(out)
    write_rows(folder.metrics, best.metrics)
    shutil.copytree(best.model, out / "model.part", dirs_exist_ok=True)
    replace_folder(out / "model.part", folder.model)
    total = replace(best, model=folder.model, seconds=sum(one.seconds for one in results),
                    train_tokens=sum(one.train_tokens for one in results),
                    forward_tokens=sum(one.forward_tokens for one in results))
    mark_finished(folder, total)
    for share in OPTIMA:  # last: until the mark is there, a stopped arm goes on from them
        remove_folder(out / f"{share:g}")
    return total


def short_answers(on: Rung) -> list[dict]:
    """The shortest right answers to the small set's questions, written out as its own are: first the shortest of each
    question, then the second, until there are as many tokens as in the small set.
    """
    from phi_lab.pipeline.controls import total
    from phi_lab.stages import sft

    small, by_question = on.small_set(), defaultdict(list)
    asked = {row["id"] for row in small}
    for row in sorted(on.rows(), key=lambda row: row["tokens"]):
        if row["id"] in asked and sft.mostly_written_out(row["completion"]):
            by_question[row["id"]].append(row)
    ranked = [row for rank in zip_longest(*by_question.values()) for row in rank if row]
    wanted, so_far = total(small), accumulate(row["tokens"] for row in ranked)
    return [row for row, tokens in zip(ranked, so_far, strict=True) if tokens <= wanted]


def notes(trial: Trial, arm: str) -> dict:
    """The validation losses of an arm, by step."""
    metrics = trial.folder(arm).metrics
    rows = read_rows(metrics) if metrics.exists() else []
    return {"eval_loss": [[row["step"], round(row["eval_loss"], 4)] for row in rows if "eval_loss" in row]}


EXPERIMENT = Experiment(
    name="mid_training", question="Is mid-training necessary, and do small sets hurt without it?", arms=ARMS,
    contrasts=CONTRASTS, seeds=range(10, 18), stage="mid", makes_chains=True, settings=SETTINGS,
    problems=1, prepare=prepare, start=start, train=train,
    untrained={"base": 0.6, "mid": 0.6}, notes=notes,
)
