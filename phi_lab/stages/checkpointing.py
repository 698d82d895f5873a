"""A trainer's checkpoints: when one is whole, which one a stopped stage continues from, and which are removed.

A kill, a full disk or a power cut may leave any file of a checkpoint out, cut short or empty. So the last thing written
into one is a mark with the size and a hash of each of its files, and only then are older checkpoints removed. A stage
continues from the newest checkpoint whose files are as its mark says.
"""

import json
import os
import zipfile
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments

from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json, read_rows, remove_folder, write_json
from phi_lab.core.marks import fingerprints, first_damage

MARK = "whole.json"  # written last
METRICS = "metrics.jsonl"  # the rows logged up to this checkpoint
LOSS = "loss.json"  # the sum of the losses since the last of those rows
STATE = "trainer_state.json"  # transformers' own: step, best step, callbacks


class ResumableTrainer:
    """Before TRL's trainers among the bases of ours: checkpoints have a mark, and a stopped stage goes on as if it had
    not been stopped.
    """

    nothing_left = False

    def __init__(self, *arguments, **rest):
        super().__init__(*arguments, **rest)
        self.add_callback(Keeper(self))
        if self.args.fp16:  # TRL makes QLoRA's adapter bfloat16, which a GPU that needs float16 does not have
            for weight in self.model.parameters():
                weight.data = weight.data.float() if weight.requires_grad else weight.data

    def train(self, resume_from_checkpoint: str | None = None, **rest):
        """transformers' `train`, which would take one step more from a checkpoint of the last step."""
        self.nothing_left = bool(resume_from_checkpoint) and _ended(Path(resume_from_checkpoint))
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **rest)
        finally:  # a bar that an error leaves open would push the next one a line down
            for bar in [callback.bar for callback in self.callback_handler.callbacks if hasattr(callback, "bar")]:
                bar.close()

    def set_initial_training_values(self, *arguments):
        """transformers' counts, the first of which is that of the epochs."""
        epochs, *others = super().set_initial_training_values(*arguments)
        return (0 if self.nothing_left else epochs, *others)


class Keeper(TrainerCallback):
    """Finishes a checkpoint after it was saved, and restores what transformers does not. It comes after the callback
    that writes metrics.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_save(self, args, state, control, **_):
        """Mark the new checkpoint as whole and remove older ones but the best, if its weights are needed at the end."""
        loss = self.trainer.accelerator.gather(self.trainer._tr_loss).mean().item()
        PartialState().wait_for_everyone()  # each process writes files of its own
        if state.is_world_process_zero:
            folder = folder_of(args, state.global_step)
            write_json(folder / LOSS, {"sum": loss, "since": self.trainer._globalstep_last_logged})
            write_mark(folder)
            needed = {folder, _best(args, state.best_global_step)}
            for older in set(_checkpoints(folder.parent)) - needed:
                remove_folder(older)
        PartialState().wait_for_everyone()

    def on_train_begin(self, args, state, control, **_):
        """Go on from a checkpoint with the losses since the last logged row, so that the next one is their mean. Find
        the best checkpoint again where the run folder was moved: transformers would do without it, and end with other
        weights.
        """
        if not state.global_step:
            return
        best, carried = _best(args, state.best_global_step), folder_of(args, state.global_step) / LOSS
        if best and best.is_dir():
            state.best_model_checkpoint = str(best)
        if carried.is_file():
            loss = read_json(carried)
            self.trainer._tr_loss += loss["sum"]
            self.trainer._globalstep_last_logged = loss["since"]


def _ended(checkpoint: Path) -> bool:
    """Whether training was about to end when this checkpoint was saved: at its last step, or on a plateau."""
    state = read_json(checkpoint / STATE)
    control = state["stateful_callbacks"].get("TrainerControl", {"args": {}})
    return state["global_step"] >= state["max_steps"] or bool(control["args"].get("should_training_stop"))


def folder_of(arguments: TrainingArguments, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return Path(arguments.output_dir) / f"checkpoint-{step}"


def write_mark(checkpoint: Path) -> None:
    """Say of a checkpoint that all of it is there."""
    write_json(checkpoint / MARK, {"files": fingerprints(checkpoint, [checkpoint], whole=False)})


def resume_point(arguments: TrainingArguments) -> str | None:
    """The newest whole checkpoint of an interrupted stage, if there is one. Newer ones are named, and removed. With
    several processes the first one looks, and all continue from what it found.
    """
    found = [None]
    if PartialState().is_main_process:
        for checkpoint in sorted(_checkpoints(Path(arguments.output_dir)), key=_step, reverse=True):
            damage = _damage(checkpoint) or _damage_of_the_best(arguments, checkpoint)
            if damage is None:
                found = [str(checkpoint)]
                break
            print(f"{checkpoint}: not whole, {damage}; skipped", flush=True)
            remove_folder(checkpoint)
    return broadcast_object_list(found)[0]


def logged_rows(arguments: TrainingArguments, state: TrainerState, metrics: Path) -> list[dict]:
    """The rows logged before the checkpoint that training continues from; of a stage that an older version stopped, out
    of its metrics file.
    """
    path = folder_of(arguments, state.global_step) / METRICS
    if path.is_file():
        return read_rows(path)
    # Not `read_journal`, which cuts a torn last line off: every process reads here, and the first one writes.
    lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    try:
        rows = [json.loads(line) for line in lines if line.endswith("}\n")]
        return [row for row in rows if row["step"] <= state.global_step]
    except (ValueError, KeyError):
        raise UserError(f"{metrics} is damaged: delete {metrics.parent} to train this stage again") from None


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdecimal()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name[11:])


def _best(arguments: TrainingArguments, step: int | None) -> Path | None:
    """The checkpoint whose weights will be the stage's, if they are not the last ones."""
    return folder_of(arguments, step) if step and arguments.load_best_model_at_end else None


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None for a whole one."""
    try:
        if not (checkpoint / MARK).is_file():
            return _damage_without_mark(checkpoint)
        return first_damage(checkpoint, read_json(checkpoint / MARK)["files"], whole=False)
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MARK} cannot be read ({error})"


def _damage_of_the_best(arguments: TrainingArguments, checkpoint: Path) -> str | None:
    best = _best(arguments, read_json(checkpoint / STATE).get("best_global_step"))
    if best is None or best == checkpoint:
        return None
    damage = _damage(best) if best.is_dir() else "missing"
    return damage and f"because the best one before it, {best.name}, is not: {damage}"


def _damage_without_mark(checkpoint: Path) -> str | None:
    """As far as it can be told of a checkpoint that was killed before its mark, or that an older version saved."""
    try:
        if read_json(checkpoint / STATE)["global_step"] != _step(checkpoint):
            return f"{STATE} is of another step"
    except (UserError, ValueError, KeyError, TypeError):
        return f"{STATE} is missing or broken"
    needed = ["scheduler.pt", *(path.name for path in checkpoint.glob("rng_state*.pth"))]
    if sharded := any(checkpoint.glob("pytorch_model_fsdp*")):
        for part in checkpoint.glob("*_fsdp_*"), checkpoint.glob("optimizer_*"):
            for folder in part:
                if not (folder / ".metadata").is_file() or not (folder / ".metadata").stat().st_size:
                    return f"{folder.name}/.metadata is missing"
    else:
        needed.append("optimizer.pt")
    for name in needed:
        if damage := _damage_of_archive(checkpoint / name):
            return damage
    weights = list(checkpoint.rglob("*.safetensors"))
    if not weights and not sharded:
        return "model.safetensors is missing"
    for path in weights:
        try:
            with safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError):
            return f"{path.name} is broken"
    return None


def _damage_of_archive(path: Path) -> str | None:
    """What is wrong with a file of torch.save, which is a zip archive with a checksum of each part."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{path.name} is broken" if archive.testzip() else None
    except FileNotFoundError:
        return f"{path.name} is missing"
    except (OSError, zipfile.BadZipFile):
        return f"{path.name} is broken or {os.path.getsize(path):,} bytes long"
