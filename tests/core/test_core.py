"""Small helpers that every room uses: files, seeds, formatting, paths of a run."""

import pytest

from phi_lab.core import files, formatting
from phi_lab.core.errors import UserError
from phi_lab.core.run_folder import RunFolder, arm_name
from phi_lab.core.seeds import derive_seed


def test_a_torn_last_line_is_cut_off_and_the_others_stay(tmp_path):
    journal = tmp_path / "journal.jsonl"
    assert files.read_journal(journal) == []
    files.append_rows(journal, [{"a": 1}, {"a": 2}])
    whole = journal.read_bytes()
    journal.write_bytes(whole + '{"a": "ü'.encode()[:-1])  # a kill in the middle of a letter
    assert files.read_journal(journal) == ['{"a": 1}', '{"a": 2}']
    assert journal.read_bytes() == whole
    files.append_rows(journal, [{"a": 3}])
    assert files.read_journal(journal)[-1] == '{"a": 3}'


def test_a_journal_s_line_that_is_not_text_is_named(tmp_path):
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(UserError, match="line 2: not UTF-8"):
        files.read_journal(journal)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    files.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}


def test_derived_seeds_of_different_runs_never_meet():
    assert len({derive_seed(seed, part) for seed in range(3) for part in range(1000)}) == 3000
    assert derive_seed(0, 7) == 7 and derive_seed(2, 7) == 2_000_013


def test_numbers_and_tables_read_the_same_everywhere():
    assert formatting.percent(0.6179) == "61.8 %"
    assert formatting.percent_interval(0.618, 0.5914, 0.643) == "61.8 % [59.1, 64.3]"
    assert formatting.markdown_table([("arm", "n"), ("sft", 4)]) == ["| arm | n |", "|---|---|", "| sft | 4 |"]
    assert formatting.one_line("a\n  b\tc" + "d" * 300, 10) == "a b cddddd"


def test_a_run_folder_knows_its_paths(tmp_path):
    run = RunFolder(tmp_path)
    assert run.stage("dpo", "paper").model == tmp_path / "dpo-paper" / "model"
    assert run.evals.answers(arm_name("sft"), "hard") == tmp_path / "evals" / "sft.hard.jsonl"
    assert not run.stage("sft").finished
    files.write_json(run.stage("sft").done, {})
    assert run.stage("sft").finished
