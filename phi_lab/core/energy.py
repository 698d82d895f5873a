"""Joules, where the machine says; never an estimate.

Linux hands out the energy counter of each processor package (RAPL, Intel's and AMD's): microjoules since some moment,
often readable by root only, missing in most virtual machines and on macOS and Windows. It counts the whole package,
whatever else ran there; memory, graphics cards and losses of the power supply are not in it.
Source: https://docs.kernel.org/power/powercap/powercap.html
"""

from pathlib import Path
from threading import Event, Thread

POWERCAP = Path("/sys/class/powercap")
EVERY = 60.0  # seconds between readings: a counter starts over at 65 kJ or more, ten minutes of a busy package


class Meter:
    """What the processors take while the `with` block runs: `joules` afterwards, None where nothing can be read."""

    joules: float | None = None

    def __enter__(self) -> "Meter":
        self.last = {package: reading for package in sorted(POWERCAP.glob("intel-rapl:*"))
                     if (reading := _read(package)) is not None}
        self.used, self.ended = 0, Event()
        if self.last:
            self.thread = Thread(target=self._watch, daemon=True)
            self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        if self.last:
            self.thread.join()
            self._add()
            self.joules = self.used / 1e6

    def _watch(self) -> None:
        while not self.ended.wait(EVERY):
            self._add()

    def _add(self) -> None:
        for package, before in self.last.items():
            now = _read(package)
            around = int((package / "max_energy_range_uj").read_text()) if now < before else 0
            self.used, self.last[package] = self.used + now - before + around, now


def _read(package: Path) -> int | None:
    """Microjoules of a whole package; None for its parts and for what may not be read."""
    try:
        whole = (package / "name").read_text().startswith("package")  # others lie within one, or around all of them
        return int((package / "energy_uj").read_text()) if whole else None
    except OSError:
        return None
