"""`phi-lab eval`: measure a model on the lab's benchmarks, or on public ones."""

import re
from pathlib import Path

from phi_lab.cli.options import (
    add_command,
    add_engine,
    add_local_copies,
    at_least,
    check_meaning,
    check_model,
    check_out,
    seed,
    use_local_copies,
)
from phi_lab.config import schema
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json
from phi_lab.core.formatting import one_line, percent, percent_interval
from phi_lab.core.run_folder import EvalFolder

FILE_NAME = re.compile(r"[\w-][\w.-]*")
OF_A_RUN = ("config", "ladder", "ten")  # its own JSON files

def add_parser(commands) -> None:
    """Add `eval` and its options."""
    parser = add_command(
        commands, "eval", run, "measure a model on easy, hard and transfer, or on public benchmarks",
        "phi-lab eval --model runs/first/sft/model --out runs/exam",
    )
    parser.add_argument("--model", required=True, help="a folder; for --benchmarks also a name on the hub")
    parser.add_argument("--name", default="model", help="names its files, or its line in the table")
    parser.add_argument("--out", type=Path, required=True, help="folder for the measurement, one row a sample")
    parser.add_argument("--problems", type=at_least(1), default=None, metavar="N",
                        help="of each benchmark; by default 500 of the lab's, all of a public one")
    parser.add_argument("--seed", type=seed, default=0)
    add_engine(parser, "by default cpu for the lab's benchmarks; for public ones vllm with a GPU, hf without")
    public = parser.add_argument_group("public benchmarks")
    public.add_argument("--benchmarks", default="", metavar="NAMES",
                        help="such as math500,aime24,aime25,amc23,gsm8k,gpqa-diamond: temperature 0.6, top-p 0.95, 64 "
                        "samples on AIME, 8 elsewhere, 32,768 tokens")
    add_local_copies(public, "--sets")
    public.add_argument("--samples", type=at_least(1), default=None, help="a problem, instead of 64 and 8")
    public.add_argument("--max-tokens", type=at_least(1), default=None, help="of an answer, instead of 32,768")


def run(options) -> None:
    """Measure and print one line a benchmark."""
    check_meaning(options.benchmarks, "--benchmarks NAMES", {
        "--samples": options.samples, "--max-tokens": options.max_tokens, "--local-copies": options.local_copies})
    use_local_copies(options.local_copies)
    check_out(options.out)
    check_model(options.model if options.benchmarks else Path(options.model))
    (_public if options.benchmarks else _lab)(options)


def _require_free_name(name: str, folder: EvalFolder) -> None:
    """Raises UserError for a name that is none of a file, and for one under which `folder` holds something else."""
    if not FILE_NAME.fullmatch(name):
        raise UserError(f"--name {one_line(name, 60)!r}: it names files, so it takes letters, digits, _, - and . only")
    path = folder.manifest(name)
    taken = name in OF_A_RUN
    if path.exists() and not taken:
        there = read_json(path, fix="restore it, or choose another --name")
        taken = not (isinstance(there, dict) and {"model", "seed"} <= there.keys())
    if taken:
        raise UserError(f"{path} is a file of something else than a measurement: choose another --name or --out")


def _lab(options) -> None:
    _require_free_name(options.name, EvalFolder(options.out))
    from phi_lab.evaluate import ladder

    config = schema.EvaluationConfig(options.problems or 500, engine=options.engine or "cpu")
    folder = EvalFolder(options.out)
    ladder.evaluate(Path(options.model), options.name, folder, config, options.seed)
    for row in ladder.ladder_rows(options.name, options.name, "main", folder, config, options.seed, {}):
        if row["pass_at_k"] is None:
            what = percent_interval(row["accuracy"], row["ci_low"], row["ci_high"])
        else:
            what = f"pass@{row['k']} {percent(row['pass_at_k'])}"
        print(f"{row['benchmark']:<9} T={row['temperature']:.1f} k={row['k']}  {what} of {row['n']} samples")


def _public(options) -> None:
    from phi_lab.evaluate import public_benchmarks
    from phi_lab.model import checkpoints

    protocol = public_benchmarks.with_overrides(
        schema.BenchmarkProtocol(), options.samples, options.problems, options.max_tokens
    )
    names = options.benchmarks.replace(",", " ").split()
    if not names:
        raise UserError(f"--benchmarks {options.benchmarks!r} names none, such as math500,aime24")
    if not options.name.strip() or not options.name.isprintable() or "|" in options.name:
        raise UserError(f"--name {one_line(options.name, 60)!r}: it is a cell of a table, so it takes a line without |")
    model = checkpoints.resolve_model(options.model)
    engine = options.engine or public_benchmarks.default_engine()
    rows = public_benchmarks.evaluate_public(model, names, options.out, protocol, options.seed, engine)
    print(public_benchmarks.comparison_table(rows, options.name))
