"""The run behind a notebook: every cell calls the same functions as `phi-lab run`.

A notebook continues in the folder that the one before it left, or starts from the shipped checkpoint where there is
none. Finished work is found again, so a cell that is run twice costs nothing the second time. Environment variables
choose the folder, the profile, the seed and the hardware (`environment.py`).

    from phi_lab.lab import Lab; lab = Lab(); lab.stage("mid"); lab.measure("mid"); lab.before_after("base", "mid")
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from phi_lab import sampling
from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core.files import read_json, remove_folder, write_json
from phi_lab.core.locks import locked
from phi_lab.core.paths import ROOT
from phi_lab.distill import shards, teachers
from phi_lab.lab import environment, tables
from phi_lab.lab.answers import with_verdicts
from phi_lab.lab.environment import display_path
from phi_lab.lab.views import RunViews
from phi_lab.model import checkpoints
from phi_lab.pipeline import launch, measure, run_data, stage_runner
from phi_lab.problems import arithmetic
from phi_lab.problems.problem import WORLD, Problem
from phi_lab.report import report
from phi_lab.report.ladder_rows import SHIPPED_START, STAGE_TITLES

if TYPE_CHECKING:
    from phi_lab.stages.training import TrainingResult


LEARNER = "learner.json"  # in a stage's folder: whose functions trained it


def sources(functions: Mapping[str, Callable]) -> dict[str, str]:
    """A hash of the source of each function that a learner wrote; the course's own are left out."""
    found = {}
    for name, function in functions.items():
        if not str(getattr(function, "__module__", "")).startswith("phi_lab."):
            try:
                source = inspect.getsource(function)
            except (OSError, TypeError):  # typed at a prompt, or no plain function
                source = repr(function)
            found[name] = hashlib.sha256(source.encode()).hexdigest()[:16]
    return found


def trained_before(stage: str, then: Mapping[str, str], now: Mapping[str, str], seconds: float) -> str:
    """The line for a stage that is finished: with which functions it was trained, and how to train it with today's."""
    again = f'lab.reset("{stage}")'
    if then == now:
        return f"{stage} was trained here before{_whose(now)}; {again} deletes it and the stages after it"
    whose = _whose(then) or " with the reference"
    return (f"{stage} was trained here before{whose}, and what follows is that model; to train it again{_whose(now)}, "
            f"about {seconds:.0f} s: {again}, then this cell (the stages after it are deleted, too)")


def _whose(functions: Mapping[str, str]) -> str:
    return f" with your {' and '.join(functions)}" if functions else ""


class Lab(RunViews):
    """One run folder with its configuration and seed: what trains, measures or deletes; `RunViews` reads.

    scale: without it PHI_LAB_SCALE, else the scale with which the folder was opened, else "cpu".
    Raises UserError for an unknown scale or profile, a seed that is no number, or a folder of another configuration.
    """

    def __init__(self, scale: str | None = None):
        environment.silence_libraries()
        profile, seed = os.environ.get("PHI_LAB_PROFILE", "lab"), environment.seed()
        presets.course_config("cpu", profile)  # raises for an unknown profile, before its folder is looked up
        folder = environment.run_folder(profile)
        config = presets.course_config(scale or environment.default_scale(folder), profile)
        dataset, model = os.environ.get("PHI_LAB_DATA"), os.environ.get("PHI_LAB_MODEL")
        self.launcher = environment.launcher(config)
        from phi_lab.pipeline import run  # after the names are checked: what trains takes seconds to load

        has_data = bool(dataset) or folder.data.imported.exists()
        config = run.resolve_and_check(config, model, has_data, launch.count(self.launcher))
        super().__init__(folder, config, seed)
        run.open_run(folder, config, seed)
        if dataset:
            run_data.import_dataset(ROOT / dataset, folder)

    def _repr_html_(self) -> str:
        rows = [(STAGE_TITLES[stage], self.origin(stage)) for stage in STAGES]
        caption = f"Profile {self.config.profile}, seed {self.seed}, folder {display_path(self.run.path)}."
        if self.config.profile == "smoke":
            caption += " Smoke trains a few steps per stage: it shows that everything runs, not what training reaches."
        if self.config.profile == "lesson":
            caption += " A lesson trains each stage for less than a minute; the profile lab trains the whole recipe."
        if self._training_config.profile == "smoke" and self.config.scale == "cpu":
            caption += " Each stage starts from the shipped checkpoint of the stage before: its gain is the "
            caption += "difference to that checkpoint, and the stages do not form one chain."
        return tables.table(caption, ("stage", "where its model comes from"), rows)

    def stage(self, stage: str, **functions) -> TrainingResult:
        """Train one stage unless it is finished; `functions` replace the stage's own: pack=, pair=, advantage=, ...

        Raises UserError for an unknown stage.
        """
        presets.require_trained_stage(stage)
        finished, mine = self.run.stage(stage).finished, sources(functions)
        record = self.run.stage(stage).path / LEARNER
        if finished:
            print(trained_before(stage, read_json(record) if record.exists() else {}, mine,
                                 stage_runner.finished_cost(self.run.stage(stage))["seconds"]))
        else:
            start = display_path(stage_runner.start_checkpoint(stage, self.run, self._training_config))
            print(f"{stage} starts from {start} ({STAGES[STAGES.index(stage) - 1]})")
            if self.run.stage(stage).trainer.is_dir():
                print(f'it was stopped and goes on with the functions it had then; lab.reset("{stage}") starts it anew')
        self._free_gpu()
        result = stage_runner.run_stage(
            stage, self.run, self._training_config, self.seed, launcher=self.launcher, **functions)
        if mine and not finished:
            write_json(record, mine)
        return result

    def reset(self, stage: str) -> None:
        """Delete a stage, its other arms and all stages after it, so that its cell trains it again.

        Raises UserError for an unknown stage.
        """
        presets.require_trained_stage(stage)
        deleted = STAGES[STAGES.index(stage) :]
        with locked(self.run.path):
            for folder in [path for path in self.run.path.iterdir() if path.name.partition("-")[0] in deleted]:
                remove_folder(folder)
                for path in self.run.evals.path.glob(f"{folder.name}.*"):
                    path.unlink()
            self.run.ten_problems.unlink(missing_ok=True)  # the next measurement answers them again
            if self.run.ladder.exists():
                rows = [row for row in self.ladder_rows() if row["stage"] not in deleted]
                start = (STAGES[STAGES.index(stage) - 1], SHIPPED_START)  # measured for this stage only
                write_json(self.run.ladder, [row for row in rows if (row["stage"], row["arm"]) != start])
        print(f"deleted: {', '.join(deleted)}")

    def measure(self, *stages: str) -> None:
        """Evaluate stages on the three benchmarks, unless that is done; a stage trained again is measured again.

        Raises UserError for a stage without a model.
        """
        for stage in stages:
            self.folder(stage)
        self._free_gpu()
        for stage in stages:
            measure.measure(stage, self.run, self._training_config, self.seed)

    def paper_dpo(self, **functions) -> None:
        """Train and measure the paper's arm of Rollout DPO, on pairs of the teacher's rollouts, unless the stage itself
        has these; `functions` replace its own: pair=.
        """
        if self.config.dpo.pairs == "teacher":
            print(f"at the scale {self.config.scale} the pairs of the stage itself are the paper's: no second arm")
            return
        from phi_lab.pipeline import arms

        self._free_gpu()
        arms.run_paper_dpo(self.run, self._training_config, self.seed, **functions)

    def control(self, name: str) -> None:
        """Train and measure a rival of a stage at equal compute: one of `controls.ARMS`, such as "sft-control"."""
        from phi_lab.pipeline import controls

        self._free_gpu()
        controls.control(name, self.run, self._training_config, self.seed)

    def script_rollouts(self, questions: int) -> list[dict]:
        """Verified rollouts of the script that writes worked solutions, to the run's first questions.

        It solves only problems of the small world; a run on another set gets such problems instead of its own.
        """
        if self._public_problems():
            print("the script solves only problems of the small world: these are not the questions of this run's set")
        config, folder = self.config.distillation, self.data().path / "script"
        shards.collect_rollouts(
            teachers.script_teacher(config, self.seed), arithmetic.sample_problems(questions, self.seed), folder,
            name="script", samples=config.samples, temperature=config.temperature, seed=self.seed,
        )
        return list(shards.rows(folder, questions))

    def sample_groups(
        self, stage: str, prompts: int, temperature: float, size: int = 8,
        levels: tuple[int, ...] = arithmetic.HARD_LEVELS,
    ) -> list[list[dict]]:
        """`size` sampled answers to each of `prompts` training questions: rows with completion, verdict, tokens, and
        the `Problem`.

        levels: of the small world's questions; questions of another set are drawn from all of it.
        """
        seed, config, folder = self.seed + 70_000, self.config.evaluation, self.folder(stage)
        problems = self._public_problems(prompts, seed) or arithmetic.sample_problems(prompts, seed, levels=levels)
        params = sampling.SamplingParams(
            n=size, temperature=temperature, max_tokens=config.max_new_tokens, seed=self.seed
        )
        groups = sampling.sample(
            checkpoints.load_to_sample(folder, config.engine), checkpoints.load_tokenizer(folder),
            [problem.prompt for problem in problems], params, title=f"{stage} at {temperature}", engine=config.engine,
        )
        sampling.release_engine()
        return [
            with_verdicts([{"prompt": problem.prompt, "answer": problem.answer, "problem": problem}] * size, group)
            for problem, group in zip(problems, groups, strict=True)
        ]

    def _public_problems(self, count: int = 1, seed: int = 0) -> list[Problem]:
        """Problems of the set that this run has imported; none where its questions are of the small world."""
        if not self.run.data.imported.exists():
            return []
        problems = run_data.grpo_problems(self.data(), count, seed)
        return [problem for problem in problems if problem.domain not in WORLD]

    def write_report(self) -> str:
        """Write report.html and return its path."""
        return display_path(report.write_report(self.run.path))
