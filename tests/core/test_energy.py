"""Joules from the counters of the processor packages: added up, turned over, or not there."""

import pytest

from phi_lab.core import energy
from phi_lab.core.files import read_json
from phi_lab.core.run_folder import StageFolder
from phi_lab.pipeline import stage_runner
from phi_lab.stages.training import TrainingResult


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """set(name, microjoules): a made-up counter in a made-up /sys/class/powercap, readings every millisecond."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(energy, "EVERY", 0.001)

    def write(place, name, reading):
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        for file, content in (("name", name), ("energy_uj", reading), ("max_energy_range_uj", 10_000_000)):
            (folder / "new").write_text(f"{content}\n")
            (folder / "new").replace(folder / file)  # the meter reads beside this

    return write


def test_whole_packages_are_added_and_their_parts_are_not(packages):
    for place, name in (("intel-rapl:0", "package-0"), ("intel-rapl:1", "package-1"), ("intel-rapl:0:0", "core"),
                        ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0")):
        packages(place, name, 1_000_000)
    with energy.Meter() as meter:
        packages("intel-rapl:0", "package-0", 3_500_000)
        packages("intel-rapl:1", "package-1", 2_000_000)
        for place, name in (("intel-rapl:0:0", "core"), ("intel-rapl:2", "psys"), ("intel-rapl-mmio:0", "package-0")):
            packages(place, name, 9_000_000)
    assert meter.joules == 2.5 + 1.0


def test_a_counter_that_starts_over_is_read_in_time(packages):
    packages("intel-rapl:0", "package-0", 9_000_000)
    with energy.Meter() as meter:
        for reading in (1_000_000, 6_000_000, 500_000):  # twice over the top of 10 J
            packages("intel-rapl:0", "package-0", reading)
            while meter.last[energy.POWERCAP / "intel-rapl:0"] != reading:
                pass
    assert meter.joules == pytest.approx(2.0 + 5.0 + 4.5)


def test_no_counter_no_joules(packages, tmp_path):
    with energy.Meter() as meter:
        pass
    assert meter.joules is None
    packages("intel-rapl:0", "package-0", 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()  # an OSError, as without permission
    with energy.Meter() as meter:
        pass
    assert meter.joules is None


@pytest.mark.parametrize("resumed", [False, True])
def test_a_stage_says_what_it_took_unless_part_of_it_was_done_before(packages, tmp_path, resumed):
    packages("intel-rapl:0", "package-0", 1_000_000)
    folder = tmp_path / "sft"
    folder.mkdir()
    if resumed:
        (folder / "metrics.jsonl").write_text("")

    def train():
        packages("intel-rapl:0", "package-0", 8_000_000)
        return TrainingResult(folder / "model", [], 1.0, 2)

    stage_runner.train_and_record(StageFolder(folder), train, lambda line: None)
    assert read_json(folder / "done.json").get("joules") == (None if resumed else 7)
