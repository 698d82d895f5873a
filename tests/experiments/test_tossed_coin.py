"""The coin that is tossed for each answer: its rows belong to the published chains, and the page follows from them."""

import re
import sys

import torch

from phi_lab.core.files import read_rows
from phi_lab.core.paths import ROOT
from phi_lab.experiments.grpo_arms import toss
from phi_lab.pipeline import controls
from phi_lab.report import chain_rows
from phi_lab.stages import grpo

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


def test_rebalancing_turns_a_coin_for_each_text_against_the_frequent_answer():
    """Six equal answers in a group of eight: with a toss for each text a group is kept only where these lose."""
    texts, six = ["a"] * 6 + ["b", "c"], {"text": 0.0, "answer": 0.0}
    assert len(set(controls.coin(5)(["a"] * 6, ["1"] * 6))) == 1
    assert len(set(toss(5)(["a"] * 60, ["1"] * 60))) == 2
    random, by_answer = torch.Generator().manual_seed(0), toss(0)
    for seed in range(400):
        for kind, reward in (("text", controls.coin(seed)), ("answer", by_answer)):
            rewards = torch.tensor([reward(texts, ["1"] * 8)])
            six[kind] += float(grpo.rebalance(rewards, random)[0, :6].mean()) / 400
    assert six["text"] < -0.04 and abs(six["answer"]) < 0.03, six
