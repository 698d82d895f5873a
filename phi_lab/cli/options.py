"""What the commands share: a parser with an example, argparse types, and the options that mean the same everywhere."""

import argparse
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from phi_lab.core.errors import UserError
from phi_lab.core.files import require_model
from phi_lab.core.formatting import one_line

OURS = {"model", "messages", "n", "stream"}  # fields of a request that --extra-body does not change
OUR_OPTIONS = {"temperature": "--temperature", "max_tokens": "--max-tokens"}  # null leaves them out
SECRET = re.compile(r'"[\w-]*(?:api[_-]?key|authori[sz]ation|password|secret|access[_-]?token)[\w-]*"\s*:', re.I)
JUDGE_MODEL, JUDGE_BUDGET = "gpt-4o-mini", 1000
MOST = {int: 10**12, float: float("inf")}  # of an option without a limit of its own


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the example's lines as they are, and shows a default only where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default in (None, "", [], {}, float("inf")) or isinstance(action.default, bool)
        return action.help if unset else super()._get_help_string(action)


def add_command(commands, name: str, run, sentence: str, example: str, **options) -> argparse.ArgumentParser:
    """Add one command's parser: `sentence` stands in both help pages, `example` at the end of the command's own."""
    parser = commands.add_parser(
        name, help=sentence, description=f"{sentence[0].upper()}{sentence[1:]}.", epilog=f"example:\n  {example}",
        formatter_class=HelpFormatter, **options,
    )
    parser.set_defaults(run=run)
    return parser


def between(low: float, high: float, kind: type = int):
    """An argparse type: a number from `low` to `high`."""

    def number(text: str):
        try:
            value = kind(text)
        except ValueError:  # more than 4,300 digits are refused too
            raise argparse.ArgumentTypeError(f"{one_line(text, 40)!r} is no number") from None
        if not low <= value <= high:
            limit = f"less than {low}" if high == MOST[kind] and value < low else f"not between {low} and {high}"
            raise argparse.ArgumentTypeError(f"{one_line(text, 40)} is {limit}")
        return value

    return number


def at_least(minimum: float, kind: type = int):
    """An argparse type: a number of at least `minimum`, and not so large that no library counts to it."""
    return between(minimum, MOST[kind], kind)


seed = between(0, 2**31 - 1)  # what every library takes
temperature = between(0.0, 2.0, float)


def request_fields(text: str) -> dict:
    """An argparse type: a JSON object with fields of a request. It is written into manifest and card, so that nothing
    of it may be a secret, and none of what this program itself decides may be in it.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise argparse.ArgumentTypeError('no JSON object, such as {"top_k": 0}')
    for name in OURS & fields.keys():
        raise argparse.ArgumentTypeError(f"{name} is not set here")
    if SECRET.search(text):
        raise argparse.ArgumentTypeError("a key or a password has no place in it: it is written into the dataset card; "
                                         "put the key into OPENAI_API_KEY")
    return fields


def extra_body(text: str) -> dict:
    """An argparse type: `request_fields` of a teacher's requests, without what has an option of its own."""
    fields = request_fields(text)
    for name, option in OUR_OPTIONS.items():
        if fields.get(name) is not None:
            raise argparse.ArgumentTypeError(f"{name} is set by {option}; here only null, which leaves it out")
    return fields


def add_engine(parser, default: str) -> None:
    """Add --engine; `default` says in words which one is taken without it."""
    parser.add_argument("--engine", default=None,
                        help=f"cpu: our loop, for Phi models; hf: transformers, any model; vllm: on a GPU; {default}")


def check_range(option: str, low_and_high: Sequence[float]) -> None:
    """Raises UserError for an option LOW HIGH whose first number is the larger one."""
    low, high = low_and_high
    if low > high:
        raise UserError(f"{option} {low:g} {high:g}: LOW comes first, HIGH second")


def check_meaning(holds: object, needed: str, given: Mapping[str, object]) -> None:
    """Raises UserError for options of `given` (their values: what was given, or something false) that say nothing
    without `needed`, where that does not hold: ignored in silence, they would be believed to have worked.
    """
    if not holds and (names := [name for name, value in given.items() if value]):
        raise UserError(f"{', '.join(names)} goes with {needed}: leave it out, or give that too")


def check_judge(options) -> None:
    """Raises UserError for options of a judge without --judge."""
    check_meaning(options.judge, "--judge URL", {
        "--judge-model": options.judge_model != JUDGE_MODEL, "--judge-budget": options.judge_budget != JUDGE_BUDGET,
        "--judge-extra-body": options.judge_extra_body})


def check_file(option: str, path: Path) -> None:
    """Raises UserError where a file to be written is a folder, a device or a pipe."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file that can be written: choose another {option}")


def check_out(out: Path) -> None:
    """Raises UserError where a folder is to be written and a file is."""
    if out.is_file():
        raise UserError(f"{out} is a file: choose another --out")


def check_model(model: str | Path | None) -> None:
    """Raises UserError for a folder without a model, before what loads models is imported. A name of the hub passes."""
    if model is not None and (Path(model).is_dir() or isinstance(model, Path) or str(model).startswith((".", "/"))):
        require_model(model)


def add_local_copies(parser, old_name: str) -> None:
    """Add --local-copies, with the option's name of release 0.1 beside it."""
    parser.add_argument("--local-copies", old_name, dest="local_copies", type=Path, default=None, metavar="DIR",
                        help="folder with copies of the public datasets, read instead of the hub")


def use_local_copies(folder: Path | None) -> None:
    """Let every later loading of a public dataset, in launched processes too, read this folder."""
    if folder:
        os.environ["PHI_LAB_SETS"] = str(folder)


def add_judge(parser, what: str) -> None:
    """Add the four options of a language model that gives a second opinion on what the rules turn down."""
    parser.add_argument("--judge", metavar="URL", default=None, help=f"OpenAI-compatible endpoint that is asked for a "
                        f"second opinion on {what}; its key is read from OPENAI_API_KEY")
    parser.add_argument("--judge-model", metavar="NAME", default=JUDGE_MODEL, help="the judge's model (the paper's)")
    parser.add_argument("--judge-budget", metavar="N", type=at_least(0), default=JUDGE_BUDGET,
                        help="most requests to it")
    parser.add_argument("--judge-extra-body", type=request_fields, default={}, metavar="JSON",
                        help="fields of every request to it beside ours or in their place, such as '{\"max_tokens\": "
                        "4096}' for a judge that thinks first; null leaves one of ours out")
