"""Chains, shipped checkpoints and notebooks' outputs of one publication come from one code state."""

import html
import shutil

import nbformat
import pytest
from chain_examples import chain_rows, row

from phi_lab.config import presets
from phi_lab.config.schema import STAGES
from phi_lab.core import code_state, paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, write_json, write_rows
from phi_lab.core.run_folder import RunFolder
from phi_lab.distill import shards
from phi_lab.lab import tables, views
from phi_lab.model import checkpoints
from phi_lab.pipeline import notebooks, publication, publish
from phi_lab.report import chain_rows as published
from phi_lab.report import replications, report

LEVELS = {"base": -0.05, "mid": 0.4, "sft": 0.6, "dpo": 0.62, "grpo": 0.7}
ROLLOUT = {"id": "a", "sample": 0, "level": 3, "verdict": "right", "temperature": 0.8, "completion": "x"}
BY_END = (3, 1, 4, 0, 2)  # seeds, from the lowest end to the highest


@pytest.fixture
def world(tmp_path, shipped, monkeypatch):
    """A repository with a base and a teacher, five published chains, and the run of the chain in their middle."""
    data = tmp_path / "data"
    for name, place in (("DATA", "."), ("SHIPPED", "checkpoints"), ("TEACHER", "teacher"), ("DISTILLED", "distilled")):
        monkeypatch.setattr(paths, name, data / place)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(published, "PUBLISHED", data / "chains.jsonl")
    shutil.copytree(shipped("base"), paths.SHIPPED / "base")
    shutil.copytree(shipped("teacher"), paths.TEACHER)
    run = RunFolder(tmp_path / "seed-4")
    for stage in STAGES[1:]:
        shutil.copytree(shipped(stage), run.stage(stage).model)
    config = presets.LAB
    write_json(run.config, {
        "scale": "cpu", "profile": "lab", "seed": 4, "versions": {"torch": "1", "trl": "2"}, "config": config.row(),
        "git_commit": "c0ffee", "dirty": False, "code": "c0de",
    })
    base, teacher = checkpoints.fingerprint(shipped("base")), checkpoints.fingerprint(shipped("teacher"))
    write_json(run.stage("mid").student, {"weights": base})
    write_json(run.data.teacher, {"weights": teacher})
    write_json(run.ladder, [])
    write_json(run.data.funnel, {"rollouts": 1, "questions": 1, "steps": []})
    for name in ("rollouts", "validation"):
        shards.write(run.data.path / name / "000000.parquet", [ROLLOUT])
    rows = []
    for seed in range(5):
        for name, level in LEVELS.items():
            made = row(seed, name, level + 0.01 * BY_END.index(seed), config=config.digest())
            made["teacher"] = teacher if name != "base" else None
            made |= {"model": base} if name == "base" else {"start": base} if name == "mid" else {}
            if seed == 4 and name != "base":
                made["model"] = checkpoints.fingerprint(shipped(name))
            rows.append(made)
    write_rows(published.PUBLISHED, rows)
    source = tmp_path / "source" / "00_page.py"
    source.parent.mkdir()
    source.write_text("# %% [markdown]\n# # A page\n\n# %%\n1 + 1\n")
    executed = notebooks.build(source)
    run.notebooks.mkdir()
    nbformat.write(executed, run.notebooks / "00_page.ipynb")
    paths.NOTEBOOKS.mkdir()
    notebooks.convert(run, source.parent, paths.NOTEBOOKS)
    return run


def changed(rows, seed, name, **values):
    return [row | values if (row["seed"], row["name"]) == (seed, name) else row for row in rows]


def found():
    return publication.published_disagreements(published.published())


def test_a_publication_of_one_code_state_is_whole(world, capsys):
    assert found() == [f"{paths.SHIPPED / 'source.json'} is missing: `phi-lab publish` the median chain"]
    publish.publish(world)
    assert found() == [] and "not yet of one code state" not in capsys.readouterr().out
    mark = read_json(paths.SHIPPED / "source.json")
    assert mark["config"] == presets.LAB.digest() and mark["seed"] == 4 and set(mark["models"]) == set(STAGES[1:])
    metadata = nbformat.read(paths.NOTEBOOKS / "00_page.ipynb", 4).metadata["phi_lab"]
    assert metadata == {key: mark[key] for key in mark if key != "models"}
    notebooks.convert(None, world.path.parent / "source", paths.NOTEBOOKS)  # the same code keeps outputs and source
    assert nbformat.read(paths.NOTEBOOKS / "00_page.ipynb", 4).metadata["phi_lab"] == metadata


@pytest.mark.parametrize(("seed", "name", "values", "says"), [
    (2, "sft", {"config": "other"}, "chain 2, sft: config other, but chain 0, base has"),
    (2, "sft", {"code": "other"}, "chain 2, sft: code other, but chain 0, base has c0de"),
    (2, "sft", {"code": None}, "chain 2, sft does not say its code"),
    (2, "sft", {"teacher": "other"}, "chain 2, sft: teacher other, but chain 0, mid has"),
    (2, "base", {"model": "other"}, "chain 2, base: base other, but chain 0, base has"),
    (2, "mid", {"start": "other"}, "chain 2, mid: base other, but chain 0, base has"),
    (2, "grpo", {"dirty": True}, "chain 2, grpo was made from changed files"),
    (4, "dpo", {"model": "other"}, "dpo has the weights .*, the chain of its seed other"),
])
def test_chains_of_another_source_are_refused_and_found(world, seed, name, values, says):
    rows = published.published()
    publish.publish(world)
    write_rows(published.PUBLISHED, changed(rows, seed, name, **values))
    assert len(found()) >= 1
    with pytest.raises(UserError, match=says):
        publish.publish(world)


def test_only_a_rival_may_be_of_later_code_and_then_on_all_chains(world):
    rows = published.published()
    rival = [row | {"name": "grpo-coin", "code": "later"} for row in rows if row["name"] == "grpo"]
    write_rows(published.PUBLISHED, rows + rival)
    publish.publish(world)
    assert found() == []
    write_rows(published.PUBLISHED, rows + changed(rival, 2, "grpo-coin", code="c0de"))
    assert found() == ["chain 2, grpo-coin: code c0de, but chain 0, grpo-coin has later"]
    write_rows(published.PUBLISHED, rows + changed(rival, 2, "grpo-coin", config="other"))
    (said,) = found()
    assert said.startswith("chain 2, grpo-coin: config other, but chain 0, base has")


@pytest.mark.parametrize("key", ["code", "config", "base", "teacher", "seed"])
def test_a_run_of_another_source_changes_nothing(world, key):
    saved, before = read_json(world.config), sorted(paths.DATA.rglob("*"))
    if key == "config":
        saved["config"]["mid"]["epochs"] = 3
    elif key in ("base", "teacher"):
        write_json(world.stage("mid").student if key == "base" else world.data.teacher, {"weights": "other"})
    else:
        saved[key] = "other" if key == "code" else 2
    write_json(world.config, saved)
    with pytest.raises(UserError, match="not of one code state with data/chains.jsonl"):
        publish.publish(world)
    assert sorted(paths.DATA.rglob("*")) == before


def test_only_a_chain_in_the_middle_is_shipped(world):
    assert publication.median_seeds(published.chains(published.published())) == [4]
    rows = published.published()
    assert publication.median_seeds(published.chains([row for row in rows if row["seed"] != 2])) == [1, 4]
    assert publication.median_seeds(published.chains([row for row in rows if row["seed"] == 2])) == [2]
    write_rows(published.PUBLISHED, [row for row in rows if row["seed"] not in (0, 2)])
    with pytest.raises(UserError, match="seed-4 has seed 4; the median chain has 1"):
        publish.publish(world)


def test_what_changes_after_publishing_is_found(world, shipped):
    publish.publish(world)
    shutil.copy(shipped("sft") / "model.safetensors", paths.SHIPPED / "grpo" / "model.safetensors")
    (line,) = found()
    assert line.startswith(f"{paths.SHIPPED / 'grpo'} has the weights")
    publish.publish(world)
    shutil.copy(shipped("base") / "model.safetensors", paths.TEACHER / "model.safetensors")
    (line,) = found()
    assert line.startswith(f"{paths.TEACHER} has the weights")


def test_notebooks_of_other_code_are_found_when_a_run_is_published(world, capsys):
    page = paths.NOTEBOOKS / "00_page.ipynb"
    notebook = nbformat.read(page, 4)
    notebook.metadata["phi_lab"]["code"] = "other"
    nbformat.write(notebook, page)
    publish.publish(world)
    assert f"not yet of one code state: {page}: code other, but" in capsys.readouterr().out
    del notebook.metadata["phi_lab"]
    nbformat.write(notebook, page)
    assert found() == [f"{page} does not say what made its outputs: `phi-lab notebooks --outputs-from RUN`"]


def test_without_chains_any_run_is_published(world):
    published.PUBLISHED.unlink()
    write_json(world.config, read_json(world.config) | {"seed": 7, "code": None})
    publish.publish(world)
    assert read_json(paths.SHIPPED / "source.json")["seed"] == 7


def test_the_digest_of_the_code_follows_code_and_not_prose(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(code_state, "DECISIVE", ("stages", "pipeline/arms.py"))
    arms = tmp_path / "phi_lab" / "pipeline" / "arms.py"
    arms.parent.mkdir(parents=True)
    arms.write_text("x = 1\n")
    module = tmp_path / "phi_lab" / "stages" / "x.py"
    module.parent.mkdir(parents=True)
    module.write_text('"""Doc."""\n\ndef f(x):\n    """Doc."""\n    return x  # why\n')
    before = code_state.code_digest()
    module.write_text('"""Other."""\n\n\ndef f(x):\n    """Better."""\n\n    return x\n')
    assert code_state.code_digest() == before
    module.write_text('"""Other."""\n\ndef f(x):\n    return x + 1\n')
    assert code_state.code_digest() != before
    after = code_state.code_digest()
    (tmp_path / "phi_lab" / "report").mkdir()
    (tmp_path / "phi_lab" / "report" / "y.py").write_text("x = 1\n")
    assert code_state.code_digest() == after
    arms.write_text("x = 2\n")
    assert code_state.code_digest() != after
    assert len(code_state.code_state()["code"]) == 16


# ------------------------------------------------------------------ what this repository publishes

ROWS = published.published()
needs_chains = pytest.mark.skipif(not ROWS, reason="no chains are published with this version")


@needs_chains
def test_what_is_published_is_of_one_code_state():
    assert publication.published_disagreements(ROWS) == []
    models = {(row["seed"], row["name"]): row["model"] for row in ROWS}
    rivals = [(row, stage) for row in ROWS for stage in ("sft", "dpo", "grpo") if row["name"].startswith(f"{stage}-")]
    before = dict(zip(("sft", "dpo", "grpo"), ("mid", "sft", "dpo"), strict=True))
    assert rivals and all(row["start"] == models[row["seed"], before[stage]] for row, stage in rivals)


def shown(name):
    """What a committed notebook shows, as one text."""
    page = nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", 4)
    outputs = [output for cell in page.cells for output in cell.get("outputs", []) if "data" in output]
    return "\n".join("".join(output["data"].get("text/html", "")) for output in outputs)


@needs_chains
def test_results_report_and_notebooks_show_the_same_chains(tmp_path):
    """All of them from the committed rows, and from nothing else."""
    for name, written in replications.PAGES.items():
        tables_between_marks = written(ROWS).join(replications.MARKS)
        assert tables_between_marks in (paths.ROOT / name).read_text(), "phi-lab experiment publish"
    assert replications.fingerprint(ROWS) in (paths.ROOT / "docs" / "ladder.svg").read_text()
    pages = {"02_mid_training": ["mid"], "03_sft": ["sft"], "04_rollout_dpo": ["dpo"], "05_grpo": ["grpo"],
             "06_report_card": STAGES}
    for name, stages in pages.items():
        assert views.gains_tables(ROWS, stages, "") in shown(name), f"{name} was executed with other chains"
    head, *lines = replications.means_table(ROWS)
    assert tables.table("", head, lines) in shown("06_report_card"), "06 was executed with other chains"
    write_json(tmp_path / "ladder.json", [])
    page = report.write_report(tmp_path).read_text()
    for line in [*replications.gains_table(ROWS), *replications.means_table(ROWS), *replications.parts_table(ROWS)]:
        assert all(html.escape(cell) in page for cell in line)


def test_a_page_without_chains_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PUBLISHED", tmp_path / "none.jsonl")
    write_json(tmp_path / "ladder.json", [])
    assert "none are published" in report.write_report(tmp_path).read_text()


def test_one_page_shows_chains_that_are_made_up(tmp_path, monkeypatch):
    made = chain_rows(range(3))
    monkeypatch.setattr(published, "PUBLISHED", tmp_path / "chains.jsonl")
    write_rows(published.PUBLISHED, made)
    write_json(tmp_path / "ladder.json", [])
    page = report.write_report(tmp_path).read_text()
    for line in [*replications.gains_table(made), *replications.means_table(made), *replications.parts_table(made)]:
        assert all(html.escape(cell) in page for cell in line)
