# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Lays out transformers' common tests so that they can test our classes.

They are in the source distribution of transformers, not in its wheel. `prepare` downloads that of the installed version
once, with pip, and unpacks only the common test modules; they expect a `tests` package with `tests/models/<name>/` in
it, and import a few files that the distribution lacks, for which minimal stand-ins are written.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import transformers


SUITE = Path(__file__).resolve().parent
CACHE = SUITE.parents[1] / ".cache" / "transformers_suite" / transformers.__version__
COMMON_TESTS = (
    "test_modeling_common.py",
    "test_backbone_common.py",
    "test_configuration_common.py",
    "test_image_processing_common.py",
)
STAND_INS = {
    "tests/__init__.py": "",
    "tests/models/__init__.py": "",
    "tests/models/esvit/__init__.py": "",
    "tests/exporters/__init__.py": "",
    # Upstream's export tests; ours are in tests/modeling_esvit/export.
    "tests/exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "tests/generation/__init__.py": "",
    "tests/generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "tests/utils/__init__.py": "",
    # Fields that every configuration takes, each with a value that is not its default.
    "tests/utils/test_configuration_utils.py": """config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["EsViTModel"],
    "id2label": {0: "label"},
    "label2id": {"label": 0},
    "problem_type": "regression",
}
""",
    # Finds test pictures on the Hub.
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    raise OSError(url)\n",
    "pytest.ini": """[pytest]
markers =
    torch_compile_test
    torch_export_test
    generate
    flash_attn_test
    flash_attn_3_test
    flash_attn_4_test
    all_flash_attn_test
    bitsandbytes
""",
}


def download(folder: Path) -> Path:
    """Downloads the source distribution of the installed transformers, from the package index that pip uses."""
    found = sorted(folder.glob("transformers-*.tar.gz"))
    if not found:
        requirement = f"transformers=={transformers.__version__}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
        subprocess.run([*pip, "--dest", str(folder), requirement], check=True)
        found = sorted(folder.glob("transformers-*.tar.gz"))
    return found[0]


def unpack(archive: Path, folder: Path) -> None:
    """Writes the common test modules, by name, and nothing else of the archive."""
    with tarfile.open(archive) as source:
        for name in COMMON_TESTS:
            member = source.extractfile(f"{archive.name.removesuffix('.tar.gz')}/tests/{name}")
            (folder / "tests" / name).write_bytes(member.read())


def prepare() -> Path:
    """Lays out upstream's tests and ours; returns the folder to run pytest in."""
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = download(CACHE)
    root = CACHE / "suite"
    shutil.rmtree(root, ignore_errors=True)
    for name, text in STAND_INS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    unpack(archive, root)
    for module in (SUITE / "esvit").glob("*.py"):
        shutil.copy(module, root / "tests" / "models" / "esvit")
    return root
