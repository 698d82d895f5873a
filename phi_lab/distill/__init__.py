"""From a teacher's rollouts to training sets. A rollout passes these files in order:

    teachers.py         writes it: a model, a script, an endpoint, or a published trace
    shards.py           stores it with its verdict, in Parquet
    filters.py          keeps or removes it: one function a filter, all in one list
    funnel.py           counts what each filter kept and removed
    training_sets.py    writes right.jsonl, wrong.jsonl, funnel.json and the dataset card

`jobs.py` runs all of it for `phi-lab distill`, `cluster.py` in many processes; `decontamination.py` finds questions of
benchmarks and repeated questions.
"""
