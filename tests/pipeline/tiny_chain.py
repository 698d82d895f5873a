"""`phi-lab` with the settings of the tests, and chains of two rungs: what test_chains.py has a queue start."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import TINY  # noqa: I001

from phi_lab import cli
from phi_lab.config import presets
from phi_lab.pipeline import experiment

if __name__ == "__main__":
    real = presets.run_config
    presets.run_config = lambda *names: replace(TINY, profile=real(*names).profile)
    experiment.STAGES = experiment.STAGES[:2]
    sys.exit(cli.main(sys.argv[1:]))
