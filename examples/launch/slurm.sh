#!/bin/bash
# sbatch slurm.sh full.yaml runs/first              one node of eight GPUs
# sbatch --nodes=2 slurm.sh full.yaml runs/first    two of them
# The folder of results must be one that all nodes see. Queued again, the run goes on.
#SBATCH --job-name=amnesis
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --signal=TERM@180               # finish the step and write a checkpoint, three minutes early
set -euo pipefail
recipe=${1:?a recipe}
out=${2:?a folder for the results}
nodes=${SLURM_NNODES:-1}
gpus=${SLURM_GPUS_ON_NODE:-1}
head=$(scontrol show hostnames "${SLURM_JOB_NODELIST:?this is a job for sbatch}" | sed -n 1p)

# Sharded over all GPUs of all nodes. For data parallelism leave the two variables away.
export ACCELERATE_USE_FSDP=true FSDP_VERSION=2
export FSDP_AUTO_WRAP_POLICY=TRANSFORMER_BASED_WRAP FSDP_RESHARD_AFTER_FORWARD=true

srun torchrun --nnodes "$nodes" --nproc-per-node "$gpus" \
  --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "${SLURM_JOB_ID:-0}" \
  -m amnesis run "$recipe" --out "$out" --resume
