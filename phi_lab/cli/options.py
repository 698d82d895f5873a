"""What the commands share: a parser with an example, argparse types, and two options that mean the same everywhere."""

import argparse
import os
from pathlib import Path


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the example's lines as they are, and shows a default only where there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        unset = action.default in (None, "", [], float("inf")) or isinstance(action.default, bool)
        return action.help if unset else super()._get_help_string(action)


def add_command(commands, name: str, run, sentence: str, example: str, **options) -> argparse.ArgumentParser:
    """Add one command's parser: `sentence` stands in both help pages, `example` at the end of the command's own."""
    parser = commands.add_parser(
        name, help=sentence, description=f"{sentence[0].upper()}{sentence[1:]}.", epilog=f"example:\n  {example}",
        formatter_class=HelpFormatter, **options,
    )
    parser.set_defaults(run=run)
    return parser


def at_least(minimum: float, kind: type = int):
    """An argparse type: a number of at least `minimum`."""

    def number(text: str):
        value = kind(text)
        if not value >= minimum:
            raise argparse.ArgumentTypeError(f"{text} is less than {minimum}")
        return value

    number.__name__ = "number"
    return number


def seed(text: str) -> int:
    """An argparse type: a seed that every library takes."""
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {2**31 - 1}")
    return value


def add_local_copies(parser, old_name: str) -> None:
    """Add --local-copies, with the option's name of release 0.1 beside it."""
    parser.add_argument("--local-copies", old_name, dest="local_copies", type=Path, default=None, metavar="DIR",
                        help="folder with copies of the public datasets, read instead of the hub")


def use_local_copies(folder: Path | None) -> None:
    """Let every later loading of a public dataset, in launched processes too, read this folder."""
    if folder:
        os.environ["PHI_LAB_SETS"] = str(folder)


def add_judge(parser, what: str) -> None:
    """Add the three options of a language model that gives a second opinion on what the rules turn down."""
    parser.add_argument("--judge", metavar="URL", default=None, help=f"OpenAI-compatible endpoint that is asked for a "
                        f"second opinion on {what}; its key is read from OPENAI_API_KEY")
    parser.add_argument("--judge-model", metavar="NAME", default="gpt-4o-mini", help="the judge's model (the paper's)")
    parser.add_argument("--judge-budget", metavar="N", type=at_least(0), default=1000, help="most requests to it")
