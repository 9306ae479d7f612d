#!/bin/bash
# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
#
# Pretrains by `accelerate launch` with one process per GPU. Run it in the folder of the project. On one machine:
#
#     GPUS=8 examples/launch/accelerate.sh --recipe swin_tiny_w7 --output runs/mine
#
# On two machines that share OUTPUT, run it on each with the number of the machine:
#
#     NODES=2 NODE=0 GPUS=8 MAIN_ADDRESS=10.0.0.1 examples/launch/accelerate.sh --recipe swin_tiny_w7 ...
#     NODES=2 NODE=1 GPUS=8 MAIN_ADDRESS=10.0.0.1 examples/launch/accelerate.sh --recipe swin_tiny_w7 ...
#
# PRECISION (no, bf16, fp16; default no) is that of runs whose options and recipe leave `mixed_precision` at auto.
# The launcher forwards SIGTERM, SIGUSR1 and SIGUSR2 to the processes, which save and end. It itself ends with 1.
nodes=${NODES:-1} gpus=${GPUS:-2}
export PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2
export PET_SHUTDOWN_TIMEOUT=${SHUTDOWN_TIMEOUT:-120} # seconds that a checkpoint may take
exec accelerate launch --multi_gpu --num_machines "$nodes" --machine_rank "${NODE:-0}" \
    --num_processes $((nodes * gpus)) --mixed_precision "${PRECISION:-no}" --dynamo_backend no \
    --main_process_ip "${MAIN_ADDRESS:-127.0.0.1}" --main_process_port "${PORT:-29500}" \
    training/pretrain.py "$@"
