# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that the command says which images are named more than once, by a list or by several inputs."""

from modeling_esvit.embed.command import main
from modeling_esvit.embed.files import load_features
from modeling_esvit.embed.inputs import find_images
from modeling_esvit.embed.repeats import describe_repeated


def test_images_that_a_list_names_again_are_said(folder, images, tmp_path, capsys):
    (tmp_path / "linked").symlink_to(images)
    (tmp_path / "list.txt").write_text(f"{images}/00.png\n{images}/02.png\nlinked/00.png\n{images}/more/../00.png\n")
    main([folder, str(tmp_path / "list.txt"), "--output", str(tmp_path / "f.npz"), "--image_size", "32"])
    place = images.resolve() / "00.png"
    assert f"Named again: {place}, 2 times in all; each time is a row." in capsys.readouterr().out
    assert len(load_features(tmp_path / "f.npz").names) == 4


def test_files_beside_their_folder_and_rows(images):
    assert describe_repeated(find_images(str(images))) == ""
    assert "/00.png, 1 time in all" in describe_repeated(find_images([str(images), str(images / "00.png")]))
    both = describe_repeated(find_images([str(images), f"{images}/*.png"]))
    assert "/00.png, " in both and ", ..., 6 times in all" in both
