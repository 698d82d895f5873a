"""What notebooks use: the functions behind the widgets, tables, small figures, and the Lab over a run folder."""

import gc
import json
import shutil
from dataclasses import replace

import ipywidgets
import pytest
import torch

from phi_lab import sampling
from phi_lab.config import schema
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import write_json, write_rows
from phi_lab.core.run_folder import EvalFolder, RunFolder
from phi_lab.distill import shards
from phi_lab.distill.funnel import Rules
from phi_lab.evaluate import ladder, public_benchmarks
from phi_lab.lab import Lab, answers, environment, pictures, tables, widgets
from phi_lab.model import checkpoints
from phi_lab.pipeline import stage_runner
from phi_lab.problems import arithmetic, benchmarks
from phi_lab.stages import grpo, packing

WORKED = [
    {"id": str(n // 2), "domain": "arithmetic", "level": 1 + n // 2, "prompt": "Compute.", "answer": "1",
     "tokens": 20 * n, "verdict": "right" if n != 3 else "wrong",
     "completion": f"<think>{n}: work and more.</think>\\boxed{{1}}"}
    for n in range(8)
]
LADDER_ROW = {
    "stage": "base", "arm": "main", "benchmark": "hard", "temperature": 0.6, "k": 1, "n": 40, "pass_at_k": None,
    "accuracy": 0.5, "ci_low": 0.4, "ci_high": 0.6,
}
EVIL = "<img src=x onerror=alert(1)>"
ROWS = [
    {"id": str(n), "prompt": f"Compute {n}+1.", "answer": str(n + 1), "tokens": 5 + n, "verdict": verdict,
     "completion": f"<think>{EVIL}</think>\\boxed{{{n + 1}}}", "source": "shipped"}
    for n, verdict in enumerate(("right", "wrong", "right", "unfinished"))
]


def test_verdicts_of_the_playground():
    assert "right" in widgets.verdict_html("\\boxed{38/24}", "19/12")
    assert "wrong" in widgets.verdict_html("\\boxed{8}", "9")
    assert "no answer found" in widgets.verdict_html("<think>9", "9")
    assert EVIL not in widgets.verdict_html(EVIL, EVIL)
    assert widgets.verdict_table().count("<tr>") == len(widgets.CASES) + 1


def test_paging_wraps_around_and_escapes():
    assert "1 of 2" in widgets.nth_rollout(ROWS, "right", 0) and "1 of 2" in widgets.nth_rollout(ROWS, "right", 2)
    assert "Compute 2+1." in widgets.nth_rollout(ROWS, "right", 1)
    assert "No rollout" in widgets.nth_rollout(ROWS, "timeout", 0)
    assert EVIL not in widgets.nth_rollout(ROWS, "wrong", 0)


def test_a_moved_filter_shows_what_it_takes():
    """Seven right answers, of 0 to 140 tokens, to four questions of which the last ones are hard."""
    report, kept = widgets.filtered(WORKED, Rules(max_tokens=60))
    assert [row["tokens"] for row in kept] == [0, 20, 40]
    assert {step["name"]: step["removed"] for step in report["steps"]}["fits"] == 4
    assert [row["tokens"] for row in widgets.filtered(WORKED, Rules(pass_rate_range=(0.0, 0.6)))[1]] == [40]
    cells = [row.split("</td>") for row in widgets.limits_table(WORKED, (140, 60)).split("<tr>")[2:]]
    assert [[cell.rpartition(">")[2] for cell in row[:4]] for row in cells] == [
        ["140", "7", "4", "50.0 %"], ["60", "3", "2", "0.0 %"],
    ]


def test_the_funnel_follows_its_sliders():
    box = widgets.filters(WORKED)
    before = box.children[-1].value
    box.children[0].value = 60
    assert box.children[-1].value != before


def test_the_gallery_has_one_of_each():
    page = widgets.gallery(ROWS)
    assert page.count("<hr>") == 2 and all(word in page for word in ("✓ right", "✗ wrong", "✗ unfinished"))


def test_the_schedule_figure_follows_its_sliders():
    (line, *_) = widgets.schedule_figure(1.0, 0.6, 0.5).axes[0].lines
    values = list(line.get_ydata())
    assert values[0] == 1.0 and values[15] == pytest.approx(0.6) and values[-1] == pytest.approx(0.6)
    assert widgets.schedule_figure(0.8, 0.8, 0.0)._repr_png_()[0].startswith(b"\x89PNG")


def test_the_rebalancing_table_shows_both_functions():
    page = widgets.rebalancing_table(("+-------", "--------"))
    assert "1 of 8 right" in page and "+1" in page and "0 0 0 0 0 0 0 0" in page


@pytest.mark.parametrize(
    "make",
    [
        widgets.verifier,
        lambda: widgets.browse(ROWS),
        lambda: widgets.filters(WORKED),
        widgets.schedule,
        widgets.planner,
        widgets.rebalancing,
    ],
)
def test_a_widget_shows_something_before_anything_is_touched(make):
    box = make()
    assert isinstance(box, ipywidgets.VBox) and box.children[-1].value


def test_a_widget_answers_its_controls():
    box = widgets.verifier()
    completion, gold, view = box.children
    completion.value, gold.value = "\\boxed{7}", "8"
    assert "wrong" in view.value


def test_a_table_escapes_what_it_is_given():
    assert EVIL not in tables.table(EVIL, (EVIL,), ((EVIL,),))


def test_side_by_side_counts_and_folds_thoughts():
    page = tables.side_by_side(("before", "after"), (ROWS, ROWS))
    assert "before 2 right, after 2 right" in page and page.count("<details>") == 8 and EVIL not in page
    assert "no answer" in tables.answer("no box at all", "unparsed")


def test_the_pictures_draw():
    rewards = [[1.0, -1.0], [-1.0, -1.0]]
    assert pictures.groups(rewards, grpo.rebalance(torch.tensor(rewards), torch.Generator()).tolist()).axes
    assert pictures.verdicts({"a": ["right", "wrong"], "b": []}, "title").axes[0].get_title(loc="left") == "title"
    shown = pictures.student_likelihood({"a": [-1.0, -20.0, -900.0, -0.5], "b": []}, -9.0)
    assert [axes.get_title(loc="left") for axes in shown.axes] == [
        "a: 4, of which 50 % above -9 nats", "b: 0, of which 0 % above -9 nats"
    ]
    everything = pictures.student_likelihood({"a": [-1.0, -900.0]}, -float("inf"))
    assert everything.axes[0].get_title(loc="left") == "a: 2, all of which are used" and everything._repr_png_()
    assert pictures.intervals([("x", 1.0, 0.5, 2.0)], "gain")._repr_png_()
    rows = [{"step": 1, "a": 0.5, "b": 2.0}, {"step": 2, "a": 0.75}]  # a step may lack a metric
    (axes,) = pictures.curves(rows, {"a": "first", "b": "second"}, "title", "nats").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.5, 0.75], [2.0]] and axes.get_ylabel() == "nats"


def test_the_style_of_an_answer():
    assert answers.answer_style("47+38,-12:15,8;85.85-12:3,7;73.") == answers.answer_style("2+2=4.") == "terse"
    assert answers.answer_style("47+38,-12:7+8=15,4+3+1=8;85.") == "plain"
    assert answers.answer_style("2+2=4.check 4-2=2 ok.") == "checking"
    assert answers.answer_style("7+8=14 no 7+8=15.") == "backtracking"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("PHI_LAB_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("PHI_LAB_PROFILE", "smoke")
    monkeypatch.setenv("PHI_LAB_SEED", "0")
    monkeypatch.delenv("PHI_LAB_SCALE", raising=False)
    return Lab()


def test_a_lab_opens_its_folder_and_says_where_models_come_from(lab):
    page = lab._repr_html_()
    assert (lab.run.path / "config.json").exists() and page.count("shipped with the course") == 5
    (lab.run.path / "mid" / "model").mkdir(parents=True)
    assert lab.origin("mid") == "trained in this folder"


@pytest.fixture
def apart(lab, student):
    """A lab in smoke whose mid-training and SFT are trained: both from what ships."""
    for stage, before in (("mid", "base"), ("sft", "mid")):
        shutil.copytree(student, lab.run.path / stage / "model")
        write_json(lab.run.path / stage / "student.json", {"weights": checkpoints.fingerprint(paths.SHIPPED / before)})
    return lab


def test_a_page_compares_a_stage_with_what_it_started_from(apart):
    starts = [apart.start(stage) for stage in ("mid", "sft", "dpo", "grpo")]
    assert starts == ["base", "mid-shipped", "sft-shipped", "dpo"]
    assert apart.folder("mid-shipped") == paths.SHIPPED / "mid"
    assert apart.folder("mid") == apart.run.stage("mid").model
    assert apart.name("mid") == "mid-training" and apart.name("sft") == "SFT (from the shipped mid-training)"
    assert apart.origin("sft") == "trained in this folder (from the shipped mid-training)"
    assert "the stages do not form one chain" in apart._repr_html_()
    problems = answers.load_ten_problems(apart.config.evaluation)
    for name, answer in (("mid-shipped", 1111), ("mid", 2222), ("sft", 3333)):
        row = {"temperature": 0.0, "sample": 0, "completion": f"\\boxed{{{answer}}}", "verdict": "wrong"}
        rows = [{**row, "id": problem["id"]} for problem in problems]
        write_rows(apart.run.path / "evals" / f"{name}.hard.jsonl", rows)
    page = apart.before_after("mid", "sft").data
    assert "1111" in page and "2222" not in page and "3333" in page and "shipped mid-training" in page


def test_the_ladder_and_reset_know_which_stage_a_start_belongs_to(apart):
    arms = [("base", "main"), ("mid", "main"), ("mid", "shipped"), ("sft", "main"), ("sft", "shipped")]
    write_json(apart.run.path / "ladder.json", [{**LADDER_ROW, "stage": stage, "arm": arm} for stage, arm in arms])

    def broken(last):
        return sum("shipped" in str(line.get_label()) for line in apart.ladder(last).axes[0].lines)

    assert broken("mid") == 0 and broken("sft") == 1
    apart.reset("sft")
    assert [(row["stage"], row["arm"]) for row in apart.ladder_rows()] == arms[:2]


def test_there_are_no_ladder_rows_before_the_first_measurement(lab):
    assert lab.ladder_rows() == [] and lab.ladder("mid")._repr_png_()


def test_a_folder_of_another_profile_is_refused(lab, monkeypatch):
    monkeypatch.setenv("PHI_LAB_PROFILE", "lab")
    with pytest.raises(UserError, match="config.json"):
        Lab()


@pytest.mark.parametrize(("name", "value"), [("PHI_LAB_SEED", "x"), ("PHI_LAB_PROFILE", "fast")])
def test_a_wrong_setting_is_one_clear_line(monkeypatch, tmp_path, name, value):
    monkeypatch.setenv("PHI_LAB_RUN", str(tmp_path / "run"))
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=value):
        Lab()


def test_the_planner_follows_its_controls():
    which, card, gpus, view = widgets.planner().children
    assert "qlora, 1 x rtx4090" in view.value and "NO" not in view.value
    which.value, card.value = "full", "h100"
    assert "cannot run on 1 x h100" in view.value
    gpus.value = 8
    assert "full, 8 x h100" in view.value and "does not fit" not in view.value


def test_a_gpu_scale_says_what_it_needs():
    with pytest.raises(UserError, match="trains on a distilled set"):
        Lab("lora")


def test_a_lab_finds_its_scale(lab, monkeypatch, tmp_path):
    """By its argument, else PHI_LAB_SCALE, else what the folder was opened with, else cpu."""
    new = tmp_path / "new"
    assert lab.config.scale == "cpu" == environment.default_scale(RunFolder(new))
    write_json(new / "config.json", {"config": {"scale": "qlora"}})
    assert environment.default_scale(RunFolder(new)) == "qlora"
    monkeypatch.setenv("PHI_LAB_SCALE", "lora")
    assert environment.default_scale(RunFolder(new)) == "lora"
    with pytest.raises(UserError, match="the scale lora trains on a distilled set"):
        Lab()
    assert Lab("cpu").config.scale == "cpu"
    monkeypatch.setenv("PHI_LAB_SCALE", "huge")
    with pytest.raises(UserError, match=r"^PHI_LAB_SCALE='huge' is no scale: .* cpu, lora, qlora, full$"):
        Lab()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """base/: a tiny model like a download, with a chat template of its own; set/: distilled; sets/: benchmarks."""
    monkeypatch.setenv("PHI_LAB_RUN", str(tmp_path / "lora-run"))
    monkeypatch.setenv("PHI_LAB_PROFILE", "smoke")
    base = shutil.copytree(paths.SHIPPED / "sft", tmp_path / "base")
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").write_text("<|system|>Be brief.<|end|>" + template)
    rows = [
        {"id": f"math-{n}", "domain": "math", "level": 0, "pass_rate": 0.5, "tokens": 9, "answer": str(n + 1),
         "prompt": f"What is {n} and 1 together?", "completion": f"\\boxed{{{n + 1}}}", "verdict": "right"}
        for n in range(4)
    ]
    write_rows(tmp_path / "set" / "right.jsonl", rows)
    write_rows(tmp_path / "set" / "wrong.jsonl", [{**row, "completion": "\\boxed{0}"} for row in rows])
    write_json(tmp_path / "set" / "funnel.json", {"rollouts": 4})
    shards.write(tmp_path / "set" / "rollouts" / "000000.parquet", rows)
    for name in ("math500", "aime24"):
        write_rows(tmp_path / "sets" / f"{name}.jsonl", [{"problem": f"Add {n}.", "answer": str(n)} for n in range(9)])
    monkeypatch.setenv("PHI_LAB_SETS", str(tmp_path / "sets"))
    return tmp_path


@pytest.fixture
def sampled(monkeypatch):
    """What is sampled: (prompts, params, settings) of every call."""
    calls, real = [], sampling.sample

    def sample(model, tokenizer, prompts, params, **settings):
        calls.append((prompts, params, settings))
        return real(model, tokenizer, prompts, params, **settings)

    monkeypatch.setattr(sampling, "sample", sample)
    return calls


@pytest.fixture
def lora(place, monkeypatch):
    """A lab at the scale lora, on a CPU."""
    with monkeypatch.context() as first:
        first.setenv("PHI_LAB_DATA", str(place / "set"))
        monkeypatch.setenv("PHI_LAB_MODEL", str(place / "base"))
        Lab("lora")
    opened = Lab()  # the folder knows its scale and its set
    assert opened.config.scale == "lora" and opened.config.evaluation.benchmarks[1] == "aime24"
    short = replace(opened.config.evaluation, engine="hf", max_new_tokens=6)
    opened.config = replace(opened.config, evaluation=short)
    return opened


def test_a_look_at_a_gpu_scale_uses_the_run_s_own_configuration(lora, sampled):
    problems = benchmarks.load("aime24")
    rows = lora.ten_problems("base")
    assert [row["id"] for row in rows] == [row["id"] for row in problems[:8]], "smoke measures eight"
    prompts = [f"{schema.INSTRUCTION}\n\nAdd {n}." for n in range(8)]
    assert sampled[0][0] == prompts and (sampled[0][2]["engine"], sampled[0][1].max_tokens) == ("hf", 6)
    groups = lora.sample_groups("base", prompts=3, temperature=1.0, size=2)
    assert [len(group) for group in groups] == [2, 2, 2]
    known = {f"{schema.INSTRUCTION}\n\nWhat is {n} and 1 together?" for n in range(4)}
    assert {prompt for prompt in sampled[1][0]} <= known
    assert (sampled[1][2]["engine"], sampled[1][1].max_tokens) == ("hf", 6)
    row = {"temperature": 0.0, "sample": 0, "completion": "measured", "verdict": "wrong"}
    write_rows(lora.run.path / "evals" / "base.hard.jsonl", [{**row, "id": problem["id"]} for problem in problems[:8]])
    assert [row["completion"] for row in lora.ten_problems("base")] == ["measured"] * 8 and len(sampled) == 2


def test_lengths_are_the_model_s_own(lab, lora):
    rows = lora.right()
    (more,) = {long - short for long, short in zip(lora.lengths(rows), lab.lengths(rows), strict=True)}
    assert more > 3, "the system turn of its template"


def test_a_gpu_scale_does_not_show_models_that_it_lacks(lora, capsys):
    assert [lora.origin(stage) for stage in ("base", "mid")] == [lora.config.model, "not trained yet"]
    page = lora.before_after("base", "grpo").data
    assert "Add 1." in page and "No model of GRPO here, and none is shipped for lora." in page
    assert "No model of teacher" in lora.before_after("base", "teacher").data
    for look in (lora.model, lora.measure, lambda stage: lora.sample_groups(stage, 1, 1.0)):
        with pytest.raises(UserError, match="sft: no model in lora-run, and none is shipped for lora"):
            look("sft")
    assert not (lora.run.path / "ladder.json").exists()
    lora.paper_dpo()
    (line,) = capsys.readouterr().out.splitlines()
    assert "at the scale lora the pairs of the stage itself are the paper's" in line
    assert not (lora.run.path / "dpo-paper").exists()


def test_a_model_shown_leaves_the_gpu_before_something_trains(lora, monkeypatch):
    where = []
    model, _ = lora.model("base")
    model.to = where.append  # by hand: monkeypatch would keep the model
    monkeypatch.setattr(stage_runner, "run_stage", lambda *_, **__: where.append("training"))
    lora.stage("mid")
    assert where == [checkpoints.CPU, "training"]
    del model
    gc.collect()
    lora.stage("mid")
    assert where == [checkpoints.CPU, "training", "training"], "nothing but the reader keeps it"


def test_public_sets_have_the_instruction_of_public_benchmarks(place, sampled, student):
    few = {"problems": 2, "max_new_tokens": 4}
    config = schema.EvaluationConfig(**few, samples=1, pass_samples=1, benchmarks=("math500", "hard", "transfer"))
    ladder.evaluate(student, "x", EvalFolder(place / "evals"), config, 0)
    easy, hard = sampled[0][0], sampled[2][0]
    assert hard == [problem["prompt"] for problem in benchmarks.load("hard")[:2]]
    protocol = schema.BenchmarkProtocol(**few, samples=1)
    public_benchmarks.evaluate_public(student, ["math500"], place / "exam", protocol, 0, "cpu")
    assert easy == sampled[-1][0] and easy[0].startswith("Please reason step by step") and easy[0].endswith("Add 0.")


def test_a_set_that_cannot_be_read_is_reported_before_a_model_is_loaded(place, student, monkeypatch):
    def never(*_):
        raise AssertionError("loaded a model")

    monkeypatch.setattr(checkpoints, "load_to_sample", never)
    config = schema.EvaluationConfig(problems=2, benchmarks=("easy", "math500", "gpqa-diamond"))
    with pytest.raises(UserError, match=r"no gpqa-diamond\.jsonl"):
        ladder.evaluate(student, "x", EvalFolder(place / "evals"), config, 0)


def test_a_set_that_is_left_out_is_not_measured(place, sampled, student):
    config = schema.EvaluationConfig(problems=2, max_new_tokens=4, samples=1, pass_samples=1,
                                     benchmarks=("easy", "hard", ""))
    ladder.evaluate(student, "two", EvalFolder(place / "evals"), config, 0)
    rows = ladder.ladder_rows("two", "sft", "main", EvalFolder(place / "evals"), config, 0, {})
    assert {row["benchmark"] for row in rows} == {"easy", "hard"}


def test_a_stopped_stage_says_that_it_goes_on(lab, monkeypatch, capsys):
    monkeypatch.setattr(stage_runner, "run_stage", lambda *_, **__: None)
    lab.stage("mid")
    assert "starts from" in (first := capsys.readouterr().out) and "goes on" not in first
    (lab.run.path / "mid" / "trainer").mkdir(parents=True)
    lab.stage("mid")
    assert 'it was stopped and goes on with the functions it had then; lab.reset("mid")' in capsys.readouterr().out


def test_a_finished_stage_says_whose_functions_trained_it(lab, monkeypatch, capsys):
    def finish(stage, run, *_, **__):
        write_json(run.stage(stage).done, dict.fromkeys(stage_runner.COST, 149.0))

    def pack(lengths, row_length):
        return [[index] for index, length in enumerate(lengths) if length <= row_length]

    def said(stage, **functions):
        capsys.readouterr()
        lab.stage(stage, **functions)
        return capsys.readouterr().out

    monkeypatch.setattr(stage_runner, "run_stage", finish)
    said("mid", pack=packing.pack_best_fit)
    assert "trained here before; lab.reset" in said("mid", pack=packing.one_per_row), "the course's own, both"
    assert ('before with the reference, and what follows is that model; to train it again with your pack, about 149 s: '
            'lab.reset("mid")') in said("mid", pack=pack)
    said("sft", pack=pack)
    assert "trained here before with your pack; lab.reset" in said("sft", pack=pack)
    assert "before with your pack, and what follows is that model; to train it again, about" in said("sft")


def test_answers_are_those_that_the_ladder_counts(lab):
    rows = [{"sample": sample, "temperature": heat} for heat in (0.0, 0.6) for sample in range(1 + 7 * (heat > 0))]
    for name in ("hard", "easy"):
        write_rows(lab.run.path / "evals" / f"mid.{name}.jsonl", rows)
    counted = lab.config.evaluation.samples
    assert len(lab.answers("mid", "hard", 0.6)) == counted < 8
    assert len(lab.answers("mid", "hard")) == len(lab.answers("mid", "easy", 0.6)) == 1


def test_reset_deletes_a_stage_and_what_came_after(lab):
    for stage in ("mid", "sft", "dpo-paper"):
        (lab.run.path / stage).mkdir()
        write_rows(lab.run.path / "evals" / f"{stage}.hard.jsonl", [])
        write_json(lab.run.path / "evals" / f"{stage}.json", {})
    rows = [{**LADDER_ROW, "stage": stage} for stage in ("base", "mid", "sft")]
    write_json(lab.run.path / "ladder.json", rows)
    lab.reset("sft")
    assert [(lab.run.path / name).exists() for name in ("mid", "sft", "dpo-paper")] == [True, False, False]
    assert [row["stage"] for row in lab.ladder_rows()] == ["base", "mid"]
    assert {path.name for path in (lab.run.path / "evals").iterdir()} == {"mid.hard.jsonl", "mid.json"}


def test_rollouts_say_where_they_were_sampled(lab, monkeypatch, tmp_path):
    data = lab.run.path / "data"
    shards.write(data / "rollouts" / "000000.parquet", ROWS[:1])
    write_json(data / "teacher.json", {"weights": checkpoints.fingerprint(paths.TEACHER)})
    write_json(data / "funnel.json", {"rollouts": 4})
    monkeypatch.setattr(paths, "DISTILLED", tmp_path)
    write_rows(tmp_path / "rollouts.jsonl.gz", ROWS[1:])
    assert [row["source"] for row in lab.rollouts()] == ["sampled here"] + 3 * ["shipped"]
    write_json(data / "funnel.json", {"rollouts": 1})
    assert [row["source"] for row in lab.rollouts()] == ["sampled here"]


def test_the_script_answers_the_first_questions_of_the_run(lab):
    write_json(lab.run.path / "data" / "teacher.json", {"weights": checkpoints.fingerprint(paths.TEACHER)})
    write_json(lab.run.path / "data" / "funnel.json", {})
    rows = lab.script_rollouts(3)
    assert [row["id"] for row in rows[::8]] == [problem.id for problem in arithmetic.sample_problems(3, 0)]
    assert len(rows) == 24 and {row["verdict"] for row in rows} == {"right"}


def test_the_script_says_that_it_knows_only_the_small_world(lora, capsys):
    assert len(lora.script_rollouts(1)) == 8
    assert "the script solves only problems of the small world" in capsys.readouterr().out


def test_any_model_can_answer_the_ten_problems(student):
    rows = answers.answer_ten_problems(checkpoints.load(student), checkpoints.load_tokenizer())
    assert len(rows) == 10 and all(row["verdict"] and row["tokens"] and row["answer"] for row in rows)


def test_a_path_is_shown_from_the_top_of_the_course(tmp_path):
    assert environment.display_path(paths.TEACHER) == "data/teacher"
    assert environment.display_path(tmp_path / "run") == "run"


def test_the_temperature_table_is_shown_where_the_model_is_least_certain(student):
    model, tokenizer = checkpoints.load(student), checkpoints.load_tokenizer()
    page = widgets.temperature_table(model, tokenizer, "Compute 1+1.", "<think>1+1=2.</think>")
    assert page.count("T = ") == 4 and json.dumps("entropy, nats")[1:-1] in page
