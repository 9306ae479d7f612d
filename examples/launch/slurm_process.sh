#!/bin/bash
# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
#
# Starts one process of the run, for `srun` (see slurm.sh). With no launcher between, signals and exit codes pass through.
export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
exec python training/pretrain.py "$@"
