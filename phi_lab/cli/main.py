"""The parser of all commands, and `main`, which turns a user's mistake into one line and exit code 2.

Each command is one file beside this one, with `add_parser(commands)` and `run(options)`. What a command needs is
imported when it runs, so that `--help` and a mistyped option answer at once.
"""

import argparse
import errno
import os
import sys

from phi_lab import __version__
from phi_lab.cli import (
    bench,
    chat,
    course,
    distill,
    doctor,
    evaluate,
    experiment,
    export,
    notebooks,
    plan,
    progress,
    publish,
    query,
    report,
    run,
    stage,
    track,
    verify,
)
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import printable

COMMANDS = (run, stage, plan, distill, query, verify, evaluate, report, doctor, track, chat, export, publish, course,
            notebooks, progress, experiment, bench)
CONTINUE = ("run", "stage", "distill", "eval", "course", "experiment")  # what they had finished is on the disk
EPILOG = """typical use:
  phi-lab run --out runs/first                    train and measure every stage on this computer, half an hour
  phi-lab run --profile smoke --out runs/smoke    the same in two minutes, from shipped checkpoints
  phi-lab run --from dpo --to grpo --out runs/rl  only the last two stages
  phi-lab chat --model runs/first/grpo/model      ask the trained model
  phi-lab report runs/first                       write its report.html again
"""
NO_SUCH_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM, errno.EROFS,
                 errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP)
SIGPIPE = 141  # what the shell shows for a program that ends so
FULL_DISK = ("os error 28", "inline_container.cc")  # what safetensors and torch write then; neither sets errno


def build_parser() -> argparse.ArgumentParser:
    """The parser of `phi-lab` with all its commands."""
    parser = argparse.ArgumentParser(
        prog="phi-lab", description="Train a reasoning model through the Phi-4-Mini-Reasoning recipe, on a laptop.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; `arguments` defaults to those of the process.

    A user's mistake, a folder that cannot be written, a full disk and Ctrl-C end with one line on stderr and code 2.
    Any other exception is a fault of this package and stays a traceback.
    """
    _open_streams()
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it ends
        return SIGPIPE
    except KeyboardInterrupt:
        more = "; the same command continues from the last finished step" if options.command in CONTINUE else ""
        print(f"\nphi-lab: stopped{more}", file=sys.stderr)
        return 2
    except Exception as error:
        line = one_line_for_user(error)
        if line is None:
            raise
        print(f"phi-lab: {printable(line)}", file=sys.stderr)
        return 2
    return 0


def _open_streams() -> None:
    """Give the process an output and an error stream that take every character: what a terminal's encoding lacks is
    shown as its escape, and what would be written to a closed stream (`>&-`) goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def one_line_for_user(error: Exception) -> str | None:
    """What to print instead of a traceback; None for an error that the user cannot mend."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in NO_SUCH_PLACE:
        return f"{error.filename or 'output'}: {error.strerror}; make room or choose another place"
    if not isinstance(error, OSError) and any(sign in str(error) for sign in FULL_DISK):
        return "no space left for a model; make room or choose another --out"
    return None
