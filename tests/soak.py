"""Kill and resume: one whole tiny run, or one distilled set, killed (`kill -9` of its process group) again and again.

An unbroken run is watched first: every file that it opens to write, renames or removes, and every half of a file of
torch and safetensors, is a point at which the next one can be killed. Points are drawn by a seed, some of each part of
the run. The second run is killed at one point after the other, each time given again, and at the end has to equal the
first: weights, data, answers and rows byte for byte, times excepted, with nothing left over.

    python tests/soak.py --points 25 --seed 0        # what `make soak` runs
"""

import argparse
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import transformers.modeling_utils

import phi_lab.pipeline.run  # noqa: F401 - all that trains is imported once, here
from conftest import TINY
from phi_lab import cli
from phi_lab.config import presets
from phi_lab.core import paths
from phi_lab.core.files import read_rows, write_rows

WHAT = {
    "run": ["run", "--profile", "smoke", "--seed", "5"],
    "set": ["distill", "--teacher", "script", "--questions", "600", "--samples", "2"],
}
TIMES = ("seconds", "peak_rss_mb", "joules")
CHANGES = os.O_WRONLY | os.O_RDWR
Point = tuple[str, str]  # what is about to happen, to which file of the folder


class Watch:
    """Notes what a process is about to do to the files in `out`, and kills it before it does `fatal`."""

    def __init__(self, out: Path, fatal: Point | None, note: Path | None):
        self.out, self.fatal, self.note = str(out), fatal, note and note.open("a")

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
            if arguments[2] & CHANGES:
                self.about_to("write", arguments[0])
        elif event in ("os.rename", "os.remove", "os.rmdir"):
            self.about_to(event, os.fspath(arguments[1 if event == "os.rename" else 0]))

    def about_to(self, what: str, path: str | Path, die=None) -> None:
        path = str(path)
        if not path.startswith(self.out) or ".lock" in path:
            return
        point = what, re.sub(r"\.\d+\.part$", ".PID.part", path.removeprefix(self.out + "/"))
        if self.note:
            print(json.dumps(point), file=self.note, flush=True)
        if point == self.fatal:
            if die:
                die()
            os.killpg(0, signal.SIGKILL)

    def halves(self, save, position: int):
        """A function that saves a file; where that is fatal, half of the file is there when the process dies."""

        def saving(*arguments, **rest):
            path = rest.get("filename", arguments[position] if len(arguments) > position else rest.get("f"))

            def die():
                save(*arguments, **rest)
                os.truncate(path, os.path.getsize(path) // 2)

            if isinstance(path, str | Path):
                self.about_to("half", path, die)
            return save(*arguments, **rest)

        return saving


def command(words: list[str], out: Path, fatal: Point | None = None, note: Path | None = None) -> int:
    """Run a command of phi-lab in a process group of its own; returns its exit code, or -9."""
    if not (child := os.fork()):
        os.setsid()
        log = os.open(out.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        watch = Watch(out, fatal, note)
        torch.save = watch.halves(torch.save, 1)
        transformers.modeling_utils.safe_save_file = watch.halves(transformers.modeling_utils.safe_save_file, 1)
        sys.addaudithook(watch)
        os._exit(cli.main([*words, "--out", str(out)]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def choose(seen: list[Point], count: int, seed: int) -> list[Point]:
    """`count` points in the order of the run, about equally many of each of its parts."""
    first = [point for point in dict.fromkeys(seen) if not re.search(r"/tmp[a-z0-9_]{8}", point[1])]  # random names
    if not count:
        return []
    chance, chosen = random.Random(seed), set[int]()
    parts: dict[str, list[int]] = {}
    for place, (_, path) in enumerate(first):
        parts.setdefault(path.partition("/")[0] if "/" in path else "files of the run itself", []).append(place)
    while len(chosen) < min(count, len(first) - len(first) // 10):
        part = parts[chance.choice(sorted(parts))]
        if left := [place for place in part if place not in chosen]:
            chosen.add(chance.choice(left))
    return [first[place] for place in sorted(chosen)]


def content(out: Path) -> dict[str, object]:
    """Everything in a folder that a seed repeats."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir() or name in ("report.html", "config.json") or path.suffix == ".png":
            continue
        found[name] = path.read_bytes()
        if path.name in ("ladder.json", "done.json") or path.name == "metrics.jsonl":
            text = path.read_text()
            rows = json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
            found[name] = [
                {key: value for key, value in row.items() if key not in TIMES and key != "files"}
                for row in (rows if isinstance(rows, list) else [rows])
            ]
    return found


def tiny_settings(folder: Path) -> None:
    """Let `phi-lab run` have the settings of the tests, and two hundred of the shipped rollouts, put into `folder`."""
    write_rows(folder / "few" / "rollouts.jsonl.gz", read_rows(paths.DISTILLED / "rollouts.jsonl.gz")[:200])
    paths.DISTILLED, real = folder / "few", presets.run_config
    presets.run_config = lambda *names: replace(TINY, profile=real(*names).profile)


def soak(what: str, points: int, seed: int, folder: Path) -> list[str]:
    """The differences between an unbroken run and one that was killed at `points` points; [] where all is well."""
    whole, killed, note = folder / f"{what}-whole", folder / f"{what}-killed", folder / f"{what}.jsonl"
    code = command(WHAT[what], whole, note=note)
    if code:
        return [f"the unbroken {what} ended with {code}: {whole.with_suffix('.log').read_text()[-2000:]}"]
    seen = [tuple(json.loads(line)) for line in note.read_text().splitlines()]
    chosen, survived = choose(seen, points, seed), 0
    for number, point in enumerate(chosen, 1):
        began = time.monotonic()
        code = command(WHAT[what], killed, point)
        survived += code == 0
        print(f"{what} {number}/{len(chosen)}: {' '.join(point)}: {code}, {time.monotonic() - began:.0f} s", flush=True)
        if code not in (0, -9):
            return [f"given again it ended with {code}: {killed.with_suffix('.log').read_text()[-2000:]}"]
    code = command(WHAT[what], killed)
    if code:
        return [f"given again it ended with {code}: {killed.with_suffix('.log').read_text()[-2000:]}"]
    print(f"{what}: {len(chosen) - survived} kills", flush=True)
    one, other = content(whole), content(killed)
    wrong = [f"{name} differs" for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return wrong + ([f"only {len(chosen) - survived} of {points} kills"] if survived > points // 5 else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--points", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(WHAT))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny_settings(folder)
        plan = {"set": options.points // 5, "run": options.points - options.points // 5}
        if options.only:
            plan = {options.only: options.points}
        wrong = [line for what, points in plan.items() for line in soak(what, points, options.seed, folder)]
    for line in wrong:
        print(line)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
