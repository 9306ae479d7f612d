# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Checks that passwords and signatures are taken out of URLs, and come back for a request alone."""

import pytest

from modeling_esvit.storage.url_secrets import hide_secrets, parse_data, redact_urls, reveal_url
from training.options.pretrain_options import make_options


@pytest.mark.parametrize(
    "text, shown, asked, full",
    [
        ("https://h/a.tar?X-Sig=s%2Fx,y", "https://h/a.tar", "https://h/a.tar", "https://h/a.tar?X-Sig=s%2Fx,y"),
        ("https://u:p@h:80/a.tar", "https://h:80/a.tar", "https://h:80/a.tar", "https://u:p@h:80/a.tar"),
        ("https://u:p@h/{0..2}.tar?s", "https://h/{0..2}.tar", "https://h/2.tar", "https://u:p@h/2.tar?s"),
        ("https://h/{a,b}.tar?s=1", "https://h/{a,b}.tar", "https://h/b.tar", "https://h/b.tar?s=1"),
        ("{https://h/k?s=1,https://h/l?s=2}", "{https://h/k,https://h/l}", "https://h/l", "https://h/l?s=2"),
        ("https://u:p@h/x.tar:train", "https://h/x.tar:train", "https://h/x.tar", "https://u:p@h/x.tar"),
        ("mine=http://u:p@h/y.tar", "mine=http://h/y.tar", "http://h/y.tar", "http://u:p@h/y.tar"),
        ("s3://k:pw@bucket/z.tar", "s3://bucket/z.tar", "s3://bucket/z.tar", "s3://k:pw@bucket/z.tar"),
        ("https://u:p@ss@h/a.tar", "https://h/a.tar", "https://h/a.tar", "https://u:p@ss@h/a.tar"),
        ("HTTP://u:p@h/b.tar?s=1", "http://h/b.tar", "http://h/b.tar", "http://u:p@h/b.tar?s=1"),
        ("S3://k:p/w@bucket/c.tar", "S3://bucket/c.tar", "S3://bucket/c.tar", "S3://k:p/w@bucket/c.tar"),
        ("https://h/f.tar#part", "https://h/f.tar", "https://h/f.tar", "https://h/f.tar"),
        ("x=https://h/{a?s=1,b?s=2}", "x={https://h/a,https://h/b}", "https://h/b", "https://h/b?s=2"),
        ("https://{u:p@h,v:q@i}/c.tar", "{https://h/c.tar,https://i/c.tar}", "https://i/c.tar", "https://v:q@i/c.tar"),
        (
            "https://h/{1..2}{a?s,b}",
            "{https://h/1a,https://h/1b,https://h/2a,https://h/2b}",
            "https://h/2a",
            "https://h/2a?s",
        ),
        # passwords with what should be escaped
        ("https://u:p/s#w?d@h/a.tar", "https://h/a.tar", "https://h/a.tar", "https://u:p%2Fs%23w%3Fd@h/a.tar"),
        ("mine=http://u:/p@h:80/b.tar?s", "mine=http://h:80/b.tar", "http://h:80/b.tar", "http://u:%2Fp@h:80/b.tar?s"),
        ("https://u:1x/p@h/{1..2}.tar", "https://h/{1..2}.tar", "https://h/2.tar", "https://u:1x%2Fp@h/2.tar"),
        ("https://u:p {1}@h/c.tar", "https://h/c.tar", "https://h/c.tar", "https://u:p%20%7B1%7D@h/c.tar"),
        ("{https://u:p/w@h/k,https://h/l}", "{https://h/k,https://h/l}", "https://h/k", "https://u:p%2Fw@h/k"),
        ("sftp://u:p/#w@h/d.tar", "sftp://h/d.tar", "sftp://h/d.tar", "sftp://u:p%2F%23w@h/d.tar"),
    ],
)
def test_secrets_come_back_for_requests_alone(text, shown, asked, full):
    assert hide_secrets(text) == shown == parse_data(text)
    assert reveal_url(asked) == full
    assert hide_secrets(shown) == shown and reveal_url(asked) == full  # once more takes nothing away


@pytest.mark.parametrize(
    "text",
    [
        "hf://datasets/o/n@main/data/0000?.parquet",
        "abfs://box@account.dfs.core.windows.net/a.tar",
        "s3://bucket/train-?.tar",
        "sftp://host:22/a@b.tar",
        "https://host:80/a@b.tar",
        "https://[::1]:80/a@b.tar",
        "zip://a.jpg::https://host/x@v.zip",
        "file://C:/a@b.tar",
        "zip://a:b/c@d.jpg::https://host/x.zip",
        "see https://host: write to a@b",
        "shards/a?.tar",
        "org/name:test",
    ],
)
def test_wildcards_revisions_and_accounts_are_no_secrets(text):
    assert hide_secrets(text) == text


def test_messages_of_other_libraries_lose_them():
    message = "403 for url 'https://ada:p@w@host/a.tar?sig=abc' and http://h/b?t=1"
    assert redact_urls(message) == "403 for url 'https://host/a.tar' and http://h/b"
    assert redact_urls("in 'ftp://u:p/w@h/a' or s3://k:s/p@b/c") == "in 'ftp://h/a' or s3://b/c"
    assert redact_urls("no 'http://u:p/s#w?d@h/a'") == "no 'http://h/a'"


def test_options_hold_none(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: https://u:secret@h/a.tar?sig=secret\nknn_test: https://h/b.tar?secret\n")
    options = make_options(recipe, knn_train="https://u:secret@h/c.tar")
    assert (options.data, options.knn_test, options.knn_train) == (
        "https://h/a.tar",
        "https://h/b.tar",
        "https://h/c.tar",
    )
