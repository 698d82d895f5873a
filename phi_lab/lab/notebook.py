"""The run folder behind a notebook: every cell is a thin call into the chain that `phi-lab run` uses.

A notebook goes on in the folder that the one before it left, or starts from the shipped checkpoint where there is none.
What is finished is found again, so a cell that is run twice costs nothing the second time. Environment variables
change where and how long: PHI_LAB_RUN (a folder; without it `runs/course`), PHI_LAB_PROFILE (`lab` or `smoke`),
PHI_LAB_SEED, PHI_LAB_DATA (a folder of `phi-lab distill`, to train on your own set), PHI_LAB_SCALE (`cpu`, `lora`,
`qlora` or `full`; without it, what the folder was opened with), and at a GPU scale PHI_LAB_MODEL (a folder or a name on
the hub) and PHI_LAB_SETS (a folder with copies of the benchmarks). PHI_LAB_PROCESSES: so many processes train a stage
together, by torchrun; without it, one for each GPU at the scale full.

    from phi_lab.lab import Lab; lab = Lab(); lab.stage("mid"); lab.measure("mid"); lab.before_after("base", "mid")
"""

import logging
import os
import shutil
import warnings
from itertools import pairwise
from pathlib import Path
from weakref import WeakSet

import datasets
import transformers
from IPython.display import HTML

from phi_lab import sampling
from phi_lab.config import presets, schema
from phi_lab.config.presets import LAB
from phi_lab.config.schema import STAGES, EvaluationConfig, HardwareConfig, read_config
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows, write_json
from phi_lab.core.paths import ROOT
from phi_lab.core.run_folder import DataFolder, RunFolder
from phi_lab.distill import shards
from phi_lab.distill.teachers import script
from phi_lab.lab import tables
from phi_lab.model import checkpoints
from phi_lab.pipeline import arms, experiment, launch, measure, run, run_data, stage_runner
from phi_lab.problems import arithmetic, benchmarks, worked_solutions
from phi_lab.problems.problem import WORLD, Problem
from phi_lab.report import figures, replications, report
from phi_lab.report.ladder_rows import SHIPPED_START, STAGE_TITLES, model_title
from phi_lab.report.plot_style import Figure
from phi_lab.stages import language_modeling
from phi_lab.stages.training import Result
from phi_lab.verify import verify_many

NO_CHAINS = "No independent chains are published with this version of the course."
FOLDERS = {"lab": "runs/course", "smoke": "runs/course-smoke"}


class Lab:
    """One run folder, with its numbers and its seed.

    scale_name: without it PHI_LAB_SCALE, else the scale that the folder was opened with, else "cpu".

    Raises UserError for an unknown scale or profile, a seed that is no number, or a folder of another configuration.
    """

    def __init__(self, scale_name: str | None = None):
        quiet()
        profile, seed = os.environ.get("PHI_LAB_PROFILE", "lab"), os.environ.get("PHI_LAB_SEED", "0")
        if not seed.isdecimal():
            raise UserError(f"PHI_LAB_SEED={seed!r} is not a number: unset it, or write for example PHI_LAB_SEED=1")
        presets.run_config("cpu", profile)  # or it raises: there is no such profile, and so no folder of it
        self.run = RunFolder(ROOT / os.environ.get("PHI_LAB_RUN", FOLDERS[profile]))
        config = presets.run_config(scale_name or default_scale(self.run), profile)
        own, model = os.environ.get("PHI_LAB_DATA"), os.environ.get("PHI_LAB_MODEL")
        processes = os.environ.get("PHI_LAB_PROCESSES", "")
        if processes and not (processes.isdecimal() and int(processes)):
            raise UserError(f"PHI_LAB_PROCESSES={processes!r} is not a number of processes: unset it, or write 2")
        self.launcher = launch.local(int(processes)) if processes else launch.default_launcher(config)
        has_data = bool(own) or self.run.data.imported.exists()
        self.config = run.resolve_and_check(config, model, has_data, launch.count(self.launcher))
        self.seed = int(seed)
        self._shown: WeakSet = WeakSet()  # models that were handed out for a look
        run.open_run(self.run, self.config, self.seed)
        if own:
            run_data.import_dataset(ROOT / own, self.run)

    def _repr_html_(self) -> str:
        rows = [(STAGE_TITLES[stage], self.origin(stage)) for stage in STAGES]
        about = f"Profile {self.config.profile}, seed {self.seed}, folder {short(self.run.path)}."
        if self.config.profile == "smoke":
            about += " Smoke takes a few steps: it shows that everything runs, not what it reaches."
            if self.config.scale == "cpu":
                about += " Each stage starts from the shipped checkpoint of the stage before: what it brought is the "
                about += "difference to that, and no climb from the first stage to the last."
        return tables.table(about, ("stage", "where its model comes from"), rows)

    # ------------------------------------------------------------------ the chain

    def data(self) -> Path:
        """The folder of the distilled training sets, made on first use."""
        return run_data.training_data(self.run, self.config, self.seed).path

    def stage(self, stage: str, **functions) -> Result:
        """Train one stage, or find it trained. `functions` are yours: pack=, pair=, advantage=, ..."""
        if self.run.stage(stage).finished:
            print(f'{stage} was trained here before; lab.again("{stage}") forgets it and what came after')
        else:
            before = STAGES[STAGES.index(stage) - 1]
            print(f"{stage} starts from {short(stage_runner.start_checkpoint(stage, self.run, self.config))} ({before})")
            if self.run.stage(stage).trainer.is_dir():
                print(f'it was stopped and goes on, by the function it had then; lab.again("{stage}") starts it anew')
        self._make_room()
        return stage_runner.run_stage(stage, self.run, self.config, self.seed, launcher=self.launcher, **functions)

    def again(self, stage: str) -> None:
        """Forget a stage and all that came after it, so that its cell trains it anew."""
        gone = STAGES[STAGES.index(stage) :]
        for folder in [one for one in self.run.path.iterdir() if one.name.partition("-")[0] in gone]:  # sft-control too
            shutil.rmtree(folder, ignore_errors=True)
            for path in self.run.evals.path.glob(f"{folder.name}.*"):
                path.unlink()
        if self.run.ladder.exists():
            kept = [row for row in self.rungs() if row["stage"] not in gone]
            start = (STAGES[STAGES.index(stage) - 1], SHIPPED_START)  # measured for this stage only
            write_json(self.run.ladder, [row for row in kept if (row["stage"], row["arm"]) != start])
        print(f"forgotten: {', '.join(gone)}")

    def measure(self, *stages: str) -> None:
        """Evaluate stages on the three benchmarks, unless it is done. A retrained stage is measured anew.

        Raises UserError for a stage without a model.
        """
        for stage in stages:
            self.folder(stage)
        self._make_room()
        for stage in stages:
            measure.measure(stage, self.run, self.config, self.seed)

    def on_policy_dpo(self) -> None:
        """Train and measure the second arm of Rollout DPO, pairs from the student's own rollouts, where the scale has
        it.
        """
        if not self.config.dpo.on_policy_questions:
            print(f"the scale {self.config.scale} has no second arm of Rollout DPO: it asks the student no questions")
            return
        self._make_room()
        arms.run_on_policy_dpo(self.run, self.config, self.seed)

    def control(self, stage: str) -> None:
        """Train and measure the control of a stage: the stage before, continued at equal compute."""
        self._make_room()
        experiment.control(stage, self.run, self.config, self.seed)

    def write_report(self) -> str:
        """Write report.html; returns its path."""
        return short(report.write_report(self.run.path))

    # ------------------------------------------------------------------ what to look at

    def origin(self, stage: str) -> str:
        """Where the model of a stage comes from: this run, or the shipped checkpoint; at a GPU scale the base comes
        from a folder or the hub, and no other model is there before it is trained.
        """
        if self.run.stage(stage).model.is_dir():
            return "trained in this folder" + self.name(stage).removeprefix(model_title(stage))
        if self.config.scale == "cpu":
            return "shipped with the course"
        return self.config.model if stage == "base" else "not trained yet"

    def start(self, stage: str) -> str:
        """Which model a stage starts, or started, from: "mid", or "mid-shipped" where that is the shipped checkpoint
        and not this run's own. All that looks at models and answers here takes either.
        """
        before = STAGES[STAGES.index(stage) - 1]
        return f"{before}-{SHIPPED_START}" if stage_runner.starts_from_shipped(stage, self.run, self.config) else before

    def name(self, stage: str) -> str:
        """What a page calls a model: "SFT", or if it started from a shipped one "SFT (from the shipped ...)"."""
        apart = stage in STAGES and stage_runner.starts_from_shipped(stage, self.run, self.config)
        return model_title(stage) + (f" (from the {model_title(self.start(stage))})" if apart else "")

    def has_no_model(self, stage: str) -> bool:
        """Whether there is no model of a stage, or of "teacher": at a GPU scale only the base is there from the
        start.
        """
        return self.config.scale != "cpu" and stage != "base" and not self.run.stage(stage).model.is_dir()

    def folder(self, stage: str) -> Path:
        """Where the model of a stage, of "teacher", or of a `start` lies: this run's own where there is one, else the
        shipped one.

        Raises UserError where there is none.
        """
        if self.has_no_model(stage):
            raise UserError(f"{stage}: no model in {short(self.run.path)}, and none is shipped for {self.config.scale}")
        if self.run.stage(stage).model.is_dir():
            return self.run.stage(stage).model
        if self.config.scale != "cpu":
            return checkpoints.resolve_model(self.config.model)
        return paths.TEACHER if stage == "teacher" else paths.SHIPPED / stage.removesuffix(f"-{SHIPPED_START}")

    def model(self, stage: str):
        """(model, tokenizer) of a stage, or of "teacher", for a look: it leaves the GPU when the lab next trains or
        measures.

        Raises UserError where there is none.
        """
        folder = self.folder(stage)
        model = checkpoints.load(folder, HardwareConfig(dtype=self.config.mid.hardware.dtype))
        self._shown.add(model)
        return model, checkpoints.load_tokenizer(folder)

    def _make_room(self) -> None:
        for model in self._shown:
            model.to(checkpoints.CPU)
        sampling.release_engine()

    def metrics(self, stage: str) -> list[dict]:
        """What a stage logged while it trained."""
        return read_rows(self.run.stage(stage).metrics)

    def funnel(self) -> dict:
        """What each filter of the distillation removed."""
        return read_json(self.data() / "funnel.json")

    def rollouts(self) -> list[dict]:
        """All rollouts of the teacher; `source` says which were sampled here and which are shipped."""
        live = [{**row, "source": "sampled here"} for row in shards.rows(self.data() / "rollouts")]
        if self.funnel()["rollouts"] == len(live):
            return live
        shipped = run_data.shipped_rollouts(self.config.distillation.shipped_questions, {row["id"] for row in live})
        return live + [{**row, "source": "shipped"} for row in shipped]

    def scripted(self, questions: int) -> list[dict]:
        """Rollouts of the worked-solution script to this run's first questions, verified like the teacher's. It knows
        only the small world: a run on another set gets questions that its teacher was not asked.
        """
        if self._natural():
            print("the script knows only the small world: its questions are not those of this run's set")
        plan, folder = self.config.distillation, self.data() / "script"
        shards.collect_rollouts(script(plan, self.seed), arithmetic.sample_problems(questions, self.seed), folder, name="script",
                    samples=plan.samples, temperature=plan.temperature, seed=self.seed)
        return list(shards.rows(folder, questions))

    def right(self) -> list[dict]:
        """The right rollouts that mid-training and SFT learn from."""
        return read_rows(self.data() / "right.jsonl")

    def wrong(self) -> list[dict]:
        """The wrong rollouts that Rollout DPO learns against."""
        return read_rows(self.data() / "wrong.jsonl")

    def own_wrong(self) -> list[dict]:
        """The student's own wrong rollouts, from the second arm of Rollout DPO; none at a scale without it."""
        if not self.config.dpo.on_policy_questions:
            return []
        return read_rows(DataFolder(self.run.stage("dpo", "own").path).wrong)

    def lengths(self, rows: list[dict]) -> list[int]:
        """Tokens of each row's question and answer together, by the tokenizer of the run's model."""
        tokenizer = checkpoints.load_tokenizer(self.folder("base"))
        return [len(language_modeling.document(tokenizer, row["prompt"], row["completion"])[0]) for row in rows]

    def answers(self, stage: str, benchmark: str = "hard", temperature: float = 0.0) -> list[dict]:
        """The answers of a stage that its rung counts, one row a sample; what only pass@k needed is left out."""
        rows = read_rows(self.run.evals.answers(stage, benchmark))
        samples = self.config.evaluation.samples if benchmark == "hard" else 1
        return [row for row in rows if row["temperature"] == temperature and row["sample"] < samples]

    def groups(self, stage: str, prompts: int, temperature: float, size: int = 8, levels=(3, 4)) -> list[list[dict]]:
        """`size` sampled answers to each of some training questions: rows with `completion`, `verdict`, `tokens`.

        levels: of the small world's questions; those of a set of natural text are drawn from all of it.
        """
        seed, plan, folder = self.seed + 70_000, self.config.evaluation, self.folder(stage)
        asked = self._natural(prompts, seed) or arithmetic.sample_problems(prompts, seed, levels=levels)
        params = sampling.SamplingParams(
            n=size, temperature=temperature, max_tokens=plan.max_new_tokens, seed=self.seed
        )
        found = sampling.sample(
            checkpoints.load_to_sample(folder, plan.engine), checkpoints.load_tokenizer(folder),
            [problem.prompt for problem in asked], params, title=f"{stage} at {temperature}", engine=plan.engine,
        )
        sampling.release_engine()
        return [
            _judged([{"prompt": problem.prompt, "answer": problem.answer}] * size, group)
            for problem, group in zip(asked, found, strict=True)
        ]

    def _natural(self, count: int = 1, seed: int = 0) -> list[Problem]:
        """Some questions of the set that this run has adopted; none where its questions are the small world's."""
        if not self.run.data.imported.exists():
            return []
        return [problem for problem in run_data.grpo_problems(DataFolder(self.data()), count, seed) if problem.domain not in WORLD]

    # ------------------------------------------------------------------ before and after

    def rungs(self) -> list[dict]:
        """The rows of ladder.json."""
        return read_json(self.run.ladder)

    def ladder(self, last: str = "grpo") -> Figure:
        """The ladder up to the stage `last`, beside the paper's."""
        shown, later = STAGES[: STAGES.index(last) + 1], (last, SHIPPED_START)  # what the next stage started from
        rows = [row for row in self.rungs() if row["stage"] in shown and (row["stage"], row["arm"]) != later]
        return figures.ladder(rows)

    def chains(self) -> Figure | HTML:
        """The published ladder: independent chains and their controls."""
        rows = replications.published()
        return figures.replications(rows) if rows else HTML(NO_CHAINS)

    def gains(self, *stages: str) -> HTML:
        """What stages (all without a name) bring on `hard` over the published chains, and beside their controls."""
        if not (rows := replications.published()):
            return HTML(NO_CHAINS)
        head, *lines = replications.gains_table(rows)
        says = f"{len(rows)} independent chains, 95 % intervals, paired t-tests corrected by Holm."
        return HTML(tables.table(says, head, [line for line in lines if line[0].split(",")[0] in (stages or STAGES)]))

    def means(self) -> HTML:
        """Every arm of the published chains on every benchmark."""
        if not (rows := replications.published()):
            return HTML(NO_CHAINS)
        head, *lines = replications.means_table(rows)
        return HTML(tables.table(f"Means over {len(rows)} independent chains.", head, lines))

    def ten(self, stage: str) -> list[dict]:
        """The ten problems, the first of the set that plays `hard`, as a stage answers them greedily: the measured
        answers where there are some.
        """
        if self.run.evals.answers(stage, "hard").exists():
            greedy = {row["id"]: row for row in self.answers(stage)}
            return [{**problem, **greedy[problem["id"]]} for problem in ten_problems(self.config.evaluation)]
        folder, plan = self.folder(stage), self.config.evaluation
        return ask_ten(checkpoints.load_to_sample(folder, plan.engine), checkpoints.load_tokenizer(folder), config=plan)

    def before_after(self, before: str, after: str) -> HTML:
        """The ten problems as two stages answer them, side by side; a stage without a model is named instead. For the
        stage before `after` stands the model that `after` started from.
        """
        if (before, after) in pairwise(STAGES):
            before = self.start(after)
        names = {before: model_title(before), after: self.name(after)}
        missing = "".join(
            f"<p>No model of {names.pop(stage)} here, and none is shipped for {self.config.scale}.</p>"
            for stage in (before, after)
            if self.has_no_model(stage)
        )
        page = tables.side_by_side(list(names.values()), [self.ten(stage) for stage in names]) if names else ""
        return HTML(page + missing)


def default_scale(run: RunFolder) -> str:
    """The scale of a lab that is given none: PHI_LAB_SCALE, else that of the run, else "cpu".

    Raises UserError where PHI_LAB_SCALE is no scale.
    """
    wanted = os.environ.get("PHI_LAB_SCALE")
    if wanted and wanted not in schema.SCALES:
        raise UserError(f"PHI_LAB_SCALE={wanted!r} is no scale: unset it, or choose one of {', '.join(schema.SCALES)}")
    return wanted or (read_config(run.config)["config"]["scale"] if run.config.exists() else "cpu")


def ten_problems(config: EvaluationConfig) -> list[dict]:
    """The first ten of the measured problems of the set that plays `hard`; fewer where fewer are measured."""
    return benchmarks.load(config.benchmarks[1])[: min(10, config.problems)]


def ask_ten(
    model, tokenizer, temperature: float = 0.0, seed: int = 0, config: EvaluationConfig = LAB.evaluation
) -> list[dict]:
    """The ten hard problems, the small world's if `config` say nothing else, answered by any model: rows with prompt,
    answer, completion, verdict, tokens.
    """
    problems = ten_problems(config)
    asked = [benchmarks.build_prompt(config.benchmarks[1], problem["prompt"]) for problem in problems]
    params = sampling.SamplingParams(n=1, temperature=temperature, max_tokens=config.max_new_tokens, seed=seed)
    found = sampling.sample(model, tokenizer, asked, params, quiet=True, engine=config.engine)
    sampling.release_engine()
    return _judged(problems, [group[0] for group in found])


def style(completion: str) -> str:
    """How an answer was worked out, by its own words: terse, plain (columns, no more), checking, backtracking."""
    if " no " in completion or "check " in completion:
        return "backtracking" if " no " in completion else "checking"
    return "plain" if worked_solutions.shows_columns(completion) else "terse"


def short(path: Path) -> str:
    """A path as the reader knows it: from the top of the course where it lies inside it."""
    return path.resolve().relative_to(ROOT).as_posix() if path.resolve().is_relative_to(ROOT) else path.name


def quiet() -> None:
    """No library chatter on the page: our own progress bars and words are enough."""
    warnings.filterwarnings("ignore")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()


def _judged(problems: list[dict], found: list[sampling.Sample]) -> list[dict]:
    pairs = [(one.text, problem["answer"]) for problem, one in zip(problems, found, strict=True)]
    return [
        {**problem, "completion": one.text, "tokens": len(one.ids), "verdict": verdict.verdict}
        for problem, one, verdict in zip(problems, found, verify_many(pairs), strict=True)
    ]
