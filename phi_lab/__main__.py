"""`python -m phi_lab` is `phi-lab`."""

import sys

from phi_lab.cli import main

sys.exit(main())
