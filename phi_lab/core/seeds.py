"""Seeds derived from seeds, so that each chunk, step or sample draws random numbers of its own."""


def derive_seed(seed: int, number: int) -> int:
    """The seed of the `number`-th part of a run with `seed`; runs whose seeds differ share none below 1,000,003 parts."""
    return seed * 1_000_003 + number
