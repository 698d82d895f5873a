"""Chains as observations: what is compared with what, how sure the table may be, and what it says in words."""

import pytest
from chain_examples import LEVELS, chain_rows

from phi_lab.config.schema import STAGES
from phi_lab.core import files, stats
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_rows
from phi_lab.report import chain_rows as chain_table
from phi_lab.report import figures, plot_style, replications
from phi_lab.report.ladder_rows import RIVALS


def hard(rows, name, protocol="sampled"):
    return [measured["pass_at_k"] if protocol == "pass" else measured["accuracy"]
            for row in rows if row["name"] == name for measured in row["measurements"]
            if (measured["benchmark"], measured["protocol"]) == ("hard", protocol)]


def test_each_rung_meets_the_one_before_and_every_rival():
    rows = chain_rows(range(6))
    found = {(row.name, row.against): row for row in replications.comparisons(rows)}
    wanted = {("mid", "base"), ("sft", "mid"), ("dpo", "sft"), ("grpo", "dpo")}
    wanted |= {(name, rival) for name, rivals in RIVALS.items() for rival in rivals}
    assert set(found) == wanted and {rival for _, rival in wanted} | set(RIVALS) == set(LEVELS)
    for (name, against), row in found.items():
        assert row.gain == stats.paired_t(hard(rows, name), hard(rows, against)) and row.chains == 6
        assert row.beside["greedy"] == stats.paired_t(hard(rows, name, "greedy"), hard(rows, against, "greedy"))
    assert set(found["grpo", "dpo"].beside) == {"cool", "greedy", "pass"}
    assert set(found["grpo", "grpo-rft"].beside) == {"greedy"}  # a control has no more
    assert found["grpo", "dpo"].beside["pass"] == stats.paired_t(hard(rows, "grpo", "pass"), hard(rows, "dpo", "pass"))


def test_holm_counts_every_comparison_of_the_table_and_words_follow_it():
    found = replications.comparisons(chain_rows(range(12)))
    assert [row.p_holm for row in found] == stats.holm([row.gain.p for row in found])
    verdicts = {(row.name, row.against): row.verdict for row in found}
    assert verdicts["sft", "mid"] == verdicts["grpo", "grpo-coin"] == "above"
    assert verdicts["dpo-paper", "sft"] == "below"
    null = next(row for row in found if (row.name, row.against) == ("grpo", "grpo-rft"))
    differences = [a - b for a, b in zip(hard(chain_rows(range(12)), "grpo"), hard(chain_rows(range(12)), "grpo-rft"),
                                         strict=True)]
    mean = sum(differences) / 12
    sd = (sum((one - mean) ** 2 for one in differences) / 11) ** 0.5
    assert null.detectable == pytest.approx(stats.detectable_effect(sd, 12, 0.8, 0.05 / len(found)))
    assert null.words == f"no difference shown (would have seen {100 * null.detectable:.1f} points)"


def test_a_small_p_is_no_verdict_before_it_is_corrected():
    """Four chains that differ by nearly the same: p below 0.05 alone, not among the comparisons of a table."""
    rows = chain_rows(range(4), spread=0.02)
    single = [row for row in rows if row["name"] in ("sft", "dpo")]
    for number, row in enumerate(row for row in single if row["name"] == "dpo"):
        for measured in row["measurements"]:
            measured["accuracy"] = hard(rows, "sft")[number] + 0.02 + 0.018 * (number % 2)
    (alone,) = replications.comparisons(single)
    among = next(row for row in replications.comparisons(rows) if (row.name, row.against) == ("dpo", "sft"))
    assert alone.gain == among.gain and alone.verdict == "above" and alone.p_holm == alone.gain.p < 0.05
    assert among.p_holm > 0.05 and among.verdict.startswith("no difference shown")


def test_chains_that_lack_an_arm_are_left_out_of_its_comparisons():
    rows = [row for row in chain_rows(range(5)) if (row["seed"], row["name"]) not in ((1, "grpo-sft"), (3, "sft"))]
    counts = {(row.name, row.against): row.chains for row in replications.comparisons(rows)}
    assert counts["grpo", "grpo-sft"] == 4 and counts["sft", "mid"] == 4 and counts["mid", "base"] == 5
    line = next(line for line in replications.means_table(rows) if line[0] == "sft")
    assert line[-1].split(", ")[3] == "–" and line[-1].count(",") == 4
    with pytest.raises(UserError, match="two are needed"):
        replications.comparisons(chain_rows(range(1)))


def test_tables_hold_means_of_every_protocol_level_and_chain():
    rows = chain_rows(range(3))
    head, *lines = replications.means_table(rows)
    assert head == ["arm", "easy", "hard", "transfer", "hard, T 0.3", "hard, greedy", "hard, pass@8",
                    "hard, chain by chain"]
    table = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    assert list(table) == list(LEVELS)
    mean = sum(hard(rows, "grpo")) / 3
    assert table["grpo"]["hard"] == table["grpo"]["hard, pass@8"] == f"{100 * mean:.1f} %"
    assert table["grpo-sft"]["hard, T 0.3"] == table["grpo-sft"]["hard, pass@8"] == "–"
    assert table["mid"]["hard, chain by chain"] == ", ".join(f"{100 * one:.1f}" for one in hard(rows, "mid"))
    head, *lines = replications.parts_table(rows)
    assert head == ["arm", "level 3", "fractions"] and lines[0][0] == "base"
    text = replications.summary(rows)
    assert all(f"| {name} |" in text for name in LEVELS) and "| p, Holm |" in text and "fractions" in text
    assert "p, Holm" not in replications.summary(chain_rows(range(1)))  # one chain shows means only


def test_rungs_in_smoke_are_compared_with_what_their_stages_started_from():
    levels = LEVELS | {"mid-shipped": 0.51}
    rows = chain_rows(range(3), levels)
    pairs = chain_table.compared(chain_table.all_names(chain_table.chains(rows)))
    assert ("sft", "mid-shipped") in pairs and ("sft", "mid") not in pairs and ("dpo", "sft") in pairs
    left = figures.replications(rows).axes[0]
    assert [label.get_text() for label in left.get_xticklabels()][2].endswith("shipped mid")
    means = [list(bars.lines[0].get_xdata()) for bars in left.containers if bars.lines[0].get_linestyle() == "-"]
    assert means == [[0, 1], [2, 3, 4]]


def test_the_picture_shows_means_rivals_and_every_comparison_after_mid_training(tmp_path):
    rows = chain_rows(range(4))
    left, right = figures.replications(rows).axes[:2]
    main, beside, paper = (container.lines[0] for container in left.containers)
    for stage, height in zip(STAGES, main.get_ydata(), strict=True):
        assert height == pytest.approx(25 * sum(hard(rows, stage)))
    rivals = [(stage, name) for stage in STAGES[1:] for name in RIVALS[stage]]
    for (stage, name), x, height in zip(rivals, *beside.get_data(), strict=True):
        assert STAGES.index(stage) < x < min(STAGES.index(stage) + 0.5, left.get_xlim()[1] - 0.1)
        assert height == pytest.approx(25 * sum(hard(rows, name)))
    assert paper.get_ydata() == pytest.approx([25 * sum(hard(rows, "dpo-paper"))])
    table = [row for row in replications.comparisons(rows) if row.name in ("sft", "dpo", "dpo-paper", "grpo")]
    assert [label.get_text() for label in right.get_yticklabels()] == [f"{row.name} − {row.against}" for row in table]
    assert [bars.lines[0].get_xdata()[0] for bars in right.containers] == pytest.approx(
        [100 * row.gain.mean for row in table])
    hollow = [bars.lines[0].get_markerfacecolor() == plot_style.PAGE for bars in right.containers]
    assert hollow == [row.against in RIVALS[row.name] and row.name != "dpo-paper" for row in table]
    _, _, (whiskers,) = left.containers[0].lines
    low, high = whiskers.get_segments()[1][:, 1]
    same = stats.paired_t([100 * one for one in hard(rows, "mid")], [0.0] * 4)
    assert (low, high) == pytest.approx((same.low, same.high))
    drawn = replications.save_figure(rows, tmp_path / "chains.svg")
    (beside,) = drawn.axes[1].child_axes  # the verdicts of the same lines
    assert [label.get_text() for label in beside.get_yticklabels()] == [row.verdict.partition(" (")[0] for row in table]
    assert all(f"{row.name} − {row.against}: {row.verdict.partition(' (')[0]}" in drawn.alt for row in table)
    assert replications.fingerprint(rows) in (tmp_path / "chains.svg").read_text()


def test_a_headline_says_which_rungs_are_earned():
    rows = chain_rows(range(12))
    text, _, table = replications.headline(rows).partition("\n\n")
    ends = [100 * one for one in hard(rows, "grpo")]
    assert "12 chains" in text and "planned" not in text
    assert f"They end between {min(ends):.1f} % and {max(ends):.1f} %." in text
    lines = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in table.splitlines()[2:]}
    assert lines["SFT"][1:] == ["`mid`, `sft-control`", "–", "yes"]
    assert lines["Rollout DPO"][1:] == ["–", "`sft`, `dpo-control`", "not shown"]
    assert lines["GRPO"][1:] == ["`dpo`, `grpo-sft`, `grpo-coin`", "`grpo-rft`", "not shown"]
    worse = replications.headline(chain_rows(range(11), LEVELS | {"dpo": 0.4}))
    dpo = next(line for line in worse.splitlines() if line.startswith("| Rollout DPO"))
    assert "`sft` (below it)" in dpo and dpo.endswith("| no |")
    alone = replications.headline(chain_rows(range(12), {name: LEVELS[name] for name in STAGES}))
    assert alone.count("| not tested: no control was run |") == 3 and "| Rollout DPO |" in alone
    assert "Of 12 planned chains these have run so far." in worse


def test_published_chains_are_in_every_page_and_nothing_else_changes(tmp_path):
    made, said = chain_rows(range(3)), []
    for name in ("docs", "data", "queue"):
        (tmp_path / name).mkdir()
    torn = [row for row in chain_rows(range(3, 5)) if (row["seed"], row["name"]) != (4, "grpo-coin")]
    made += [row for row in torn if row["seed"] == 3]
    files.write_rows(tmp_path / "queue" / "chains.jsonl", sorted([*made, *torn[len(torn) // 2 + 1:]],
                                                                 key=lambda row: -row["seed"]))
    for name in replications.PAGES:
        (tmp_path / name).write_text(f"above\n{replications.MARKS[0]}old{replications.MARKS[1]}\nbelow\n")
    replications.publish(tmp_path / "queue", tmp_path, said.append)
    assert said == ["seed 4 is left out: it has no grpo-coin yet"]
    assert read_rows(tmp_path / "data" / "chains.jsonl") == made
    for name, written in replications.PAGES.items():
        marked = written(made).join(replications.MARKS)
        assert (tmp_path / name).read_text() == f"above\n{marked}\nbelow\n"
    assert replications.fingerprint(made) in (tmp_path / "docs" / "ladder.svg").read_text()


@pytest.mark.parametrize(("count", "page", "says"), [(1, replications.MARKS, "two are needed"), (2, "", "are missing")])
def test_what_cannot_be_published_changes_nothing(tmp_path, count, page, says):
    (tmp_path / "docs").mkdir()
    files.write_rows(tmp_path / "chains.jsonl", chain_rows(range(count)))
    for name in replications.PAGES:
        (tmp_path / name).write_text("".join(page))
    with pytest.raises(UserError, match=says):
        replications.publish(tmp_path, tmp_path)
    assert all((tmp_path / name).read_text() == "".join(page) for name in replications.PAGES)
