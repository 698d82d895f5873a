"""Damaged files that would change what is trained are refused."""

import gzip

import pytest

from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.pipeline import run_data


def test_an_empty_archive_is_no_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DISTILLED", tmp_path)
    for content in (b"", gzip.compress(b""), gzip.compress(b'{"id": "a"}\n' * 99)[:-20]):
        (tmp_path / "rollouts.jsonl.gz").write_bytes(content)
        with pytest.raises(UserError, match="rollouts.jsonl.gz .*restore it"):
            run_data.shipped_rollouts(2, set())
