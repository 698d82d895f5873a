"""Whole runs. `run` is the chain of stages, made of `stage_runner` (one stage), `run_data`, `measure` and `arms`.

`controls` are the stages' rivals at equal compute, `experiment` repeats chains with them, `launch` starts training
processes, `plan` counts what a GPU scale costs, `export` and `publish` carry models away, `notebooks` executes the
course, `bench` measures speed.
"""
