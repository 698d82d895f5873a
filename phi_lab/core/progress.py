"""Progress with an ETA on everything that takes longer than two seconds; a thin face on tqdm."""

import os
import sys

from tqdm import tqdm  # not tqdm.auto: its widgets are errors in a notebook that is saved and opened again

QUIET = "PHI_LAB_QUIET"  # set in processes whose bar would overwrite another process's bar


def Bar(total: int | None, title: str, unit: str = "it", quiet: bool = False) -> tqdm:
    """A bar of text that appears after one second, in a terminal or a notebook, where it goes when it is done; in a log
    file, a line every 20 seconds.
    """
    notebook = "ipykernel" in sys.modules
    live = sys.stderr.isatty() or notebook
    return tqdm(
        total=total,
        desc=title,
        unit=unit,
        delay=1.0,
        mininterval=0.5 if live else 20.0,
        disable=quiet or bool(os.environ.get(QUIET)),
        file=sys.stdout if notebook else sys.stderr,  # Jupyter shows the other as a warning, on red
        leave=not notebook,
    )
