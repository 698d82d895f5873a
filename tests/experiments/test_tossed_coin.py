"""The coin that is tossed for each answer: its rows belong to the published chains, and the page follows from them."""

import re
import sys

from phi_lab.core.files import read_rows
from phi_lab.core.paths import ROOT
from phi_lab.report import chain_rows

sys.path.insert(0, str(ROOT / "scripts"))
import tossed_coin


def test_the_page_shows_what_follows_from_the_rows():
    rows, published = read_rows(tossed_coin.ROWS), chain_rows.published()
    begin, end = tossed_coin.MARKS
    (block,) = re.findall(re.escape(begin) + "(.*?)" + re.escape(end), tossed_coin.PAGE.read_text(), re.DOTALL)
    assert block == tossed_coin.table(rows, published)


def test_its_rows_start_where_the_published_arm_starts():
    starts = {row["seed"]: row["start"] for row in chain_rows.published() if row["name"] == "grpo-coin"}
    rows = read_rows(tossed_coin.ROWS)
    assert len(rows) >= 3 and len({row["seed"] for row in rows}) == len(rows)
    for row in rows:
        assert row["start"] == starts[row["seed"]] and row["model"] != row["start"]
        assert {(one["benchmark"], one["n"]) for one in row["measurements"] if one["protocol"] == "sampled"} == {
            ("easy", 500), ("hard", 2000), ("transfer", 1000)}
