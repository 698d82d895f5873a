"""What an endpoint costs, kept beside the rollouts: a budget bounds a set's whole bill, however often it is continued.

    spent/00000.jsonl      money for one answer a line, of the process with this number (`cluster.py`)
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from phi_lab.core.errors import UserError
from phi_lab.core.files import append_text, read_journal

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion


@dataclass
class Spending:
    """What an endpoint has cost so far, and where to stop. Prices are for a million tokens; 0: not counted.

    before: money that earlier commands spent on the same set. share: the part of what is left for this process.
    record: the file that money is noted in. served: what the server called its model, and its build where it names one.
    """

    price_in: float = 0.0
    price_out: float = 0.0
    budget: float = float("inf")  # in the currency of the prices
    tokens_in: int = 0
    tokens_out: int = 0
    requests: int = 0
    served: list[str] = field(default_factory=list)
    before: float = 0.0
    share: float = 1.0
    record: Path | None = None

    @property
    def money(self) -> float:
        return self.before + self._price(self.tokens_in, self.tokens_out)

    @property
    def reached(self) -> bool:
        """Whether this process may ask for nothing more."""
        return self.money >= self.before + max(0.0, self.budget - self.before) * self.share

    def continue_in(self, out: Path, process: int = 0) -> None:
        """Count what earlier commands spent on the set in `out`, and note there what this process spends. A second
        call changes the file only: by then the other processes are spending. Raises UserError for a damaged file.
        """
        if self.record is None:
            self.before = sum(_read(path) for path in sorted((out / "spent").glob("*.jsonl")))
        self.record = out / "spent" / f"{process:05d}.jsonl"

    def summary(self) -> str:
        """Requests, tokens and money in one line."""
        money = f", {_amount(self.money)} of {self.budget:g}" if self.price_in or self.price_out else ""
        return f"{self.requests:,} requests, {self.tokens_in:,} tokens in, {self.tokens_out:,} out{money}."

    def count(self, completion: ChatCompletion) -> None:
        """Add what a server says of one answer. Some count no tokens, and some write null for a count."""
        usage, build = completion.usage, completion.system_fingerprint
        tokens_in, tokens_out = (usage and usage.prompt_tokens) or 0, (usage and usage.completion_tokens) or 0
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        price = self._price(tokens_in, tokens_out)
        if self.record and price:
            append_text(self.record, json.dumps(price) + "\n")
        name = f"{completion.model} ({build})" if build else str(completion.model or "")
        if name and name not in self.served:
            self.served.append(name)

    def require_counted(self, completion: ChatCompletion) -> None:
        """Raises UserError for an answer whose tokens the server does not count, where a budget has to be kept."""
        usage = completion.usage
        if math.isfinite(self.budget) and not (usage and (usage.prompt_tokens or usage.completion_tokens)):
            raise UserError("the server counts no tokens, so --budget cannot bound the bill: leave it out, and bound "
                            "it by --questions, --samples and --max-tokens")

    def why_unanswered(self) -> str:
        """Why rollouts were not answered, and what to do about it."""
        if not self.reached:
            return "the same command asks for them again"
        if self.share < 1:
            return (f"a worker's part of the budget of {self.budget:g} is spent; the same command shares what is left "
                    "of it, a higher --budget goes on")
        return f"budget {self.budget:g} reached, {_amount(self.money)} spent on this set; raise --budget to go on"

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


def _amount(money: float) -> str:
    """Money with two decimals, or with what a smaller sum needs."""
    return f"{money:.2f}" if money >= 1 or not money else f"{money:.3g}"


def _read(path: Path) -> float:
    """The money of one file. Raises UserError where a line is no number."""
    money = 0.0
    for number, line in enumerate(read_journal(path), 1):
        try:
            price = float(json.loads(line))
        except (ValueError, TypeError, OverflowError, RecursionError):
            price = math.nan
        if not (math.isfinite(price) and price >= 0):
            raise UserError(f"{path}, line {number}: no sum of money; delete that line")
        money += price
    return money
