"""What the doctor reads: folders of runs, of stages, of distilled sets and of TRL, and files that are none of these."""

import json
import re
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trl
from datasets import Dataset
from test_doctor import dpo_log, grpo_log, named, preference_pairs, ramp, rollouts

from phi_lab import cli
from phi_lab.config import presets
from phi_lab.core import paths
from phi_lab.core.files import write_json, write_rows
from phi_lab.core.run_folder import RunFolder
from phi_lab.distill import shards
from phi_lab.lab.views import RunViews
from phi_lab.model import chat, checkpoints
from phi_lab.problems import arithmetic
from phi_lab.report import doctor
from phi_lab.report.doctor import show
from phi_lab.stages import grpo, rollout_dpo

EQUAL = {"frac_reward_zero_std": ramp(1.0, 1.0)}


def found(checked):
    """Which rules fired, by what was read."""
    return {part.source: named(part.findings) for part in checked}


@pytest.fixture
def run_dir(tmp_path, shipped):
    """A run with data, two stages and answers; GRPO has failed in three ways."""
    run = RunFolder(tmp_path / "run")
    shards.write(run.data.rollouts / "000000.parquet", rollouts())
    write_rows(run.data.right, [row for row in rollouts() if row["verdict"] == "right"])
    write_rows(run.stage("dpo").metrics, dpo_log(1.0, 0.2))
    write_rows(run.stage("grpo").metrics, grpo_log(**EQUAL))
    shutil.copytree(shipped("grpo"), run.stage("grpo").model, ignore=shutil.ignore_patterns("*.safetensors"))
    answers = [{"id": str(n), "sample": 0, "temperature": 0.6, "verdict": "unfinished", "completion": "34, " * 60}
               for n in range(40)]
    write_rows(run.evals.answers("grpo", "hard"), answers)
    rows = [{"stage": stage, "arm": "main", "benchmark": "hard", "temperature": 0.6, "pass_at_k": None, "accuracy": a,
             "ci_low": a - 0.03, "ci_high": a + 0.03} for stage, a in (("dpo", 0.8), ("grpo", 0.1))]
    write_json(run.ladder, rows)
    return run


def test_a_run_is_read_stage_by_stage(run_dir):
    assert found(doctor.check_folder(run_dir.path)) == {
        "data/rollouts/": [], "dpo/metrics.jsonl": [], "grpo/metrics.jsonl": ["zero-variance"],
        "grpo/model/tokenizer_config.json": [], "evals/grpo.hard.jsonl": ["unparsed", "repetition"],
        "ladder.json": ["reward-hacking"],
    }
    assert found(doctor.check_folder(run_dir.stage("grpo").path)) == {
        "metrics.jsonl": ["zero-variance"], "model/tokenizer_config.json": []}
    assert list(found(doctor.check_folder(run_dir.data.path))) == ["rollouts/"]
    assert list(found(doctor.check_stage(run_dir, "dpo"))) == ["dpo/metrics.jsonl"]
    assert doctor.check_stage(run_dir, "sft") == []


def test_accuracy_that_did_not_fall_is_no_hacking(run_dir):
    rows = json.loads(run_dir.ladder.read_text())
    write_json(run_dir.ladder, [rows[0], rows[1] | {"ci_high": 0.78}])
    assert found(doctor.check_folder(run_dir.path))["ladder.json"] == []


def test_a_stage_that_has_just_begun_is_passed_over(run_dir):
    run_dir.stage("dpo").metrics.write_text("")
    assert "dpo/metrics.jsonl" not in found(doctor.check_folder(run_dir.path))


def test_the_newest_log_of_trl_is_read(tmp_path):
    for step, rows in ((9, grpo_log(**EQUAL)), (100, grpo_log())):
        (tmp_path / f"checkpoint-{step}").mkdir()
        write_json(tmp_path / f"checkpoint-{step}" / "trainer_state.json", {"log_history": rows})
    assert found(doctor.check_folder(tmp_path)) == {"checkpoint-100/trainer_state.json": []}
    write_json(tmp_path / "trainer_state.json", {"log_history": grpo_log(**EQUAL)})
    assert found(doctor.check_folder(tmp_path)) == {"trainer_state.json": ["zero-variance"]}


def test_completions_that_trl_has_logged(tmp_path):
    rows = [{"step": 1, "prompt": [{"role": "user", "content": f"question {n // 4}"}], "advantage": 0.0,
             "completion": [{"role": "assistant", "content": "so " * 40}], "accuracy_reward": 0.0} for n in range(40)]
    (tmp_path / "completions").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "completions" / "completions_00001.parquet")
    assert found(doctor.check_folder(tmp_path)) == {"completions/": ["repetition", "zero-variance"]}


def test_files_of_rows(tmp_path):
    write_rows(tmp_path / "pairs.jsonl", preference_pairs() * 2)
    write_rows(tmp_path / "rollouts.jsonl.gz", rollouts())
    write_rows(tmp_path / "other.jsonl", [{"a": 1}])
    assert found(doctor.check_folder(tmp_path)) == {"pairs.jsonl": ["duplicate-pairs"], "rollouts.jsonl.gz": []}
    assert found(doctor.check_folder(tmp_path / "pairs.jsonl")) == {"pairs.jsonl": ["duplicate-pairs"]}


@pytest.mark.parametrize(("eos", "generation", "rules"), [
    ("<|endoftext|>", None, ["template-without-stop"]), ("<|end|>", None, []), ("<|endoftext|>", [7, 9], []),
    ({"content": "<|end|>"}, None, []),
])
def test_stop_tokens_are_those_of_tokenizer_and_generation(tmp_path, eos, generation, rules):
    write_rows(tmp_path / "metrics.jsonl", grpo_log())
    write_json(tmp_path / "tokenizer_config.json", {"eos_token": eos, "chat_template": chat.CHAT_TEMPLATE})
    write_json(tmp_path / "tokenizer.json", {"added_tokens": [{"id": 9, "content": "<|end|>"}]})
    if generation:
        write_json(tmp_path / "generation_config.json", {"eos_token_id": generation})
    assert found(doctor.check_folder(tmp_path))["tokenizer_config.json"] == rules


# ------------------------------------------------------------------ real runs


@pytest.mark.slow
def test_trls_own_trainers_on_healthy_data_raise_no_alarm(tmp_path, shipped):
    """SFT with TRL alone, from a shipped checkpoint on its teacher's rollouts; then the same with a rate of 0."""
    model, tokenizer = checkpoints.load(shipped("mid")), checkpoints.load_tokenizer(shipped("mid"))
    rows = [{"prompt": chat.render_prompt(tokenizer, row["prompt"]), "completion": row["completion"]}
            for row in rollouts() if row["verdict"] == "right"]
    for name, rate in (("healthy", 1e-4), ("frozen", 0.0)):
        arguments = trl.SFTConfig(
            output_dir=str(tmp_path / name), learning_rate=rate, max_steps=12, logging_steps=1, save_steps=6,
            per_device_train_batch_size=8, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True,
        )
        trl.SFTTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()
    assert found(doctor.check_folder(tmp_path / "healthy")) == {
        "checkpoint-12/trainer_state.json": [], "checkpoint-12/tokenizer_config.json": []}
    assert found(doctor.check_folder(tmp_path / "frozen"))["checkpoint-12/trainer_state.json"] == ["learning-rate-zero"]


@pytest.mark.slow
def test_grpo_with_a_constant_reward_and_too_short_answers(tmp_path, shipped):
    config = replace(presets.SMOKE.grpo, steps=6, prompts_per_step=4, max_new_tokens=12)
    grpo.train(shipped("sft"), arithmetic.sample_problems(8, 1, levels=(3, 4)), tmp_path, config, seed=0,
               select=lambda sample, problems, *_: list(problems), reward=lambda texts, answers: [-1.0] * len(texts))
    (checked, _) = doctor.check_folder(tmp_path)
    assert named(checked.findings) == ["zero-variance", "no-stop"]
    assert "No answer is rewarded" in checked.findings[0].cause


@pytest.mark.slow
def test_dpo_that_does_not_move_and_dpo_that_falls_on_both_sides(tmp_path, shipped):
    for side in ("right", "wrong"):
        write_rows(tmp_path / f"{side}.jsonl", [row for row in rollouts(questions=250)
                                                if (row["verdict"] == "right") == (side == "right")])
    config = replace(presets.SMOKE.dpo, pairs="teacher", batch_size=4, max_pairs=64, max_student_nll=float("inf"),
                     sft_weight=0.0, muon=False)  # DPO alone
    for rate, rules in ((0.0, ["learning-rate-zero", "loss-at-ln2"]), (4e-3, ["both-sides-fall"])):
        out = tmp_path / str(rate)
        rollout_dpo.train(shipped("sft"), tmp_path / "right.jsonl", tmp_path / "wrong.jsonl", out,
                          replace(config, learning_rate=rate), seed=0)
        found = named(doctor.check_folder(out)[0].findings)
        # At the high rate some batches are solved, so their gradient vanishes and others stand out: that is true, too.
        assert [rule for rule in found if rule != "gradient-spike" or not rate] == rules


# ------------------------------------------------------------------ what people see


def test_the_command_prints_findings_and_json(run_dir, capsys):
    assert cli.main(["doctor", str(run_dir.path)]) == 0
    text = capsys.readouterr().out
    assert "grpo/metrics.jsonl: 60 logged steps, 1 found" in text
    assert "dpo/metrics.jsonl: 20 logged steps, nothing found" in text
    assert all(label in text for label in ("zero-variance: in 100%", "means: ", "likely: ", "try: "))
    assert text.splitlines()[-1] == "4 found: zero-variance, unparsed, repetition, reward-hacking"
    assert cli.main(["doctor", str(run_dir.path), "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert [finding["rule"] for part in parts for finding in part["findings"]][0] == "zero-variance"
    assert set(parts[2]["findings"][0]) == {"rule", "seen", "meaning", "cause", "remedy"}


def test_the_list_of_rules_has_each_with_what_sets_it_off(capsys):
    assert cli.main(["doctor", "--rules"]) == 0
    lines = capsys.readouterr().out
    for reads, rule in doctor.all_rules():
        assert f"{reads:<13} {show.rule_name(rule)}: {rule.__doc__[:10]}" in lines


def test_the_page_has_every_rule_and_no_other():
    page = (paths.ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == {
        show.rule_name(rule) for _, rule in doctor.all_rules()}


def test_a_notebook_and_the_report_show_it_escaped(run_dir):
    views = RunViews(run_dir, presets.SMOKE, 0)
    assert "zero-variance" in views.doctor("grpo").data and "nothing found" in views.doctor("dpo").data
    assert "Nothing of sft" in views.doctor("sft").data
    checked = [replace(part, source="<img>") for part in doctor.check_stage(run_dir, "grpo")]
    assert "<details open>" in show.as_html(checked) and "<img>" not in show.as_html(checked)
    assert "nothing found in 20 logged steps" in show.as_html(doctor.check_stage(run_dir, "dpo"))
    assert show.as_html([]) == ""


@pytest.mark.parametrize(("name", "content", "line"), [
    ("metrics.jsonl", '{"step": 1, "loss": 2.0}\n{"step": 2, "lo', "metrics.jsonl, line 2: not JSON"),
    ("metrics.jsonl", '{"step": 1, "actor/pg_loss": 2.0}\n', "not a log of phi-lab or TRL"),
    ("metrics.jsonl", "", "nothing to read in it"),
    ("metrics.jsonl", b'{"step": "\xff"}\n', "not UTF-8"),
    ("trainer_state.json", '{"epoch": 1}', "no log_history"),
    ("trainer_state.json", '{"log_history": [{"loss": 1', "is not JSON"),
    ("trainer_state.json", '{"log_history": []}', "no rows in it"),
    ("rollouts/000000.parquet", "PAR1", "not a Parquet file"),
    ("rollouts.jsonl.gz", b"\x1f\x8b\x08", "cut short or no gzip file"),
    ("notes.txt", "hello", "it holds notes.txt"),
    ("tokenizer_config.json", "[1]", "unexpected form"),
])
def test_what_cannot_be_read_is_one_line(tmp_path, refused, name, content, line):
    path = tmp_path / "folder" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert line in refused("doctor", tmp_path / "folder")


def test_a_ladder_of_another_form_is_one_line(run_dir, refused):
    run_dir.ladder.write_text('[{"stage": "grpo"}]')
    assert "ladder.json: not the ladder of a run" in refused("doctor", run_dir.path)


def test_rows_without_an_answer_are_passed_over():
    assert doctor.check_rollouts([{"verdict": "right"}, *rollouts(), {"completion": None, "verdict": "wrong"}]) == []
    assert doctor.check_pairs([{"chosen": "1"}, *preference_pairs()]) == []


def test_no_folder_and_a_file_of_another_kind(tmp_path, refused):
    (tmp_path / "log.txt").write_text("step 1: loss 2.0\n")
    assert "no such folder" in refused("doctor", tmp_path / "nowhere")
    assert "expected metrics.jsonl" in refused("doctor", tmp_path / "log.txt")
    assert "doctor takes a folder" in refused("doctor")
