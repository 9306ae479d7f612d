#!/bin/bash
# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
#
# Pretrains as a Hugging Face Job. The run folder lies in a bucket that is mounted at /runs, so that an attempt that was
# lost, or one that ran out of time, is continued by the next: from the newest whole checkpoint (see --save_every).
#
#     hf buckets create org/runs
#     SOURCE=https://host/project.git BUCKET=org/runs FLAVOR=a100-large \
#         examples/launch/hf_job.sh --recipe own_images_gpu --data org/photographs --output /runs/mine
#
# SOURCE is the address that you cloned this project from. DRY_RUN=1 prints the job and sends nothing. Data on the Hub is
# streamed with --streaming. Jobs need `hf auth login`; the token travels as a secret.
set -eu
here="git clone --depth 1 '${SOURCE:?is the address of the project}' project && cd project && pip install -e '.[training]'"
exec hf jobs run ${DRY_RUN:+--dry-run} --name esvit --flavor "${FLAVOR:-a10g-large}" --timeout "${TIMEOUT:-24h}" \
    --attempts "${ATTEMPTS:-3}" --secrets HF_TOKEN --volume "hf://buckets/${BUCKET:?is a bucket, such as org/runs}:/runs" -- \
    "${IMAGE:-pytorch/pytorch:latest}" bash -c "$here && exec accelerate launch training/pretrain.py \"\$@\"" bash "$@"
