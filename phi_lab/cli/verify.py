"""`phi-lab verify`: judge answers in files, and write a page about the misses; or explain one verdict."""

from pathlib import Path

from phi_lab.cli.options import add_command, add_judge, between, check_judge, check_meaning
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
    parser.add_argument("--jobs", type=between(1, 1024), default=2, help="answers judged at once")
    parser.add_argument("--out", type=Path, default=None, metavar="FILE",
                        help="the cases with verdict, extracted answer and the rule that decided; beside it, ending in "
                        ".html, the page")
    parser.add_argument("--force", action="store_true", help="write over files that are not of this command")
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
    """Write the verdicts and the page, and print a summary. Raises UserError after that where a file could not be read.
    """
    from phi_lab.core import files
    from phi_lab.verify import audit
    from phi_lab.verify.judge import babble_line, second_opinions

    check_judge(options)
    if options.explain is not None:
        if options.gold is None or options.cases:
            raise UserError("--explain TEXT takes --gold GOLD, and no --cases")
        check_meaning(False, "--cases", {"--out": options.out, "--force": options.force, "--judge": options.judge,
                                         "--conventions": options.conventions != "strict"})
        print(*audit.explain(options.explain, options.gold), sep="\n")
        return
    if not options.cases or not options.out:
        raise UserError("verify takes --cases FILE --out FILE, or --explain TEXT --gold GOLD")
    check_meaning(False, "--explain", {"--gold": options.gold})
    check_meaning(options.judge, "--judge URL", {"--judge-cache": options.judge_cache})
    page = options.out.with_suffix(".html")
    if page == options.out:
        raise UserError(f"{page}: --out is for the rows; the page gets this name by itself, give another ending")
    judge = _judge(options) if options.judge else None
    _require_no_case([options.out, page, *([judge.cache] if judge else [])], options.cases)
    if not options.force:
        _require_own(options.out, page)
    rows, skipped = audit.judge_files(options.cases, options.jobs, strict=options.conventions == "strict")
    files.write_rows(options.out, rows)
    if judge:
        rows, counts = second_opinions(rows, judge)
        files.write_rows(options.out, rows)
        print(f"judge: {counts}")
        if babble := babble_line(counts):
            print(babble)
    for name, value in audit.summary(rows).items():
        by_group = isinstance(value, dict) and name != "verdicts"
        print(f"{name}: {'; '.join(f'{k} {audit.words(v)}' for k, v in value.items()) if by_group else value}")
    audit.write_page(page, rows, skipped)
    print(page)
    if skipped:
        raise UserError(f"not in these numbers: {'; '.join(skipped)}")


def _require_no_case(written: list[Path], cases: list[Path]) -> None:
    """Raises UserError where a file of cases would be written over."""
    for path in written:
        if path.exists() and any(case.exists() and path.samefile(case) for case in cases):
            raise UserError(f"{path} is one of the --cases, which are never written over: choose another --out")


def _require_own(out: Path, page: Path) -> None:
    """Raises UserError where a file would be written over that this command did not write."""
    from phi_lab.core import files

    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no file that can be written: choose another --out")
    if out.exists() and out.stat().st_size:
        try:
            files.read_rows(out, ("id", "gold", "verdict", "rule"))
        except UserError:
            raise UserError(f"{out} holds something else than verdicts: choose another --out, or --force") from None
    elif page.exists():
        raise UserError(f"{page} is there already, and {out.name} is not: choose another --out, or --force")


def _judge(options):
    """The judge that the options describe. Raises UserError for one that cannot be asked, and for another file in the
    place of its votes.
    """
    from phi_lab.verify.judge import Judge, cached

    cache = options.judge_cache or options.out.with_suffix(".votes.jsonl")
    judge = Judge(base_url=options.judge, model=options.judge_model, cache=cache, budget=options.judge_budget,
                  extra_body=options.judge_extra_body)
    judge.require_usable()
    cached(cache)
    return judge
