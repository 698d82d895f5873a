"""Progress with an ETA on everything that takes longer than two seconds; a thin face on tqdm."""

import os
import sys

from tqdm.auto import tqdm

QUIET = "PHI_LAB_QUIET"  # set in processes whose bar would overwrite another process's bar


def Bar(total: int | None, title: str, unit: str = "it", quiet: bool = False) -> tqdm:
    """A bar that appears after one second, in a terminal or a notebook; in a log file, a line every 20 seconds."""
    live = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        delay=1.0,
        mininterval=0.5 if live else 20.0,
        disable=quiet or bool(os.environ.get(QUIET)),
    )
