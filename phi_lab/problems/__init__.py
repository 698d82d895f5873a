"""Where problems come from: the small world (arithmetic and logic), its benchmarks, and published sets.

To add a domain to the small world:

1. Write `problems/DOMAIN.py` like `logic.py`: `sample(rng, level)` returns a `Problem`, `sample_split` one of a given
   split. The answer has to be text that `phi_lab.verify` can compare: a number, a fraction, a choice or an expression.
   The key holds operands and operators in one fixed order, so that rewordings of a problem share a split.
2. Add its name to `WORLD` in `problem.py`: the funnel then decontaminates it by split instead of by shared words.
3. To measure it, add a benchmark to `NAMES`, `LEVELS` and `SAMPLERS` in `benchmarks.py` and run that module once;
   add it to `EvaluationConfig.benchmarks` (`config/schema.py` and `config/presets.py`: `evaluate` zips the two) and to
   `BENCHMARKS` of `report/plot_style.py`.
4. To train on it, sample it in `base_documents` of `stages/pretraining_text.py` (pretraining) or where
   `distill/jobs.py` (`phi-lab distill`) and `pipeline/run_data.py` (`phi-lab run`) call `arithmetic.sample_problems`.
5. Test in `tests/problems` that its answers are true: read the prompt back, do not trust the sampler.
"""

from phi_lab.problems.problem import WORLD, Problem

__all__ = ["WORLD", "Problem"]
