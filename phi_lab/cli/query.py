"""`phi-lab query`: SQL over the rollouts of a distilled set or a run."""

from pathlib import Path

from phi_lab.cli.options import add_command
from phi_lab.core.formatting import printable

BY_LEVEL_AND_VERDICT = ("select level, verdict, count(*) rollouts, avg(tokens)::int tokens from rollouts group by all "
                        "order by all")


def add_parser(commands) -> None:
    """Add `query` and its arguments."""
    parser = add_command(
        commands, "query", run, "run SQL (DuckDB) over sampled rollouts; the table is called rollouts",
        "phi-lab query runs/first \"select prompt, completion from rollouts where verdict = 'wrong' limit 3\"",
    )
    parser.add_argument("folder", type=Path, help="of `phi-lab distill` or of a run")
    parser.add_argument("sql", nargs="?", default=BY_LEVEL_AND_VERDICT, help="one SELECT statement")


def run(options) -> None:
    """Print the result as aligned columns."""
    from phi_lab.distill import shards

    inside = [options.folder / name for name in ("rollouts", "data/rollouts")]
    rows = shards.query(next((path for path in inside if path.is_dir()), options.folder), options.sql)
    lines = [list(rows[0]) if rows else ["(no row)"], *([str(cell) for cell in row.values()] for row in rows)]
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
