"""`phi-lab distill`: sample rollouts from a teacher, verify them, and filter them into training sets."""

import argparse
import sys
from functools import partial
from pathlib import Path

from phi_lab.cli.options import (
    add_command,
    add_engine,
    add_judge,
    add_local_copies,
    at_least,
    between,
    check_judge,
    check_meaning,
    check_model,
    check_out,
    check_range,
    extra_body,
    seed,
    temperature,
)
from phi_lab.config import schema
from phi_lab.core.errors import UserError
from phi_lab.core.formatting import printable

COLUMNS = ("prompt", "answer", "trace")  # of a published set
CONCURRENCY, TIMEOUT = 64, 600.0


def add_parser(commands) -> None:
    """Add `distill` and its options, in four groups: teacher, problems, filters, run."""
    parser = add_command(
        commands, "distill", run, "sample rollouts from a teacher, verify them, and filter them into training sets",
        "phi-lab distill --problems gsm8k --teacher endpoint --teacher-url http://localhost:8000/v1 --out runs/gsm8k",
    )
    _add_teacher(parser.add_argument_group("teacher"))
    _add_problems(parser.add_argument_group("problems"))
    _add_filters(parser.add_argument_group("filters"))
    add_judge(parser.add_argument_group("judge"), "what the rules turn down; what it calls right counts as right")
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=seed, default=0)
    group.add_argument("--workers", type=between(1, 1024), default=1,
                       help="processes; many machines: docs/distillation.md")
    group.add_argument("--out", type=Path, required=True, help="folder for rollouts, training sets and funnel")
    group.add_argument("--force", action="store_true", help="let fewer --questions shrink a finished set")


def _add_teacher(group) -> None:
    group.add_argument("--teacher", default="model",
                       help="model: the shipped teacher or --model; script: worked solutions by rule; endpoint: "
                       "--teacher-url; traces: the solutions that the dataset itself contains")
    group.add_argument("--model", type=Path, default=None, metavar="DIR", help="a teacher of your own")
    add_engine(group, "by default cpu for a Phi, hf for others")
    group.add_argument("--teacher-url", metavar="URL", default="", help="OpenAI-compatible; key in OPENAI_API_KEY")
    group.add_argument("--teacher-model", metavar="NAME", default="teacher", help="the endpoint's name for the model")
    group.add_argument("--instruction", metavar="TEXT", default=schema.INSTRUCTION,
                       help="sent with each question; '' for none")
    group.add_argument("--samples", type=at_least(1), default=8, help="rollouts a question")
    group.add_argument("--temperature", type=temperature, default=1.0, help="between 0 and 2")
    group.add_argument("--max-tokens", type=at_least(1), default=256, help="sampling stops after this many tokens")
    group.add_argument("--extra-body", type=extra_body, default={}, metavar="JSON",
                       help="fields of every request beside ours, such as '{\"top_k\": 0, \"min_p\": 0}', which "
                       "llama.cpp and vLLM read; null leaves one of ours out, as in '{\"seed\": null, "
                       "\"max_tokens\": null, \"max_completion_tokens\": 512}'")
    group.add_argument("--concurrency", type=between(1, 4096), default=CONCURRENCY, help="requests at once")
    group.add_argument("--timeout", type=between(0.1, 86_400.0, float), default=TIMEOUT,
                       help="seconds for one request")
    group.add_argument("--price", type=at_least(0.0, float), nargs=2, default=[0.0, 0.0], metavar=("IN", "OUT"),
                       help="money for a million tokens")
    group.add_argument("--budget", type=at_least(0.0, float), default=float("inf"),
                       help="ask for nothing more once this much was spent on the set in --out, by this command and "
                       "earlier ones; what is in flight then is still paid")


def _add_problems(group) -> None:
    group.add_argument("--problems", default="world", metavar="SET",
                       help="world: arithmetic of levels 1 to 5; a known dataset such as gsm8k or openr1-math; a "
                       ".jsonl or .parquet file; owner/dataset:split of the hub")
    group.add_argument("--questions", type=between(1, 10**8), default=200, help="at most this many")
    add_local_copies(group, "--data")
    for column in COLUMNS:
        group.add_argument(f"--{column}-column", default=None, metavar="NAME",
                           help=f"the dataset's column with the {column}, where its name is unusual")


def _add_filters(group) -> None:
    group.add_argument("--max-answer-tokens", "--longest", dest="max_answer_tokens", type=at_least(1), default=300,
                       metavar="N", help="drop longer answers")
    group.add_argument("--tokenizer", metavar="NAME", default="",
                       help="counts the tokens of traces and of an endpoint's answers: a folder, or a name on the "
                       "hub; by default the small world's")
    group.add_argument("--near-duplicate-threshold", "--near", dest="near_duplicate_threshold",
                       type=between(0.0, 1.0, float), default=1.0, metavar="SHARE",
                       help="drop an answer that is more similar than this to another one of its question")
    group.add_argument("--pass-rate", type=between(0.0, 1.0, float), nargs=2, default=[0.0, 1.0],
                       metavar=("LOW", "HIGH"), help="keep questions whose share of right answers is in this range")
    group.add_argument("--levels", type=at_least(0), nargs=2, default=[0, 99], metavar=("LOW", "HIGH"),
                       help="keep questions of these levels; 0: of unknown level")
    group.add_argument("--require-reasoning", action=argparse.BooleanOptionalAction, default=None,
                       help="drop right answers without a thought between <think> tags, whose work is in plain text; "
                       "by default in the small world only")
    group.add_argument("--max-per-domain", "--per-domain", dest="max_per_domain", type=at_least(0), default=0,
                       metavar="N", help="keep at most this many right rollouts of a domain; 0: all")
    group.add_argument("--decontaminate-against", "--keep-clear-of", dest="decontaminate_against", nargs="*",
                       default=[], metavar="SET", help="drop questions that share text with these benchmarks, besides "
                       "the lab's own")


def run(options) -> None:
    """Distil, then print the funnel."""
    check_range("--pass-rate", options.pass_rate)
    check_range("--levels", options.levels)
    check_out(options.out)
    check_model(options.model)
    check_judge(options)
    from phi_lab.distill import cluster, jobs

    if options.teacher in jobs.TEACHERS:
        _check_meaning(options)

    sample = partial(cluster.sample_rollouts, workers=options.workers) if options.workers > 1 else None
    report = jobs.run_job(job(options), sample=sample)
    print(f"{report['rollouts']} rollouts to {report['questions']} questions: {report['verdicts']}")
    for step in report["steps"]:
        print(f"  {step['name']:<14} {step['kept']:>8} kept {step['removed']:>8} removed: {step['why']}")
    for overlap in report["contaminated"]:
        print(f"  left out: {printable(overlap['id'])} shares {overlap['shared']!r}")
    _require_something(report)


def _require_something(report: dict) -> None:
    """Raises UserError where the filters have removed every right answer; says so where there was none."""
    if not report["steps"] or report["steps"][-1]["kept"]:
        return
    last = next(step for step in report["steps"] if not step["kept"])
    if not report["verdicts"]["right"] + report["rescued"]:
        print("nothing is left to train on: no answer is right")
        return
    raise UserError(f"nothing is left to train on: the step {last['name']} ({last['why']}) removed the last right "
                    "answer; loosen it and give the command again, which samples nothing twice")


def _check_meaning(options) -> None:
    """Raises UserError for options that this teacher, or this set, does not read."""
    endpoint, world = options.teacher == "endpoint", options.problems == "world"
    check_meaning(endpoint, "--teacher endpoint", {
        "--teacher-url": options.teacher_url, "--teacher-model": options.teacher_model != "teacher",
        "--instruction": options.instruction != schema.INSTRUCTION, "--extra-body": options.extra_body,
        "--price": any(options.price), "--budget": options.budget < float("inf")})
    check_meaning(endpoint or options.judge, "--teacher endpoint or --judge", {
        "--concurrency": options.concurrency != CONCURRENCY, "--timeout": options.timeout != TIMEOUT})
    check_meaning(options.teacher == "model", "--teacher model", {"--model": options.model, "--engine": options.engine})
    check_meaning(not world, "a published set in --problems", {
        f"--{name}-column": getattr(options, f"{name}_column") for name in COLUMNS})
    check_meaning(not world or options.decontaminate_against, "a published set in --problems or "
                  "--decontaminate-against", {"--local-copies": options.local_copies})


def job(options):
    """The `DistillationJob` that the options describe; UserError for an endpoint without its URL."""
    from phi_lab.core.endpoint import Endpoint
    from phi_lab.distill import funnel, jobs
    from phi_lab.distill.spending import Spending
    from phi_lab.problems import sources
    from phi_lab.verify.judge import Judge

    if options.teacher == "endpoint" and not options.teacher_url:
        raise UserError("--teacher endpoint needs --teacher-url, such as http://localhost:8000/v1")
    if options.budget < float("inf") and not any(options.price):
        raise UserError("--budget counts money, and without --price IN OUT no answer costs any: give both")
    return jobs.DistillationJob(
        out=options.out, seed=options.seed, teacher=options.teacher, model=options.model, problems=options.problems,
        engine=options.engine,
        config=schema.DistillationConfig(options.questions, 0, samples=options.samples,
                                         temperature=options.temperature, max_new_tokens=options.max_tokens),
        instruction=options.instruction,
        endpoint=Endpoint(options.teacher_url, options.teacher_model, concurrency=options.concurrency,
                          timeout=options.timeout, tolerance=20, extra_body=options.extra_body),
        judge=options.judge and Judge(
            base_url=options.judge, model=options.judge_model, budget=options.judge_budget,
            concurrency=options.concurrency, timeout=options.timeout, cache=options.out / "votes.jsonl",
            extra_body=options.judge_extra_body,
        ),
        spending=Spending(*options.price, budget=options.budget), local_copies=options.local_copies,
        tokenizer=options.tokenizer,
        columns=sources.Columns(options.prompt_column, options.answer_column, options.trace_column),
        rules=funnel.Rules(
            max_tokens=options.max_answer_tokens, near_duplicate_threshold=options.near_duplicate_threshold,
            pass_rate_range=tuple(options.pass_rate), level_range=tuple(options.levels),
            max_per_domain=options.max_per_domain,
            require_reasoning=(options.problems == "world" if options.require_reasoning is None
                               else options.require_reasoning),
        ),
        decontaminate_against=options.decontaminate_against, force=options.force, command=sys.argv[1:],
    )
