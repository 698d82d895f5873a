"""The command line: `phi-lab COMMAND --help` explains each command with an example.

A mistake of the user's ends with one clear line and exit code 2; Ctrl-C too, and the same command continues where it
stopped.
"""

import argparse
import errno
import json
import os
import shlex
import sys
from functools import partial
from pathlib import Path

from phi_lab import __version__
from phi_lab.config import presets, schema
from phi_lab.core.errors import UserError

EPILOG = """typical use:
  phi-lab run --out runs/first                    climb the whole ladder on this computer, 25 minutes
  phi-lab run --profile smoke --out runs/smoke    the same in two minutes, from shipped checkpoints
  phi-lab run --from dpo --to grpo --out runs/rl  only the last two stages
  phi-lab chat --model runs/first/grpo/model      ask the result
  phi-lab report runs/first                       write its report.html again
"""
CHAT_GREETING = """Ask for a sum in several steps, such as: Compute (84-57+36)/3.   An empty line ends.
All numbers on the way have to lie between 1 and 99: this model has seen no others."""
PLACES = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
FULL_DISK = ("os error 28", "inline_container.cc")  # safetensors' and torch's words for it, which come without errno


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"phi-lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nphi-lab: stopped; the same command continues from the last finished step", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in PLACES:
            raise
        place = error.filename or "output"
        print(f"phi-lab: {place}: {error.strerror}; make room or choose another --out", file=sys.stderr)
        return 2
    except Exception as error:
        if not any(words in str(error) for words in FULL_DISK):
            raise
        print("phi-lab: no space left for a model; make room or choose another --out", file=sys.stderr)
        return 2
    return 0


def at_least(least: float, kind: type = int):
    """An argparse type: a number of at least `least`."""

    def number(text: str):
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return value

    number.__name__ = "number"
    return number


def seed(text: str) -> int:
    """An argparse type: a seed that every library takes."""
    value = int(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {2**31 - 1}")
    return value


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="phi-lab", description="Train a reasoning model through the Phi-4-Mini-Reasoning recipe, on a laptop.",
        epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        one.set_defaults(run=run)
        return one

    run = command("run", _run, "run the chain of stages and measure each")
    run.add_argument("--scale", default="cpu", help=f"hardware: {', '.join(schema.SCALES)}")
    run.add_argument(
        "--profile", default="lab", help="smoke: two minutes from shipped checkpoints; lab: the whole climb"
    )
    run.add_argument("--seed", type=seed, default=0, help="another seed is another, independent run")
    run.add_argument("--out", type=Path, required=True, help="run folder; an existing one is continued")
    run.add_argument("--from", dest="start", default="mid", help=f"first stage: {', '.join(schema.STAGES)}")
    run.add_argument("--to", dest="stop", default="grpo", help="last stage")
    run.add_argument("--data", type=Path, default=None, help="a `phi-lab distill` folder to train on; none: an own set")

    run.add_argument("--model", default=None, help="what a GPU scale starts from: a folder or a name on the hub; none: "
                     "Phi-4-mini")
    run.add_argument("--sets", type=Path, default=None, help="folder with copies of a GPU scale's benchmarks, instead "
                     "of the hub")

    run.add_argument("--processes", type=at_least(1), default=None, help="that train a stage together on this machine; "
                     "none: one for each GPU at the scale full, else one")
    run.add_argument("--launcher", default="", metavar="COMMAND", help="that starts them instead, such as 'srun "
                     "torchrun ...' on several nodes: docs/scaling.md")

    one = command("stage", _stage, "train one stage of a run that is open, in as many processes as torchrun starts")
    one.add_argument("stage", help=", ".join(schema.STAGES[1:]))
    one.add_argument("--out", type=Path, required=True, help="run folder with its data; `phi-lab run` makes one")
    one.add_argument("--parts", default=None, metavar="DIGEST", help=argparse.SUPPRESS)

    plan = command("plan", _plan, "what a GPU scale takes: memory, tokens a second, hours, money, what will not fit")
    plan.add_argument("--scale", default="full", help="lora, qlora or full")
    plan.add_argument("--gpu", default="h100", help="h100, h200, a100, l40s or rtx4090")
    plan.add_argument("--gpus", type=at_least(1), default=1, help="how many")
    plan.add_argument("--price", type=at_least(0.0, float), default=None, help="money a GPU and hour; none: a guess")
    plan.add_argument(
        "--json", action="store_true",
        help="one row a stage instead of a table: stage, tokens, sampled_tokens, tokens_per_second, hours, price, row "
        "(tokens), batch, rows_a_pass, passes, memory (GB on a GPU, by part), total_gb, fits, reason",
    )

    distil = command("distill", _distill, "ask a teacher, verify its rollouts, filter them into training sets")
    distil.add_argument(
        "--teacher", default="model",
        help="model: the shipped teacher or --model; script: worked solutions; endpoint: --teacher-url; traces: what "
        "the set brings along",
    )
    distil.add_argument("--model", type=Path, default=None, help="another model's folder")
    distil.add_argument("--teacher-url", metavar="URL", default="", help="OpenAI-compatible; key in OPENAI_API_KEY")
    distil.add_argument("--teacher-model", metavar="NAME", default="teacher", help="as the endpoint calls it")
    distil.add_argument(
        "--instruction", metavar="TEXT", default=schema.INSTRUCTION, help="after each question; '': none"
    )
    distil.add_argument("--concurrency", type=at_least(1), default=64, help="requests at once")
    distil.add_argument("--timeout", type=at_least(0.1, float), default=600.0, help="seconds for one request")
    distil.add_argument("--price", type=at_least(0.0, float), nargs=2, default=[0.0, 0.0], metavar=("IN", "OUT"),
                        help="money for a million tokens")
    distil.add_argument("--budget", type=at_least(0.0, float), default=float("inf"), help="money at most")
    distil.add_argument(
        "--problems", default="world", metavar="SET",
        help="world: arithmetic of levels 1 to 4; a known set such as gsm8k or openr1-math; a .jsonl or .parquet file; "
        "owner/set:split of the hub",
    )
    distil.add_argument("--data", type=Path, default=None, help="folder with copies of known sets, instead of the hub")
    for column in ("prompt", "answer", "trace"):
        distil.add_argument(f"--{column}-column", default=None, metavar="NAME", help="where it has an unusual name")
    distil.add_argument("--longest", type=at_least(1), default=250, help="tokens of an answer that is kept")
    distil.add_argument("--tokenizer", metavar="NAME", default="", help="that counts the tokens of traces and of an "
                        "endpoint's answers: a folder, or a name on the hub; none: the small world's")
    distil.add_argument("--near", type=at_least(0.0, float), default=1.0, help="answers more alike than this are one")
    distil.add_argument("--pass-rate", type=at_least(0.0, float), nargs=2, default=[0.0, 1.0], metavar=("LOW", "HIGH"),
                        help="questions answered right this often are kept")
    distil.add_argument("--levels", type=at_least(0), nargs=2, default=[0, 99], metavar=("LOW", "HIGH"),
                        help="questions of these levels are kept; 0: of no known level")
    distil.add_argument("--per-domain", type=at_least(0), default=0, help="right rollouts of a domain; 0: all")
    distil.add_argument("--decontaminate-against", "--keep-clear-of", nargs="*", default=[], metavar="SET", help="benchmarks, besides the lab's")
    distil.add_argument("--judge", metavar="URL", default=None, help="second opinion on what the rules turn down: an "
                        "OpenAI-compatible endpoint; what it calls right counts as right")
    distil.add_argument("--judge-model", metavar="NAME", default="gpt-4o-mini", help="a plain chat model (the paper's)")
    distil.add_argument("--judge-budget", metavar="N", type=at_least(0), default=1000, help="questions to it at most")
    distil.add_argument("--questions", type=at_least(1), default=200, help="at most")
    distil.add_argument("--max-tokens", type=at_least(1), default=256, help="of an answer")
    distil.add_argument("--samples", type=at_least(1), default=8, help="rollouts a question")
    distil.add_argument("--temperature", type=at_least(0.0, float), default=1.0)
    distil.add_argument("--seed", type=seed, default=0)
    distil.add_argument("--workers", type=at_least(1), default=1, help="processes; many machines: docs/distillation.md")
    distil.add_argument("--out", type=Path, required=True, help="folder for rollouts, training sets and funnel")

    ask = command("query", _query, "ask a distilled set with SQL (DuckDB); the table is called rollouts")
    ask.add_argument("folder", type=Path, help="of `phi-lab distill` or of a run")
    ask.add_argument(
        "sql", nargs="?", help='such as "select prompt, completion from rollouts where verdict = \'wrong\' limit 3"',
        default="select level, verdict, count(*) rollouts, avg(tokens)::int tokens from rollouts group by all "
        "order by all",
    )

    check = command("verify", _verify, "judge the answers in files of cases, and write a page about them")
    check.add_argument(
        "--cases", type=Path, required=True, nargs="+", action="extend",
        help="JSON Lines with id, gold and prediction_text or response; expected or correct (true, false) is the label",
    )
    check.add_argument("--jobs", type=at_least(1), default=2, help="answers judged at once")
    check.add_argument(
        "--out", type=Path, required=True,
        help="the cases with verdict and extracted answer; a page about them beside it, ending in .html",
    )
    check.add_argument(
        "--judge", metavar="URL", default=None,
        help="second opinion on what the rules call wrong or unparsed: an OpenAI-compatible endpoint such as "
        "http://localhost:8000/v1. Its key is read from OPENAI_API_KEY; its vote stands in the field judge",
    )
    check.add_argument("--judge-model", metavar="NAME", default="gpt-4o-mini", help="a plain chat model (the paper's)")
    check.add_argument("--judge-budget", metavar="N", type=at_least(0), default=1000, help="questions at most")
    check.add_argument(
        "--judge-cache", metavar="FILE", type=Path, default=None,
        help="votes already paid for, asked once for ever; without it, OUT with the ending .votes.jsonl",
    )

    measure = command("eval", _eval, "measure a model: on easy, hard and transfer, or on public benchmarks")
    measure.add_argument("--model", required=True, help="a folder; for --benchmarks also a name on the hub")
    measure.add_argument("--name", default="model", help="what its files or its line in the table are called")
    measure.add_argument("--out", type=Path, required=True, help="folder for a row a sample")
    measure.add_argument("--problems", type=at_least(1), default=None, help="of each benchmark; none: 500 of the "
                         "lab's, all of a public one")
    measure.add_argument("--seed", type=seed, default=0)
    measure.add_argument("--benchmarks", default="", metavar="NAMES", help="public ones, such as math500,aime24,aime25,"
                         "amc23,gsm8k,gpqa-diamond: temperature 0.6, top-p 0.95, 64 samples on AIME, 8 elsewhere, "
                         "32,768 tokens")
    measure.add_argument("--sets", type=Path, default=None, help="folder with copies of them, instead of the hub")
    measure.add_argument("--samples", type=at_least(1), default=None, help="a problem, instead of 64 and 8")
    measure.add_argument("--max-tokens", type=at_least(1), default=None, help="of an answer, instead of 32,768")
    measure.add_argument("--engine", default=None, help="cpu, hf or vllm; none: vllm with a GPU, hf without")

    page = command("report", _report, "write report.html of a run folder")
    page.add_argument("folder", type=Path)

    talk = command("chat", _chat, "ask a model questions, with its thoughts shown")
    talk.add_argument(
        "--model", type=Path, default=None, help="a model folder; by default the shipped final checkpoint"
    )
    talk.add_argument(
        "--temperature", type=at_least(0.0, float), default=0.0, help="0: always the likeliest token; above: by chance"
    )
    talk.add_argument("question", nargs="*", help="one question; without it, a conversation")

    take = command("export", _export, "a trained stage as a folder that loads anywhere, with a model card")
    take.add_argument("folder", type=Path, help="of a run")
    take.add_argument("--stage", default=None, help="none: the last that is finished")
    take.add_argument("--scores", type=Path, default=None, help="folder of `phi-lab eval --benchmarks`, for the card")
    take.add_argument("--push", default=None, metavar="NAME", help="also to this repository of the hub, private")
    take.add_argument("--out", type=Path, required=True, help="a new folder")

    ship = command("ship", _ship, "copy a run's checkpoints and rollouts into data/, with a card")
    ship.add_argument("folder", type=Path, help="a finished `phi-lab run --from base` folder")

    course = command("course", _course, "execute all notebooks in order in the lab profile and write the report")
    course.add_argument("--out", type=Path, default=Path("runs/course"))
    course.add_argument("--profile", default="lab", help="lab or smoke")

    pages = command("notebooks", _notebooks, "make notebooks/*.ipynb again from notebooks/source/*.py")
    pages.add_argument("--outputs-from", type=Path, default=None, help="a finished `phi-lab course` folder")

    trial = command("experiment", _experiment, "ladder: independent chains, every rung beside its control")
    trial.add_argument(
        "which", choices=["ladder", "publish"],
        help="ladder: all stages with controls at equal FLOPs; publish: show the chains of OUT in README and docs/",
    )
    trial.add_argument("--seeds", type=at_least(1), default=6, help="how many chains")
    trial.add_argument("--first", type=seed, default=0, metavar="SEED", help="seed of the first chain")
    trial.add_argument("--profile", default="lab", help="smoke or lab; a chain is a whole run and its controls")
    trial.add_argument("--out", type=Path, required=True, help="folder of the chains; an existing one is continued")

    speed = command("bench", _bench, "measure this computer: rollouts, training, verification")
    speed.add_argument("--json", type=Path, default=None, help="also write the figures to this file")
    return top


def _run(options) -> None:
    from phi_lab.pipeline import launch, run

    launcher = launch.local(options.processes) if options.processes else None
    try:
        launcher = shlex.split(options.launcher) or launcher
    except ValueError as error:
        raise UserError(f"--launcher {options.launcher}: {error}") from None
    if options.sets:
        os.environ["PHI_LAB_SETS"] = str(options.sets)
    run.chain(options.out, scale_name=options.scale, profile=options.profile, seed=options.seed, start=options.start,
              stop=options.stop, data=options.data, model=options.model, launcher=launcher)


def _stage(options) -> None:
    from phi_lab.pipeline import run

    run.train_launched(options.stage, options.out, options.parts)


def _plan(options) -> None:
    from phi_lab.pipeline import plan

    config = presets.run_config(options.scale)
    rows = plan.plan(config, options.gpu, options.gpus, options.price)
    print(json.dumps(rows) if options.json else plan.table(config, rows, options.gpu, options.gpus))


def _distill(options) -> None:
    from phi_lab.core import endpoint
    from phi_lab.distill import cluster, funnel, jobs, teachers
    from phi_lab.problems import sources
    from phi_lab.verify import judge

    if options.teacher == "endpoint" and not options.teacher_url:
        raise UserError("--teacher endpoint needs --teacher-url, such as http://localhost:8000/v1")
    order = jobs.DistillationJob(
        out=options.out, seed=options.seed, teacher=options.teacher, folder=options.model, problems=options.problems,
        plan=schema.DistillationConfig(options.questions, 0, samples=options.samples, temperature=options.temperature,
                                max_new_tokens=options.max_tokens),
        instruction=options.instruction,
        endpoint=endpoint.Endpoint(options.teacher_url, options.teacher_model, concurrency=options.concurrency,
                               timeout=options.timeout, tolerance=20),
        judge=options.judge and judge.Judge(
            base_url=options.judge, model=options.judge_model, budget=options.judge_budget,
            concurrency=options.concurrency, timeout=options.timeout, cache=options.out / "votes.jsonl",
        ),
        spending=teachers.Spending(*options.price, budget=options.budget), data=options.data,
        tokenizer=options.tokenizer,
        columns=sources.Columns(options.prompt_column, options.answer_column, options.trace_column),
        rules=funnel.Rules(max_tokens=options.longest, near_duplicate_threshold=options.near, pass_rate_range=tuple(options.pass_rate),
                           level_range=tuple(options.levels), max_per_domain=options.per_domain),
        decontaminate_against=options.decontaminate_against, command=sys.argv[1:],
    )
    many = partial(cluster.ask, workers=options.workers)
    counts = jobs.collect(order, ask=many if options.workers > 1 else jobs.ask)
    print(f"{counts['rollouts']} rollouts to {counts['questions']} questions: {counts['verdicts']}")
    for step in counts["steps"]:
        print(f"  {step['name']:<14} {step['kept']:>8} kept {step['removed']:>8} removed: {step['why']}")
    for found in counts["contaminated"]:
        print(f"  left out: {found['id']} shares {found['shared']!r}")


def _query(options) -> None:
    from phi_lab.distill import shards

    inside = [options.folder / name for name in ("rollouts", "data/rollouts")]
    rows = shards.query(next((one for one in inside if one.is_dir()), options.folder), options.sql)
    lines = [list(rows[0]) if rows else ["(no row)"], *([str(cell) for cell in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _verify(options) -> None:
    from phi_lab.core import files
    from phi_lab.verify import audit, judge

    target = options.out.with_suffix(".html")
    if target == options.out:
        raise UserError(f"{target}: --out is for the rows; the page gets this name by itself, give another ending")
    rows, skipped = audit.judge_files(options.cases, options.jobs)
    files.write_rows(options.out, rows)
    if options.judge:
        cache = options.judge_cache or options.out.with_suffix(".votes.jsonl")
        whom = judge.Judge(base_url=options.judge, model=options.judge_model, cache=cache, budget=options.judge_budget)
        rows, counts = judge.second_opinions(rows, whom)
        files.write_rows(options.out, rows)
        print(f"judge: {counts}")
    for name, value in audit.summary(rows).items():
        shares = isinstance(value, dict) and name != "verdicts"
        print(f"{name}: {'; '.join(f'{k} {audit.words(v)}' for k, v in value.items()) if shares else value}")
    for line in skipped:
        print(f"skipped: {line}")
    audit.write_page(target, rows, skipped)
    print(target)


def _eval(options) -> None:
    from phi_lab.evaluate import ladder, public_benchmarks
    from phi_lab.model import checkpoints

    if options.sets:
        os.environ["PHI_LAB_SETS"] = str(options.sets)
    if options.benchmarks:
        protocol = public_benchmarks.usual(schema.BenchmarkProtocol(), options.samples, options.problems, options.max_tokens)
        names = options.benchmarks.replace(",", " ").split()
        rows = public_benchmarks.measure(checkpoints.resolve_model(options.model), names, options.out, protocol, options.seed,
                                         options.engine or public_benchmarks.engine())
        print(public_benchmarks.table(rows, options.name))
        return
    config = schema.EvaluationConfig(problems=options.problems or 500)
    ladder.evaluate(Path(options.model), options.name, options.out, config, options.seed)
    for row in ladder.ladder_rows(options.name, options.name, "main", options.out, config, options.seed, {}):
        what = (  # the interval is the accuracy's
            f"{100 * row['accuracy']:.1f} % [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
            if row["pass_at_k"] is None
            else f"pass@{row['k']} {100 * row['pass_at_k']:.1f} %"
        )
        print(f"{row['benchmark']:<9} T={row['temperature']:.1f} k={row['k']}  {what} of {row['n']} samples")


def _report(options) -> None:
    from phi_lab.report import report

    print(report.write_report(options.folder))


def _chat(options) -> None:
    from phi_lab import verify
    from phi_lab.model import chat, checkpoints
    from phi_lab.pipeline import run
    from phi_lab.problems import arithmetic
    from phi_lab.sampling import rollouts

    folder = options.model or run.SHIPPED / "grpo"
    model, tokenizer = checkpoints.load(folder), checkpoints.load_tokenizer(folder)

    def answer(question: str, turn: int) -> None:
        gold = arithmetic.computed(question)
        if gold and gold.outside is not None:
            world = f"the small world (whole numbers from 1 to {arithmetic.LARGEST})"
            print(f"note: {gold.outside} lies outside {world}: do not count on the answer")
        group = rollouts.sample(model, tokenizer, [question], samples=1, temperature=options.temperature,
                                max_new_tokens=256, seed=turn, quiet=True)
        text, judged = group[0][0].text, ""
        if gold:
            verdict = verify.verify(text, str(gold.answer)).verdict
            judged = "   right" if verdict == verify.RIGHT else f"   {verdict}: it is {gold.answer}"
        print(chat.laid_out(text) + judged)

    if options.question:
        answer(" ".join(options.question), 0)
        return
    print(CHAT_GREETING)
    turn = 0
    while question := _ask_line():
        answer(question, turn)
        turn += 1


def _ask_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _export(options) -> None:
    from phi_lab.pipeline import export

    out = export.export(options.folder, options.out, options.stage, options.push, options.scores)
    print(f"{out}: loads in transformers, and in vLLM by `vllm serve {out}`")
    print(f"for llama.cpp: python convert_hf_to_gguf.py {out} --outfile {out.name}.gguf --outtype bf16")


def _ship(options) -> None:
    from phi_lab.pipeline import publish

    publish.ship(options.folder)


def _course(options) -> None:
    from phi_lab.pipeline import notebooks

    notebooks.run(options.out, options.profile)


def _notebooks(options) -> None:
    from phi_lab.pipeline import notebooks

    notebooks.convert(options.outputs_from)


def _experiment(options) -> None:
    from phi_lab.core import files
    from phi_lab.pipeline import experiment
    from phi_lab.report import replications

    if options.which == "publish":
        return replications.publish(options.out)
    seeds = range(options.first, options.first + options.seeds)
    path = experiment.ladder(options.out, seeds, profile=options.profile)
    print(replications.summary(files.read_rows(path)))
    print(path)


def _bench(options) -> None:
    from phi_lab.pipeline import bench

    bench.bench(options.json)
