"""`phi-lab verify`: judge answers in files, and write a page about the misses; or explain one verdict."""

from pathlib import Path

from phi_lab.cli.options import add_command, add_judge, at_least
from phi_lab.core.errors import UserError


def add_parser(commands) -> None:
    """Add `verify` and its options."""
    parser = add_command(
        commands, "verify", run, "verify the answers in files of cases, and write a page about them",
        "phi-lab verify --cases cases.jsonl --out judged.jsonl",
    )
    parser.add_argument("--cases", type=Path, nargs="+", action="extend", default=[], metavar="FILE",
                        help="JSON Lines with id, gold and prediction_text or response; expected or correct (true, "
                        "false) is the label")
    parser.add_argument("--jobs", type=at_least(1), default=2, help="answers judged at once")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE",
                        help="the cases with verdict, extracted answer and the rule that decided; beside it, ending in "
                        ".html, the page")
    parser.add_argument("--explain", metavar="TEXT", default=None,
                        help="say what is read from this one text, the verdict and the rule that decided, in both "
                        "modes; with --gold")
    parser.add_argument("--gold", default=None, help="the right answer for --explain")
    parser.add_argument("--conventions", choices=("strict", "benchmark"), default="strict",
                        help="strict, as for a reward: only what was read without doubt counts; benchmark: by the "
                        "conventions of public benchmarks (docs/verifier.md)")
    add_judge(parser, "what the rules call wrong or unparsed; its vote stands in the field judge")
    parser.add_argument("--judge-cache", metavar="FILE", type=Path, default=None,
                        help="votes already paid for, which are never asked for again; by default OUT with the ending "
                        ".votes.jsonl")


def run(options) -> None:
    """Write the verdicts and the page, and print a summary."""
    from phi_lab.core import files
    from phi_lab.verify import audit

    if options.explain is not None:
        if options.gold is None or options.cases:
            raise UserError("--explain TEXT takes --gold GOLD, and no --cases")
        print(*audit.explain(options.explain, options.gold), sep="\n")
        return
    if not options.cases or not options.out:
        raise UserError("verify takes --cases FILE --out FILE, or --explain TEXT --gold GOLD")
    page = options.out.with_suffix(".html")
    if page == options.out:
        raise UserError(f"{page}: --out is for the rows; the page gets this name by itself, give another ending")
    rows, skipped = audit.judge_files(options.cases, options.jobs, strict=options.conventions == "strict")
    files.write_rows(options.out, rows)
    if options.judge:
        rows = _with_second_opinions(rows, options)
    for name, value in audit.summary(rows).items():
        by_group = isinstance(value, dict) and name != "verdicts"
        print(f"{name}: {'; '.join(f'{k} {audit.words(v)}' for k, v in value.items()) if by_group else value}")
    for line in skipped:
        print(f"skipped: {line}")
    audit.write_page(page, rows, skipped)
    print(page)


def _with_second_opinions(rows: list[dict], options) -> list[dict]:
    from phi_lab.core import files
    from phi_lab.verify.judge import Judge, second_opinions

    cache = options.judge_cache or options.out.with_suffix(".votes.jsonl")
    judge = Judge(base_url=options.judge, model=options.judge_model, cache=cache, budget=options.judge_budget)
    rows, counts = second_opinions(rows, judge)
    files.write_rows(options.out, rows)
    print(f"judge: {counts}")
    return rows
