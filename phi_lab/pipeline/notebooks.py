r"""The notebooks: built from plain Python files, executed in order; their outputs are cleaned and committed.

`notebooks/source/*.py` (jupytext's percent format) is what people edit and review; `notebooks/*.ipynb` is built from
it. A run of the course executes every notebook in one run folder, so that each continues where the one before it ended,
and saves the executed copies in `<run>/notebooks`. A stopped course continues with the same command.

    phi-lab course --out runs/course && phi-lab notebooks --outputs-from runs/course
"""

import os
import re
import subprocess
import threading
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from phi_lab.config import presets
from phi_lab.core import files, paths
from phi_lab.core.errors import UserError
from phi_lab.core.lifeline import in_child
from phi_lab.core.locks import one_process
from phi_lab.core.progress import Bar
from phi_lab.core.run_folder import RunFolder
from phi_lab.pipeline import publication
from phi_lab.pipeline.exercise_cells import mark_exercises
from phi_lab.pipeline.publication import NOTEBOOK_KEY as KEY
from phi_lab.pipeline.run import open_run
from phi_lab.report import expectation, report

SOURCES = paths.NOTEBOOKS / "source"
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TIME = re.compile(r"\*\*Time\*\*: about (?P<lab>\d+) seconds in the `lab` profile, (?P<smoke>\d+) in `smoke`"
                  r"(?:,\s(?:# )?(?P<lesson>\d+) in `lesson`)?")


def build(source: Path) -> nbformat.NotebookNode:
    """The notebook of one source file, without outputs; equal sources give equal notebooks."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(KERNEL)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", nbformat.from_dict({})
    mark_exercises(notebook.cells)
    return notebook


def code(notebook: nbformat.NotebookNode) -> list[str]:
    """The source of each code cell."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def convert(outputs_from: RunFolder | None = None, sources: Path = SOURCES, folder: Path = paths.NOTEBOOKS) -> None:
    """Build the notebooks from their sources and write them.

    Outputs are taken from the executed copies in the run `outputs_from`; without it every notebook whose code is
    unchanged keeps its outputs. Metadata say which code, settings, base and teacher the outputs are of
    (`publication.source`). Raises UserError where an executed copy is missing or has other code.
    """
    for source in sorted(sources.glob("*.py")):
        fresh, target = build(source), folder / f"{source.stem}.ipynb"
        executed = outputs_from.notebooks / target.name if outputs_from else target
        if executed.exists() and code(copy := nbformat.read(executed, 4)) == code(fresh):
            _take_outputs(fresh, copy, outputs_from.path if outputs_from else None)
            if made_by := publication.source(outputs_from) if outputs_from else copy.metadata.get(KEY):
                fresh.metadata[KEY] = nbformat.from_dict(made_by)
        elif outputs_from:
            raise UserError(
                f"{executed} is missing or was run with other code: `phi-lab course --out {outputs_from.path}` first"
            )
        nbformat.write(fresh, target)
        print(target.relative_to(folder.parent).as_posix())


@one_process
def run_course(run: RunFolder, profile: str = "lab") -> Path:
    """Execute all notebooks in order in one run folder; returns the path of the report.

    Raises UserError when a notebook fails, naming its cell, or the folder belongs to another configuration.
    """
    run = RunFolder(run.path.resolve())
    open_run(run, presets.course_config("cpu", profile), 0)
    sources, began = sorted(SOURCES.glob("*.py")), time.perf_counter()
    times = {source: TIME.search(source.read_text()) for source in sources}
    plan = {source: int(time_line[profile] or time_line["lab"]) for source, time_line in times.items()}
    spent = expected = 0.0  # seconds, of the notebooks executed so far
    for number, source in enumerate(sources, 1):
        target, notebook = run.notebooks / f"{source.stem}.ipynb", build(source)
        if target.exists() and code(nbformat.read(target, 4)) == code(notebook):
            print(f"[{number}/{len(sources)}] {source.stem}: done before")
            continue
        pace = spent / expected if expected else 1.0  # how this computer compares with the one the times are from
        left = pace * sum(plan[remaining] for remaining in sources[number - 1 :])
        print(
            f"[{number}/{len(sources)}] {source.stem}: about {_minutes(pace * plan[source])} of {_minutes(left)} left"
        )
        started = time.perf_counter()
        _execute(notebook, run, profile, source.stem, pace * plan[source])
        seconds = time.perf_counter() - started
        print(f"      {seconds:.0f} s")
        spent, expected = spent + seconds, expected + plan[source]
        target.parent.mkdir(parents=True, exist_ok=True)
        files.atomic_write(target, nbformat.writes(notebook).encode())  # whole or not at all
    page = report.write_report(run.path)
    if line := expectation.compare_with_chains(run):
        print(line)
    print(f"{_minutes(time.perf_counter() - began)}: notebooks in {run.notebooks}, report in {page}")
    return page


def _execute(notebook: nbformat.NotebookNode, run: RunFolder, profile: str, name: str, expected: float) -> None:
    """Execute one notebook in a new kernel, with a progress bar over the seconds it is expected to take."""
    environment = {**os.environ, "PHI_LAB_RUN": str(run.path), "PHI_LAB_PROFILE": profile, "PHI_LAB_SEED": "0",
                   "PHI_LAB_SCALE": "cpu"}
    bar, finished = Bar(max(1, round(expected)), name, "s"), threading.Event()

    def tick() -> None:
        while not finished.wait(1.0):
            bar.update(1 if bar.n < bar.total else 0)

    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(paths.NOTEBOOKS)}},
        on_cell_start=lambda cell, cell_index: bar.set_postfix_str(f"cell {cell_index + 1}", refresh=False),
    )
    clock = threading.Thread(target=tick, daemon=True)
    clock.start()
    try:
        client.execute(env=environment, stderr=subprocess.DEVNULL, preexec_fn=in_child())  # the kernel's own log
    except CellExecutionError as error:
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from None
        failed = run.notebooks / f"{name}.failed.ipynb"
        failed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, failed)
        raise UserError(f"{name} stopped at {error.ename}: {error.evalue}; the page is in {failed}") from None
    except (DeadKernelError, AssertionError):  # Ctrl-C too: nbclient takes the signal, ends the kernel, then misses it
        raise UserError(f"{name}: the kernel was stopped; the same command continues with this notebook") from None
    finally:
        finished.set()
        clock.join()
        bar.close()


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


# ------------------------------------------------------------------ outputs


def _take_outputs(fresh: nbformat.NotebookNode, executed: nbformat.NotebookNode, run_path: Path | None) -> None:
    """Copy the cleaned outputs of an executed notebook into one with the same code cells."""
    sources, targets = ([cell for cell in notebook.cells if cell.cell_type == "code"] for notebook in (executed, fresh))
    hidden_paths = [str(path) for path in (run_path and run_path.resolve(), paths.ROOT) if path]
    for number, (source, target) in enumerate(zip(sources, targets, strict=True), 1):
        target.outputs = clean(source.outputs, hidden_paths)
        target.execution_count = number if source.execution_count else None
        for output in target.outputs:
            if "execution_count" in output:
                output["execution_count"] = number


def clean(outputs: list, hidden_paths: list[str]) -> list[nbformat.NotebookNode]:
    """Outputs worth committing: no progress bars, warnings, widgets, times or paths of the machine that made them."""
    cleaned: list[nbformat.NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if cleaned and cleaned[-1].output_type == "stream":
                cleaned[-1].text += output.text
                continue
        elif any("widget" in mime_type for mime_type in output.get("data", {})):
            continue
        cleaned.append(nbformat.from_dict(output))
        data = output.get("data", {})
        if "image/png" in data and data.get("text/html", "").startswith("<img alt="):
            del cleaned[-1].data["text/html"]  # the same image again, for live pages (`plot_style.Figure`)
    for output in cleaned:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r", "", output.text)  # a progress bar writes over its own line
        for fields in (output, output.get("data", {})):
            for key in [k for k, value in fields.items() if isinstance(value, str) and not k.startswith("image/")]:
                for path in hidden_paths:
                    fields[key] = fields[key].replace(f"{path}/", "").replace(path, ".")
    return [output for output in cleaned if output.output_type != "stream" or output.text]
