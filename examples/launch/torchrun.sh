#!/bin/bash
# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
#
# Pretrains by `torchrun` with one process per GPU. Run it in the folder of the project. On one machine:
#
#     GPUS=8 examples/launch/torchrun.sh --recipe swin_tiny_w7 --output runs/mine
#
# On two machines that share OUTPUT, run the same command on each. MAIN_ADDRESS is one of them, where they meet:
#
#     NODES=2 GPUS=8 MAIN_ADDRESS=10.0.0.1 examples/launch/torchrun.sh --recipe swin_tiny_w7 --output shared/mine
#
# Elastic, for machines that come and go: NODES=1:4 RESTARTS=9 begins with one to four machines. When one is lost, the
# others start again from the last checkpoint (see --save_every) and accumulate more batches, so that a step keeps its
# images. MAIN_ADDRESS must stay.
#
# torchrun forwards SIGTERM, SIGUSR1 and SIGUSR2 to the processes, which save and end. It itself ends with 1.
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2
export PET_SHUTDOWN_TIMEOUT=${SHUTDOWN_TIMEOUT:-120} # seconds that a checkpoint may take
exec torchrun --nnodes "${NODES:-1}" --nproc_per_node "${GPUS:-2}" --max_restarts "${RESTARTS:-0}" --rdzv_id "${RUN_ID:-esvit}" \
    --rdzv_backend c10d --rdzv_endpoint "${MAIN_ADDRESS:-127.0.0.1}:${PORT:-29400}" \
    training/pretrain.py "$@"
