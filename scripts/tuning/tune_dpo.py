# ruff: noqa
"""tune_dpo.py SEED OUT arm...: DPO arms from OUT/sft on validation"""
import sys; args=sys.argv[:]; sys.argv=["x"]
exec(open("scripts/tuning/tune.py").read().split('if __name__')[0])
import shutil
from phi_lab.stages import rollout_dpo, preference_pairs
from phi_lab.core.files import read_rows
seed, out, arms = int(args[1]), Path(args[2]), args[3:]
D=L.dpo; student=out/"sft/model"; data=RunFolder(out).data
qs=arithmetic.sample_problems(int(os.environ.get("DPOQ", D.questions)), seed+90_000, levels=arithmetic.LEVELS)
def prep(name):
    f=out/name; f.mkdir(exist_ok=True)
    src=out/"dpo-rollouts"
    if not (src/"right.jsonl").exists():
        src.mkdir(exist_ok=True); t0=time.time(); preference_pairs.sample_student(student, qs, src, seed); print("sampled", round(time.time()-t0), flush=True)
    for x in src.iterdir():
        if not (f/x.name).exists(): (shutil.copytree if x.is_dir() else shutil.copy)(x, f/x.name)
    return f
for arm in arms:
    if done(out/arm): continue
    kind,*opts=arm.split("_")  # student_3e-5
    lr=float(opts[0]) if opts else D.learning_rate
    if kind=="chosen":
        rows=read_rows(out/opts[1]/"pairs.jsonl"); 
        cfg=replace(L.sft, learning_rate=lr, batch_size=16, epochs=0, steps=1, replay_share=0.0)
        comp=sum(len(r["chosen"])+len(r["rejected"]) for r in rows)*float(opts[2] if len(opts)>2 else 1.0)
        r=timed(arm, lambda: rollout_dpo.train_on_chosen(student, rows, out/arm, cfg, seed=seed, compute=comp))
    else:
        f=prep(arm); cfg=replace(D, pairs=kind, learning_rate=lr, beta=float(opts[1]) if len(opts)>1 else D.beta, epochs=int(opts[2]) if len(opts)>2 else 1)
        r=timed(arm, lambda: rollout_dpo.train(student, data.right, data.wrong, f, cfg, seed=seed, questions=qs))
        print(arm, "pairs", len(read_rows(f/"pairs.jsonl")), flush=True)
    measure(out/arm/"model", arm, seed=seed)
