#!/bin/bash
# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
#
# Pretrains under SLURM, for as long as it takes. Run it in the folder of the project:
#
#     sbatch examples/launch/slurm.sh --recipe swin_tiny_w7 --output shared/mine
#
#SBATCH --job-name=esvit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Each GPU has one process. 120 seconds before its time ends, the job gets SIGUSR1, and SIGTERM if another job takes its
# place. Either way it saves a checkpoint and ends with 75, and waits in the queue again to continue from there.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
srun --kill-on-bad-exit=1 examples/launch/slurm_process.sh "$@"
code=$?
[ $code -eq 75 ] && scontrol requeue "$SLURM_JOB_ID"
exit $code
