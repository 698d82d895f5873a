"""One batch of rollouts, ten uses: what is a batch of sampled and verified answers good for, at equal compute?

Written before the first run.

**Question.** The paper makes preference pairs of what its *teacher* got right and wrong and trains plain DPO on them;
the field argues whether the wrong answers help at all, whose they must be, and whether a teacher's score of every token
beats a verdict on the whole answer. Every arm here has the same student (a chain's SFT model) and the same batch: 600
new questions of one to seven operations, eight answers of the student and eight of the teacher to each, sampled at
T = 0.8 and verified. They differ in what they do with it:

- `teacher-pairs`, the paper's: the teacher's right answers over the teacher's wrong ones
- `teacher-over-own`: the teacher's right answers over the student's wrong ones
- `own-matched`: the student's right answers over its own wrong ones; these three have the same number of pairs of each
  number of operations, so that they differ in whose answers they are
- `own-pairs`: all such pairs of the student's; `cut-pairs`: its wrong answers cut before the first wrong step, a right
  step over that one; `random-pairs`: the wrong side is one of another problem's pair, so no contrast is left
- `rejection`: SFT on the chosen sides of `own-pairs`: the same right answers without the wrong ones
- `distill`: the reverse KL divergence from the teacher at each token of the student's answers, the loss of on-policy
  distillation; but these are answers of the student before it was trained
- `grpo`: the clipped loss on its answers with the course's rebalanced advantages, in several passes
- `coin`: the same with a coin's reward, one toss an answer, the control (run again: at first it had one a text, which
  is no noise; docs/log.md, 109 and 112)

and beside them `start`, the student, and `dial`, the student sampled at T = 0.3: what only a cooler sampler gains.

**Settings.** All preference arms have DPO's loss alone, as in the paper and in the course's `dpo-paper`: AdamW at 1e-4,
cosine, 8 pairs a step, beta 0.1. Both own and teacher's pairs are known to leave a student unharmed at that rate: on
two tuning seeds own pairs took 67.0 and 71.4 to 75.6 and 77.9 (docs/log.md, 93), and `dpo-paper` ends level with its
start. The course's own stage adds SFT's loss of the chosen side with weight 100 and has Muon; with that loss the
teacher's pairs took a student from 71.4 to 48.6, so it could not compare whose answers to take. `rejection` and
`distill`: Muon at 1e-3, cosine, 16 answers a step, as the course's rejection fine-tuning, but without replay. `grpo`
and `coin`: Muon at 8e-4, linear, 32 answers a step. None was tuned for this experiment.

**Equal compute.** Each trained arm has 450,000 training tokens, over a hundred steps of DPO (`TrainingResult.compute`):
what is read forward and backward, and a third of what is only read: references, old log-probabilities, and the
teacher's scores, a token of the wider teacher at the ratio of the models' weights. Pairs or answers are used as often
as that pays for; where the last pass is a broken one it has a random part of them. A pair is charged with both of its
sides whole, though what they share is read once: so `cut-pairs` does less work than it is charged for. The batch is
shared and is charged to none: 0.9 million sampled tokens of either model.

**Primary measure.** Accuracy at T = 0.6 on 500 problems of `hard`, four samples each; greedy and pass@8 (200 problems)
beside it, and `easy`. Also kept: both log-probabilities and margins through the training of the preference
arms, and for every arm, before and after, the mean log-probabilities of 128 pairs each of own and of teacher's answers.

**Contrasts** (paired t over chains, Holm over all ten; `CONTRASTS`, the first is the primary one). What would count:
pairs have to be the student's own if `own-matched` lies above `teacher-pairs`; wrong answers help if `own-pairs` lies
above `rejection`, and as answers to the same question if above `random-pairs`; it is more than a dial if above `dial`.
Expected after the ladder, where Rollout DPO lies 1.2 points above SFT on its chosen sides: that the last of these is
shown, and the second is not.

**Seeds.** 10 to 21: each seed is a chain of the ladder (`--chains`), whose SFT model is the student, so what is shown
holds for chains of this base and teacher. Twelve see 0.9 standard deviations of the differences with 80 % power alone,
1.3 at Holm's strictest level of ten. Differences of two trainings in a chain had standard deviations of 1.2 to 1.7
points on the ladder's first four chains; half the problems make that 1.4 to 1.9: so 1.3 to 1.7 and 1.8 to 2.5 points.

**Budget**, counted at 7,000 training and 10,000 sampled tokens a second and thread: the batch 180 s a seed, ten trained
arms 65 s each, twelve measurements of 3,300 answers of 180 tokens and of `easy`, 65 s each: 27 minutes a seed and
thread, 2.7 hours for twelve seeds on two threads.

    phi-lab experiment one_batch --seeds 10-21 --jobs 2 --chains runs/ladder --out runs/one_batch
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.experiments.design import DIAL, Experiment, Log, Trial
from phi_lab.report.contrasts import Contrast

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult


@dataclass(frozen=True)
class Settings:
    """questions: of the batch. budget: training tokens of an arm. grpo_batch: answers a step."""

    questions: int
    budget: int
    grpo_batch: int = 32


SETTINGS = {"lab": Settings(600, 450_000), "smoke": Settings(30, 20_000, 8)}
ARMS = {
    "start": "the student as it is",
    "dial": f"the student, sampled at T = {DIAL}",
    "teacher-pairs": "the paper's: teacher's right over teacher's wrong",
    "teacher-over-own": "teacher's right over the student's wrong",
    "own-matched": "the student's right over its wrong, as many as the teacher's",
    "own-pairs": "all pairs of the student's right over its wrong",
    "cut-pairs": "pairs cut at the first wrong step",
    "random-pairs": "the student's right over another problem's answer",
    "rejection": "SFT on the right answers of its pairs",
    "distill": "distillation on these answers, the teacher scores each token",
    "grpo": "GRPO on the batch",
    "coin": "GRPO on the batch with a coin's reward",
}
CONTRASTS = (
    Contrast("own-matched", "teacher-pairs", "must pairs be the student's own?"),
    Contrast("teacher-pairs", "start", "do the paper's pairs teach anything?"),
    Contrast("teacher-over-own", "teacher-pairs", "is it the wrong side that must be the student's?"),
    Contrast("own-pairs", "rejection", "do wrong answers help?"),
    Contrast("own-pairs", "random-pairs", "must they answer the same question?"),
    Contrast("own-pairs", "dial", "is it more than a cooler sampler?"),
    Contrast("cut-pairs", "own-pairs", "is the first wrong step better than the whole answer?"),
    Contrast("distill", "own-pairs", "is a score of each token better than a verdict?"),
    Contrast("grpo", "rejection", "does GRPO make more of the batch than its right answers?"),
    Contrast("grpo", "coin", "does it need the verifier?"),
)


def start(trial: Trial, arm: str) -> Path:
    """The student: a chain's SFT model."""
    return trial.model("sft")


def prepare(trial: Trial, log: Log) -> None:
    """Sample and verify the batch, unless that is done."""
    from phi_lab.experiments import batch_uses

    batch_uses.sample_batch(trial, log)


def train(trial: Trial, arm: str, out: Path) -> TrainingResult:
    """Train one arm."""
    from phi_lab.experiments import batch_uses

    return batch_uses.USES[arm](trial, arm, out)


def notes(trial: Trial, arm: str) -> dict:
    """The curves of an arm, and what it makes of 128 pairs of each kind."""
    from phi_lab.experiments import batch_uses

    return batch_uses.notes(trial, arm)


EXPERIMENT = Experiment(
    name="one_batch", question="What is one batch of sampled and verified answers best used for, at equal compute?",
    arms=ARMS, contrasts=CONTRASTS, seeds=range(10, 22), stage="sft", makes_chains=False, settings=SETTINGS, problems=1,
    prepare=prepare, start=start, train=train, untrained={"start": 0.6, "dial": DIAL}, notes=notes,
)
