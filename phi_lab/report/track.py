"""A run in TensorBoard, trackio or Weights & Biases: what its stages have logged, sent there by accelerate's trackers.

Training itself sends nothing anywhere (`report_to="none"`): it writes metrics.jsonl, and this reads it, after training
or while it goes on.

    phi-lab track runs/first --to tensorboard
"""

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from phi_lab.config.schema import read_config
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows, remove_folder
from phi_lab.core.formatting import one_line
from phi_lab.core.locks import in_use
from phi_lab.core.redaction import redact, url_secrets
from phi_lab.core.run_folder import RunFolder, StageFolder, arm_name
from phi_lab.report.ladder_rows import protocol, read_ladder

PROJECT = "phi-lab"  # unless TRACKIO_PROJECT or WANDB_PROJECT names another
POLL = 5.0  # seconds between two looks at a run that is followed
IDLE_LOOKS = 4  # without a process in the run, after which it is done: between two steps there may be none
HALF_A_ROW = 0.5  # seconds after which a row that was being written is whole
FIX = "restore the file, or train the stage again"


def track(folder: Path, to: str, follow: bool = False, log: Callable[[str], None] = print) -> None:
    """Send every stage's metrics of the run in `folder` to the tracker `to` (tensorboard, trackio or wandb): one
    tracker run a stage, in the order in which they were trained, with the run's configuration, the steps as in the
    file, and at its last step the stage's accuracies from ladder.json.

    follow: go on with what is logged from now on, until no process works in the run any more, or until Ctrl-C.
    Raises UserError, before anything is sent, for a folder without metrics, a damaged file, or a missing package.
    """
    run = RunFolder(Path(folder))
    if not run.path.is_dir():
        raise UserError(f"{folder}: no such folder")
    _require_package(to)
    config = configuration(run)
    for stage in trained_stages(run):
        metric_rows(stage.metrics)
    accuracies(run, "")
    sender = _Sender(run, to, config, log)
    try:
        for _ in _looks(run, follow):
            sender.send_new()
    except KeyboardInterrupt:
        if not follow:
            raise
        log("stopped following")
    finally:
        sender.finish_stage()
    if not sender.begun:
        raise UserError(f"{folder}: no stage in it has logged anything yet (STAGE/metrics.jsonl)")


def trained_stages(run: RunFolder) -> list[StageFolder]:
    """The run's stages and arms that have logged something, the last written last: that one may still be training."""
    stages = [StageFolder(path) for path in run.path.glob("[!.]*") if path.is_dir()]
    times = {stage: stage.metrics.stat().st_mtime for stage in stages
             if stage.metrics.is_file() and stage.metrics.stat().st_size}
    return sorted(times, key=lambda stage: (times[stage], stage.path.name))


def metric_rows(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, each with a whole `step` and numbers. Raises UserError for a damaged file."""
    try:
        rows = read_rows(path, ("step",), fix=FIX)
    except UserError:  # the last row may be half written: a damaged one is damaged the second time, too
        time.sleep(HALF_A_ROW)
        rows = read_rows(path, ("step",), fix=FIX)
    for number, row in enumerate(rows, 1):
        for name, value in row.items():
            if not isinstance(value, int if name == "step" else int | float):
                raise UserError(f"{path}, line {number}: {name} is no number; {FIX}")
    return rows


def configuration(run: RunFolder) -> dict:
    """The settings in config.json as a tracker takes them, such as {"mid.learning_rate": 0.004, "seed": 0}: a list as
    its JSON. Empty where the run has no config.json.
    """
    saved = read_config(run.config) if run.config.is_file() else {}
    settings = saved.pop("config", {})
    return dict(_flat({**saved, **(settings if isinstance(settings, dict) else {})}))


def accuracies(run: RunFolder, name: str) -> dict[str, float]:
    """What ladder.json says of the stage or arm `name`, between 0 and 1, such as {"accuracy/hard/sampled": 0.63,
    "pass@8/hard": 0.84}; empty until it is measured.
    """
    rows = read_ladder(run.ladder) if run.ladder.is_file() else []
    return {
        f"pass@{row['k']}/{row['benchmark']}" if protocol(row) == "pass" else
        f"accuracy/{row['benchmark']}/{protocol(row)}": row["pass_at_k"] if protocol(row) == "pass" else row["accuracy"]
        for row in rows if arm_name(row["stage"], row["arm"]) == name
    }


class _Sender:
    """What of a run was sent, and the tracker run of the stage that is sent now."""

    def __init__(self, run: RunFolder, to: str, config: dict, log: Callable[[str], None]):
        self.run, self.to, self.config, self.log = run, to, config, log
        self.begun: set[str] = set()
        self.name = ""  # of the stage that is sent now
        self.tracker = None
        self.sent: set[tuple] = set()  # of that stage: the step and the columns of each row

    def send_new(self) -> None:
        """Send the rows that were not sent yet. A stage ends when the next one has begun."""
        for stage in trained_stages(self.run):
            if stage.path.name not in self.begun:
                self.finish_stage()
                self.begin(stage.path.name)
            if stage.path.name == self.name:
                for row in metric_rows(stage.metrics):
                    self.send(row)

    def begin(self, name: str) -> None:
        self.begun.add(name)
        self.name, self.sent = name, set()
        self.tracker = _start(self.to, self.run, name)
        self.tracker.store_init_configuration({**self.config, "stage": name})

    def send(self, row: dict) -> None:
        """Send a row, unless it was sent. A stage that is killed and resumed logs some steps a second time."""
        key = (row["step"], *row)
        if key not in self.sent:
            self.sent.add(key)
            self.tracker.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def finish_stage(self) -> None:
        """Send the accuracies of the stage and close its tracker run, if there is one."""
        if self.tracker is None:
            return
        tracker, self.tracker = self.tracker, None
        try:
            measured = accuracies(self.run, self.name)
            if measured:
                tracker.log(measured, step=max((step for step, *_ in self.sent), default=0))
        finally:
            tracker.finish()
        self.log(f"{self.name}: {len(self.sent):,} rows and {len(measured)} accuracies sent to {self.to}")


def _looks(run: RunFolder, follow: bool) -> Iterator[None]:
    """One turn for what is there; with `follow` one every `POLL` seconds, and the last after the run's end."""
    idle = 0
    while follow and idle < IDLE_LOOKS:
        idle = 0 if in_use(run.path) else idle + 1
        yield
        time.sleep(POLL)
    yield


def _flat(settings: dict, before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", json.dumps(value) if isinstance(value, list) else value


def _require_package(to: str) -> None:
    """Raises UserError where a tracker's package is missing. A folder of its name, such as wandb's own, is none."""
    found = importlib.util.find_spec(to)
    if found is None or found.origin is None:
        raise UserError(f"{to} is not installed: pip install {to}")


def _start(to: str, run: RunFolder, name: str):
    """accelerate's tracker of one stage, started. Raises UserError, without a key, where it does not start."""
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=True)  # accelerate's trackers ask it which process they are in
    kind, folder, run_name = LOGGER_TYPE_TO_CLASS[to], run.path / "trackers", run.path.resolve().name
    project = os.environ.get(f"{to.upper()}_PROJECT") or PROJECT
    if to == "tensorboard":
        remove_folder(folder / to / name)  # of an earlier call
        tracker = kind(name, folder / to)
    elif to == "wandb":
        folder.mkdir(exist_ok=True)
        place = os.environ.get("WANDB_DIR") or str(folder)
        tracker = kind(project, name=f"{run_name}/{name}", group=run_name, dir=place)
    else:
        tracker = kind(project, name=f"{run_name}/{name}", group=run_name)
    try:
        tracker.start()
    except Exception as error:
        secrets = [value for key, value in os.environ.items() if key.endswith(("_KEY", "_TOKEN"))]
        secrets += url_secrets(os.environ.get("TRACKIO_SERVER_URL", ""))
        raise UserError(f"{to} does not start: {one_line(redact(str(error), secrets))}") from None
    return tracker
