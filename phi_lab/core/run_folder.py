"""Every path in the folder of a run, and in the folder of one of its stages.

    runs/first/
      config.json  ladder.json  ten.json  report.html
      data/        right.jsonl  wrong.jsonl  validation.jsonl  sets.json  funnel.json  rollouts/  validation/
      sft/         model/  metrics.jsonl  done.json  student.json  trainer/     dpo-paper/, sft-control/, ... likewise
      dpo/         the same, pairs.jsonl, and what the student itself answered: rollouts/  right.jsonl  wrong.jsonl
      evals/       sft.json  sft.hard.jsonl  ...
      notebooks/
"""

from pathlib import Path


def arm_name(stage: str, arm: str = "main") -> str:
    """The folder of a stage's arm, also the prefix of its evaluation files: "dpo" for "main", "dpo-paper" for "paper".
    """
    return stage if arm == "main" else f"{stage}-{arm}"


class StageFolder:
    """What training one stage leaves behind."""

    def __init__(self, path: Path):
        self.path = path
        self.model = path / "model"
        self.metrics = path / "metrics.jsonl"  # one row a logged step
        self.pairs = path / "pairs.jsonl"  # that Rollout DPO trains on
        self.done = path / "done.json"  # the mark of a finished stage, with its cost
        self.student = path / "student.json"  # fingerprint of the model that training started from
        self.trainer = path / "trainer"  # checkpoints while training goes on
        self.log = path / "launch.log"  # output of launched training processes
        self.functions = path / "parts.dill"  # a learner's functions on their way to those processes

    @property
    def finished(self) -> bool:
        return self.done.exists()


class DataFolder:
    """The distilled training sets of a run."""

    def __init__(self, path: Path):
        self.path = path
        self.right = path / "right.jsonl"
        self.wrong = path / "wrong.jsonl"
        self.validation = path / "validation.jsonl"
        self.rollouts = path / "rollouts"
        self.validation_rollouts = path / "validation"
        self.funnel = path / "funnel.json"
        self.mark = path / "sets.json"  # fingerprints of the sets
        self.teacher = path / "teacher.json"  # fingerprint of the teacher whose rollouts these are
        self.imported = path / "adopted.json"  # the mark of a set that came from elsewhere


class EvalFolder:
    """The answers of models to benchmarks; `name` is that of a stage or arm, or any other."""

    def __init__(self, path: Path):
        self.path = path

    def manifest(self, name: str) -> Path:
        """Which weights, seed and configuration the answers of `name` belong to."""
        return self.path / f"{name}.json"

    def answers(self, name: str, benchmark: str) -> Path:
        """One row a sample."""
        return self.path / f"{name}.{benchmark}.jsonl"


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path):
        self.path = path
        self.config = path / "config.json"
        self.data = DataFolder(path / "data")
        self.teacher = StageFolder(path / "teacher")  # only where the run trained one
        self.evals = EvalFolder(path / "evals")
        self.ladder = path / "ladder.json"
        self.ten_problems = path / "ten.json"
        self.report = path / "report.html"
        self.notebooks = path / "notebooks"  # executed copies

    def stage(self, stage: str, arm: str = "main") -> StageFolder:
        """The folder of a stage ("sft"), or of another arm of it ("dpo", "paper")."""
        return StageFolder(self.path / arm_name(stage, arm))
