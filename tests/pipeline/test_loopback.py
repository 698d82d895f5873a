"""Launched processes on one machine are reached from no other: what they listen to lies on the loopback interface."""

import subprocess
import sys

import pytest

from phi_lab.core.paths import ROOT
from phi_lab.pipeline import launch

LISTENERS = r"""
import os, pathlib, torch.distributed as group
group.init_process_group("gloo")
group.barrier()
if os.environ["RANK"] == "0":
    links = [link for pid in (os.getpid(), os.getppid()) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    mine = {os.readlink(link) for link in links if os.path.lexists(link)}
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in mine:
                host, port = words[1].split(":")
                print("listens", host, "master" if int(port, 16) == int(os.environ["MASTER_PORT"]) else "other")
group.barrier()
group.destroy_process_group()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_torch_s_own_store_listens_to_all_interfaces(tmp_path):
    """That store has no setting for it (docs/reliability.md)."""
    (tmp_path / "listeners.py").write_text(LISTENERS)
    command = [*launch.local(2), str(tmp_path / "listeners.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=launch.environment(launch.local(2)), cwd=ROOT)
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("listens")]
    assert done.returncode == 0 and ["0100007F", "other"] in found, done.stderr
    assert {host for host, whose in found if whose == "other"} == {"0100007F"}  # 127.0.0.1


def test_the_user_s_interface_is_kept(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    inside = launch.environment(launch.local(2))
    assert (inside["GLOO_SOCKET_IFNAME"], inside["NCCL_SOCKET_IFNAME"]) == ("eth7", launch.LOOPBACK)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    assert "GLOO_SOCKET_IFNAME" not in launch.environment(["srun", "torchrun"])  # several machines
