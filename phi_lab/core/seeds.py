"""Seeds derived from seeds, so that each chunk, step or sample draws random numbers of its own."""


def derive_seed(seed: int, number: int) -> int:
    """The seed of part `number` of a run; runs with different seeds share no seed for number < 1,000,003."""
    return seed * 1_000_003 + number
