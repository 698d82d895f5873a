"""`make engines` runs by hand; what it would run is tested here."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import engines


def test_without_a_name_all_are_tried():
    """`make engines` gives none."""
    assert engines.chosen([]) == ["llama-cpp", "smollm2", "tensorboard", "vllm"]
    assert engines.chosen(["vllm", "smollm2"]) == ["vllm", "smollm2"]
    assert engines.chosen(["--packages"]) == []  # what `make test` gives: no engine is tried
    assert all((engines.ROOT / test).is_file() for test in engines.TESTS.values() if test)


def test_an_unknown_name_is_one_line(capsys):
    with pytest.raises(SystemExit) as left:
        engines.chosen(["vlm"])
    assert left.value.code == 2 and "unknown engine 'vlm': choose from llama-cpp, smollm2" in capsys.readouterr().err


def test_an_engines_rows_replace_its_old_ones_and_no_others(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    rows = "| vllm | old | passed | 1 | x |\n| smollm2 | kept | passed | 1 | x |\n"
    page.write_text(f"a\n{engines.MARKS[0]}| h |\n|---|\n{rows}{engines.MARKS[1]}\nb\n")
    monkeypatch.setattr(engines, "PAGE", page)
    engines.write_table("vllm", [["new", "failure", "3"]])
    text = page.read_text()
    assert "| vllm | new | failure | 3 |" in text and "old" not in text and "| smollm2 | kept |" in text
    assert text.startswith("a\n") and text.endswith("\nb\n")


def test_packages_come_whole_or_not_at_all(tmp_path, monkeypatch):
    def install(code):
        def run(*command, **more):
            Path(command[command.index("--target") + 1]).mkdir(parents=True, exist_ok=True)
            return code
        return run

    monkeypatch.setattr(engines, "PLACE", tmp_path)
    monkeypatch.setattr(engines, "run", install(1))
    assert engines.packages("llama-cpp") is None and not (tmp_path / "llama-cpp").exists()
    monkeypatch.setattr(engines, "run", install(0))
    assert engines.packages("llama-cpp") == tmp_path / "llama-cpp" and (tmp_path / "llama-cpp").is_dir()
    monkeypatch.setattr(engines, "run", None)  # not asked again
    assert engines.packages("llama-cpp") == tmp_path / "llama-cpp"
