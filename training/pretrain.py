# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""
Pretrain an EsViT backbone on images without labels (arXiv 2106.09785).

    python training/pretrain.py --data photographs/ --output_dir runs/mine
    accelerate launch training/pretrain.py --recipe swin_tiny_w7 --data imagenet/train
    torchrun --nproc_per_node 8 training/pretrain.py --data imagenet/train --mixed_precision bf16
    python training/pretrain.py --help

A student sees all crops of an image, a teacher the two global ones. The student learns to give each of its views, and
each region of each view, the distribution over prototypes that the teacher gives to the other views; the teacher is a
moving average of the student. The same command again continues a stopped run. The result is the model folder
OUTPUT_DIR/teacher.
"""

import contextlib
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from accelerate.utils import gather_object
from huggingface_hub.errors import StrictDataclassError
from transformers import BitImageProcessor
from transformers.utils import logging as transformers_logging

from checkpoints import Checkpoints, Progress
from collapse import CollapseWatch
from construction import PrecisionError, ShardingError, build_accelerator, view_options
from hub_push import push_to_hub
