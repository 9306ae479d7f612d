#!/bin/bash
# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
#
# One of the processes that `srun` starts, see slurm.sh: without a launcher between, signals reach it and its code passes.
export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
exec python training/pretrain.py "$@"
