"""A bar of progress is text everywhere: a widget of a saved notebook is an error when the notebook is opened again."""

import sys

from phi_lab.core.progress import Bar


def test_in_a_notebook_a_bar_is_text_on_the_page_and_goes_when_it_is_done(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    bar = Bar(3, "rollouts")
    bar.start_t -= 5  # it appears after a second
    bar.update(3)
    bar.refresh()
    shown = capsys.readouterr()
    assert "rollouts: 100%" in shown.out and not shown.err
    bar.close()
    assert capsys.readouterr().out.rpartition("\r")[0].strip("\r ") == "", "wiped out"


def test_elsewhere_a_bar_is_kept_beside_the_results(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    bar = Bar(3, "rollouts")
    bar.start_t -= 5
    bar.update(3)
    bar.close()
    shown = capsys.readouterr()
    assert "rollouts: 100%" in shown.err and shown.err.endswith("\n") and not shown.out
