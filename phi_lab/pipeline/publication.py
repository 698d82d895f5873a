"""One publication, one code state: chains, shipped checkpoints and notebooks' outputs must come from the same code,
settings, base and teacher, or a page shows what nobody gets. Only a rival that was run again, on all chains, may be of
later code than the stages that it stands beside (docs/log.md, 115): nothing is built on it.

Each carries a *source*: the digest of the settings (`RunConfig.digest`) and of the decisive code (`code_digest`), and
fingerprints of the base and the teacher. Chains have it in every row of data/chains.jsonl, checkpoints in
data/checkpoints/source.json, notebooks in their metadata. `disagreements` compares them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat

from phi_lab.config.schema import STAGES, config_from_dict, read_config
from phi_lab.core import paths
from phi_lab.core.errors import UserError
from phi_lab.core.files import read_json
from phi_lab.core.run_folder import RunFolder
from phi_lab.model import checkpoints
from phi_lab.report.chain_rows import Chain, chains

MARK = "source.json"  # beside the shipped checkpoints
NOTEBOOK_KEY = "phi_lab"  # in a notebook's metadata
SAME = ("config", "code", "base", "teacher")  # what must be equal everywhere
LAST = STAGES[-1]


def source(run: RunFolder) -> dict:
    """The source of a run with its seed and commit; None for what the run does not say."""
    saved = read_config(run.config)
    return {
        "seed": saved["seed"], "commit": saved.get("git_commit"), "dirty": saved.get("dirty"),
        "code": saved.get("code"), "config": config_from_dict(saved["config"]).digest(),
        "base": _weights(run.stage("mid").student), "teacher": _weights(run.data.teacher),
    }


def _weights(path: Path) -> str | None:
    return read_json(path, ("weights",))["weights"] if path.exists() else None


def chain_sources(rows: Iterable[dict]) -> list[dict]:
    """The source of each row of chains; base and teacher where the row names them."""
    found = []
    for row in rows:
        base = row["model"] if row["name"] == "base" else row["start"] if row["name"] == "mid" else None
        rival = None if row["name"] in ("base", *STAGES) else row["name"]
        found.append({"what": f"chain {row['seed']}, {row['name']}", **{key: row[key] for key in ("config", "code")},
                      "dirty": row["dirty"], "base": base, "teacher": row["teacher"], "rival": rival})
    return found


def differences(sources: Sequence[dict]) -> list[str]:
    """A line for each value in which a source differs from the first one that names it (of a rival's code: the first
    row of that rival), and for each source that does not say which code and settings it has, or was made from files
    that no commit holds.
    """
    found = []
    for key in SAME:
        first: dict[str | None, dict] = {}
        for one in (one for one in sources if one[key] is not None):
            other = first.setdefault(one.get("rival") if key == "code" else None, one)
            if one[key] != other[key]:
                found.append(f"{one['what']}: {key} {one[key]}, but {other['what']} has {other[key]}")
    for one in sources:
        found += [f"{one['what']} does not say its {key}" for key in ("config", "code") if one[key] is None]
        if one["dirty"]:
            found.append(f"{one['what']} was made from changed files, which no commit holds")
    return found


def median_seeds(made: Sequence[Chain]) -> list[int]:
    """The seed of the median chain by `hard` at the end; of an even number, of the two in the middle."""
    ends = sorted((end, chain.seed) for chain in made if (end := chain.accuracy(LAST)) is not None)
    middle = len(ends) // 2
    return [seed for _, seed in ends[middle - 1 + len(ends) % 2 : middle + 1]]


def run_disagreements(run: RunFolder, rows: Sequence[dict]) -> list[str]:
    """Why a run may not be shipped beside these chains: it is not the median one of them, or of another source."""
    own = {"what": run.path.as_posix(), **source(run)}
    models = {stage: checkpoints.fingerprint(run.stage(stage).model) for stage in STAGES[1:]}
    return _against_chains(own, models, rows)


def _against_chains(own: dict, models: dict[str, str], rows: Sequence[dict]) -> list[str]:
    found = differences([*chain_sources(rows), own])
    if own["seed"] not in (middle := median_seeds(chains(rows))):
        found.append(f"{own['what']} has seed {own['seed']}; the median chain has {' or '.join(map(str, middle))}")
    published = {row["name"]: row["model"] for row in rows if row["seed"] == own["seed"]}
    found += [f"{own['what']}: {stage} has the weights {weights}, the chain of its seed {published[stage]}"
              for stage, weights in models.items() if stage in published and published[stage] != weights]
    return found


def disagreements(rows: Sequence[dict], shipped: Path, teacher: Path, notebooks: Path) -> list[str]:
    """What does not belong together in a publication, a line each: the rows of its chains, the checkpoints in the
    folders `shipped` and `teacher`, and the outputs in the folder `notebooks`. Empty: all of one code state.

    Raises UserError for a damaged file.
    """
    if not (shipped / MARK).is_file():
        return [f"{shipped / MARK} is missing: `phi-lab publish` the median chain"]
    mark = read_json(shipped / MARK, ("seed", "models", "dirty", *SAME))
    own = {"what": (shipped / MARK).as_posix(), **{key: mark[key] for key in ("seed", "dirty", *SAME)}}
    found = _against_chains(own, mark["models"], rows)
    folders = {stage: (shipped / stage, mark["models"][stage]) for stage in STAGES[1:]}
    folders |= {"base": (shipped / "base", mark["base"]), "teacher": (teacher, mark["teacher"])}
    for folder, weights in folders.values():
        if (there := checkpoints.fingerprint(folder)) != weights:
            found.append(f"{folder} has the weights {there}, not the {weights} of {MARK}")
    for path in sorted(notebooks.glob("*.ipynb")):
        metadata = nbformat.read(path, 4).metadata.get(NOTEBOOK_KEY)
        if metadata is None:
            found.append(f"{path} does not say what made its outputs: `phi-lab notebooks --outputs-from RUN`")
        else:
            found += differences([own, {"what": path.as_posix(), **{key: metadata.get(key) for key in
                                                                    ("dirty", *SAME)}}])
    return found


def require_same_source(run: RunFolder, rows: Sequence[dict]) -> None:
    """Raises UserError where a run may not be shipped beside the published chains (`run_disagreements`)."""
    if rows and (found := run_disagreements(run, rows)):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(f"not of one code state with data/chains.jsonl: {found[0]}{more}; publish a chain of the same "
                        f"queue, or the chains of this code first")


def published_disagreements(rows: Sequence[dict]) -> list[str]:
    """`disagreements` of what this repository holds."""
    return disagreements(rows, paths.SHIPPED, paths.TEACHER, paths.NOTEBOOKS)
