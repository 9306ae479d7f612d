# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that classes are compared by name, and that what cannot be compared is refused with both lists."""

import pytest
import torch

from training.evaluation.class_names import ClassNameError, are_integers, check_common, number_classes
from training.evaluation.scores import align_labels


def number(*named):
    return [None if each is None else each.tolist() for each in number_classes(named)]


def test_names_are_compared_by_name():
    assert number(["cat", "dog"], ["dog", "owl", "cat"]) == [[0, 1], [1, 2, 0]]
    assert number(None, None) == [None, None]
    assert number(["cafe\u0301", "tea"], ["caf\xe9"]) == [[0, 1], [0]]  # the accent as a character of its own, and not


def test_names_that_are_integers_are_integers():
    folders = sorted(map(str, range(12)))  # 0, 1, 10, 11, 2, ...
    assert number(folders, None) == [[int(name) for name in folders], None]
    assert number(["007", "8"], ["8", "7"]) == [[7, 8], [8, 7]]
    assert number(["1", "01"], ["1", "2"]) == [[0, 1], [0, 2]]  # two classes must not become one
    assert not are_integers(["1", "01"]) and not are_integers(["1", "cat"]) and not are_integers(["9" * 25])


def test_folders_against_integers():
    """pytorch/vision issue 714, ImageNetV2 issue 10: sorted as strings, 2 would be class 4."""
    folders = sorted(map(str, range(12)))
    train, test, classes = align_labels(torch.arange(12), torch.arange(12), folders, None)
    assert classes == 12 and [folders[train.tolist().index(each)] for each in test] == [str(i) for i in range(12)]


def test_what_cannot_be_compared_is_refused_with_both_lists():
    with pytest.raises(ClassNameError, match="names 'cat', 'dog', and those of another are numbers"):
        number(["cat", "dog"], None)
    with pytest.raises(ClassNameError, match="classes '0', '1', and the test data 'a', 'b': none is in both"):
        align_labels(torch.tensor([0, 1]), torch.tensor([0, 1]), ["0", "1"], ["a", "b"])
    with pytest.raises(ClassNameError, match=r"'0', '1'.* '7' \.\.\. \(10 in all\), and the test data '10'"):
        check_common(torch.arange(10), torch.tensor([10]), None, None)
