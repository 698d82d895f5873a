"""What a notebook reads from its run: models, rollouts, answers, ladders, and the ten problems before and after."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from weakref import WeakSet

from IPython.display import HTML

from phi_lab import sampling
from phi_lab.config.schema import STAGES, HardwareConfig, RunConfig
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows
from phi_lab.core.paths import SHIPPED, TEACHER
from phi_lab.core.run_folder import DataFolder, RunFolder
from phi_lab.distill import shards
from phi_lab.lab import difference_worth, paper_questions, tables
from phi_lab.lab.answers import answer_ten_problems, load_ten_problems
from phi_lab.lab.environment import display_path
from phi_lab.model import checkpoints
from phi_lab.pipeline import run_data, stage_runner
from phi_lab.report import doctor, figures, replications
from phi_lab.report.chain_rows import chains
from phi_lab.report.doctor import show
from phi_lab.report.html import text
from phi_lab.report.ladder_rows import SHIPPED_START, model_title, read_ladder
from phi_lab.report.plot_style import Figure

NO_CHAINS = "No independent chains are published with this version of the course."


def gains_tables(rows: Sequence[dict], stages: Sequence[str], caption: str) -> str:
    """What the named stages and their arms gain on `hard`: a table with the verdicts, and one of the other protocols
    below it, since nine columns do not fit into a narrow window.
    """
    head, *lines = replications.gains_table(rows)
    lines = [line for line in lines if line[0].partition("-")[0] in stages]
    of, split = 2, 6  # columns that name a comparison; where the other protocols begin
    beside = [line[:of] + line[split:] for line in lines]
    return tables.table("", head[:split], [line[:split] for line in lines]) + tables.table(
        caption, head[:of] + head[split:], beside
    )


class RunViews:
    """The reading half of `Lab`: it trains nothing and deletes nothing."""

    def __init__(self, run: RunFolder, config: RunConfig, seed: int):
        self.run, self.config, self.seed = run, config, seed
        self._loaded_models: WeakSet = WeakSet()

    @property
    def _training_config(self) -> RunConfig:
        """The configuration for what trains and measures: there "smoke" is the profile in which each stage starts from
        what is shipped, and a lesson does that, too.
        """
        return replace(self.config, profile="smoke") if self.config.profile == "lesson" else self.config

    def _starts_from_shipped(self, stage: str) -> bool:
        return stage_runner.starts_from_shipped(stage, self.run, self._training_config)

    # ------------------------------------------------------------------ models

    def origin(self, stage: str) -> str:
        """Where the model of a stage comes from: this run, the course, or (the base at a GPU scale) a folder or hub."""
        if self.run.stage(stage).model.is_dir():
            return "trained in this folder" + self.name(stage).removeprefix(model_title(stage))
        if self.config.scale == "cpu":
            return "shipped with the course"
        return self.config.model if stage == "base" else "not trained yet"

    def start(self, stage: str) -> str:
        """The model from which a stage starts: "mid", or "mid-shipped" for the shipped one instead of the run's own.

        Every method here that takes the name of a stage takes such a name, too.
        """
        before = STAGES[STAGES.index(stage) - 1]
        return f"{before}-{SHIPPED_START}" if self._starts_from_shipped(stage) else before

    def name(self, stage: str) -> str:
        """The title of a stage's model: "SFT", or "SFT (from the shipped mid-training)" if it started there."""
        shipped = stage in STAGES and self._starts_from_shipped(stage)
        return model_title(stage) + (f" (from the {model_title(self.start(stage))})" if shipped else "")

    def has_no_model(self, stage: str) -> bool:
        """Whether a stage, or "teacher", has no model: at a GPU scale only the base has one before it is trained."""
        return self.config.scale != "cpu" and stage != "base" and not self.run.stage(stage).model.is_dir()

    def folder(self, stage: str) -> Path:
        """The model folder of a stage, of "teacher", or of a `start`: the run's own where there is one, else the
        shipped one.

        Raises UserError where there is none.
        """
        if self.has_no_model(stage):
            path = display_path(self.run.path)
            raise UserError(f"{stage}: no model in {path}, and none is shipped for {self.config.scale}")
        if self.run.stage(stage).model.is_dir():
            return self.run.stage(stage).model
        if self.config.scale != "cpu":
            return checkpoints.resolve_model(self.config.model)
        return TEACHER if stage == "teacher" else SHIPPED / stage.removesuffix(f"-{SHIPPED_START}")

    def model(self, stage: str):
        """(model, tokenizer) of a stage, or of "teacher"; it leaves the GPU when the lab next trains or measures.

        Raises UserError where there is none.
        """
        folder = self.folder(stage)
        model = checkpoints.load(folder, HardwareConfig(dtype=self.config.mid.hardware.dtype))
        self._loaded_models.add(model)
        return model, checkpoints.load_tokenizer(folder)

    def _free_gpu(self) -> None:
        for model in self._loaded_models:
            model.to(checkpoints.CPU)
        sampling.release_engine()

    # ------------------------------------------------------------------ data and answers

    def data(self) -> DataFolder:
        """The folder of the distilled training sets; the first call distills them."""
        return run_data.training_data(self.run, self.config, self.seed)

    def funnel(self) -> dict:
        """How many rollouts each filter of the distillation removed (data/funnel.json)."""
        return read_json(self.data().funnel)

    def rollouts(self) -> list[dict]:
        """All rollouts of the teacher; `source` says which were sampled here and which are shipped."""
        sampled = [{**row, "source": "sampled here"} for row in shards.rows(self.data().rollouts)]
        if self.funnel()["rollouts"] == len(sampled):
            return sampled
        ids = {row["id"] for row in sampled}
        shipped = run_data.shipped_rollouts(self.config.distillation.shipped_questions, ids)
        return sampled + [{**row, "source": "shipped"} for row in shipped]

    def right(self) -> list[dict]:
        """The right rollouts: the training set of mid-training, from which SFT chooses its subset."""
        return read_rows(self.data().right)

    def wrong(self) -> list[dict]:
        """The teacher's wrong rollouts: the rejected answers of the paper's Rollout DPO."""
        return read_rows(self.data().wrong)

    def lengths(self, rows: list[dict]) -> list[int]:
        """Tokens of each row's question and answer together, by the tokenizer of the run's model."""
        tokenizer = checkpoints.load_tokenizer(self.folder("base"))
        from phi_lab.stages import packing  # loads TRL's companions: seconds

        return [len(packing.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows]

    def answers(self, stage: str, benchmark: str = "hard", temperature: float = 0.0) -> list[dict]:
        """The measured answers of a stage that the ladder counts, one row per sample; further ones for pass@k are not
        among them.
        """
        rows = read_rows(self.run.evals.answers(stage, benchmark))
        samples = self.config.evaluation.samples if benchmark == "hard" else 1
        return [row for row in rows if row["temperature"] == temperature and row["sample"] < samples]

    def ten_problems(self, stage: str) -> list[dict]:
        """The ten problems with a stage's greedy answers: the measured ones, or sampled now where none are measured."""
        if self.run.evals.answers(stage, "hard").exists():
            greedy = {row["id"]: row for row in self.answers(stage)}
            return [{**problem, **greedy[problem["id"]]} for problem in load_ten_problems(self.config.evaluation)]
        folder, config = self.folder(stage), self.config.evaluation
        model = checkpoints.load_to_sample(folder, config.engine)
        return answer_ten_problems(model, checkpoints.load_tokenizer(folder), config=config)

    def before_after(self, before: str, after: str) -> HTML:
        """The ten problems as two stages answer them, side by side; a stage without a model is named instead.

        If `before` is the stage before `after`, the model from which `after` started is shown for it.
        """
        if (before, after) in pairwise(STAGES):
            before = self.start(after)
        names = {before: model_title(before), after: self.name(after)}
        missing = "".join(
            f"<p>No model of {names.pop(stage)} here, and none is shipped for {self.config.scale}.</p>"
            for stage in (before, after)
            if self.has_no_model(stage)
        )
        columns = [self.ten_problems(stage) for stage in names]
        return HTML((tables.side_by_side(list(names.values()), columns) if names else "") + missing)

    def doctor(self, stage: str) -> HTML:
        """What the doctor finds in the files of a stage or arm ("grpo", "dpo-paper"), or of the "data"."""
        checked = doctor.check_stage(self.run, stage)
        if not checked:
            return HTML(f"<p>Nothing of {text(stage)} in {text(display_path(self.run.path))} yet.</p>")
        head, *lines = show.table(checked)
        return HTML(tables.table(show.summary(checked), head, lines) if lines else f"<p>{show.summary(checked)}</p>")

    # ------------------------------------------------------------------ ladders

    def ladder_rows(self) -> list[dict]:
        """The rows of ladder.json; none before the first measurement."""
        return read_ladder(self.run.ladder) if self.run.ladder.exists() else []

    def ladder(self, last: str = "grpo") -> Figure:
        """This run's ladder up to the stage `last`, beside the paper's."""
        stages = STAGES[: STAGES.index(last) + 1]
        next_start = (last, SHIPPED_START)  # the shipped checkpoint from which the stage after `last` started
        rows = [row for row in self.ladder_rows() if row["stage"] in stages]
        return figures.ladder([row for row in rows if (row["stage"], row["arm"]) != next_start])

    def replications(self) -> Figure | HTML:
        """The figure of the published chains and their controls."""
        rows = replications.published()
        return replications.figure(rows) if rows else HTML(NO_CHAINS)

    def gains(self, *stages: str) -> HTML:
        """What the named stages and their arms, or all, gain on `hard` over the published chains, and over rivals."""
        if not (rows := replications.published()):
            return HTML(NO_CHAINS)
        caption = (
            f"{len(chains(rows))} independent chains, 95 % intervals. p, Holm: how often chance alone would give such "
            "a difference, by a paired t-test corrected for the number of comparisons (notebook 06). Detectable: the "
            "smallest true difference that so many chains would show four times in five."
        )
        return HTML(gains_tables(rows, stages or STAGES, caption))

    def means(self) -> HTML:
        """The mean accuracy of every arm of the published chains on every benchmark."""
        if not (rows := replications.published()):
            return HTML(NO_CHAINS)
        head, *lines = replications.means_table(rows)
        return HTML(tables.table(f"Means over {len(chains(rows))} independent chains.", head, lines))

    def question(self, name: str) -> HTML:
        """What the experiment `name` on one of the paper's questions found (`phi-lab experiment --list`)."""
        return HTML(paper_questions.found(name))

    def worth(self, points: float, seeds: int, problems: int, samples: int) -> HTML:
        """Whether `seeds` seeds of each recipe (two or more), measured on so many problems with so many answers to
        each, show a difference of `points`, by the spread that the experiment `variance` found.
        """
        return HTML(difference_worth.shown(difference_worth.measured(), points, seeds, problems, samples))

    def questions(self) -> HTML:
        """All of them, a line each."""
        return HTML(paper_questions.all_found())
