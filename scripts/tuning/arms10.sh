# arms10.sh SEED OUT: Rollout DPO, GRPO and their rivals with the settings of log 94
S=$1; O=$2; P=${PYTHON:-python}; export OMP_NUM_THREADS=1
$P scripts/tuning/tune.py $S $O dpo grpo
ln -sfn dpo $O/mA
$P scripts/tuning/dpo9.py $S $O chosen1 of=dpo
$P scripts/tuning/g9.py $S $O dpo rft of=grpo
$P scripts/tuning/g9.py $S $O dpo gneg noselect=1 neg=0.1
$P scripts/tuning/dpo9.py $S $O paper pairs=teacher max_student_nll=inf sft_weight=0 learning_rate=0.0001 muon=0 max_pairs=800
