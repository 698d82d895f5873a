"""The energy in joules that the processors used, where the machine can measure it; never an estimate.

Linux exposes an energy counter for each processor package (RAPL, on Intel and AMD): microjoules since some moment,
often readable by root only, missing in most virtual machines and on macOS and Windows. It counts the whole package,
whatever else runs there; memory, graphics cards and losses in the power supply are not included.
Source: https://docs.kernel.org/power/powercap/powercap.html
"""

from pathlib import Path
from threading import Event, Thread
from types import TracebackType

POWERCAP = Path("/sys/class/powercap")
EVERY = 60.0  # seconds between readings: a counter wraps around at 65 kJ or more, ten minutes of a busy package


class Meter:
    """Measures the processors' energy in a `with` block: `joules` afterwards, None where nothing can be read."""

    joules: float | None = None

    def __enter__(self) -> "Meter":
        self.last = {package: reading for package in sorted(POWERCAP.glob("intel-rapl:*"))
                     if (reading := _read(package)) is not None}
        self.used, self.ended = 0, Event()
        if self.last:
            self.thread = Thread(target=self._watch, daemon=True)
            self.thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
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
            if now is None:
                continue
            around = int((package / "max_energy_range_uj").read_text()) if now < before else 0
            self.used, self.last[package] = self.used + now - before + around, now


def _read(package: Path) -> int | None:
    """Microjoules of a whole package; None for its parts and for counters that cannot be read."""
    try:
        whole = (package / "name").read_text().startswith("package")  # others are parts of it or include it
        return int((package / "energy_uj").read_text()) if whole else None
    except OSError:
        return None
