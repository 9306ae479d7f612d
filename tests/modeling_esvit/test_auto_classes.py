# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Saves model folders and loads them with every Auto class.

They load with this package imported and, from the code files in the folder, in a process that does not have it.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    BitImageProcessor,
    logging,
)
from transformers.models.auto import auto_factory
from transformers.testing_utils import CaptureLogger

from modeling_esvit import (
    EsViTBackbone,
    EsViTConfig,
    EsViTForImageClassification,
    EsViTForPreTraining,
    EsViTModel,
)
from tests.helpers.tiny_models import BACKBONES, CODE, auto_config, small_config


CLASSES = {
    AutoModel: EsViTModel,
    AutoModelForImageClassification: EsViTForImageClassification,
    AutoModelForPreTraining: EsViTForPreTraining,
    AutoBackbone: EsViTBackbone,
}


@pytest.fixture
def batch():
    return torch.randn(2, 3, 40, 36, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def local_hub(monkeypatch):
    """AutoBackbone asks the Hub whether a repository exists before it looks anywhere else, and so knows no folders."""
    monkeypatch.setattr(auto_factory, "hf_api", lambda: type("Hub", (), {"repo_exists": lambda self, name: True})())


@pytest.mark.parametrize("model_class", CLASSES.values())
def test_saved_folder(tmp_path, model_class):
    model_class(small_config()).save_pretrained(tmp_path)
    files = ["config.json", "model.safetensors", "preprocessor_config.json", *CODE]
    assert sorted(os.listdir(tmp_path)) == sorted(files)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_esvit.EsViTConfig",
        **{auto.__name__: f"modeling_esvit.{ours.__name__}" for auto, ours in CLASSES.items()},
    }
    assert config["architectures"] == [model_class.__name__] and config["model_type"] == "esvit"
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        assert set(weights.keys()) == set(model_class(small_config()).state_dict())
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, BitImageProcessor)
    assert (processor.size["shortest_edge"], processor.crop_size["height"], processor.resample) == (37, 32, 3)


def test_preprocessor_is_the_papers_evaluation_transform(tmp_path):
    EsViTModel(small_config(image_size=224)).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert fields["size"] == {"shortest_edge": 256} and fields["crop_size"] == {"height": 224, "width": 224}
    assert fields["image_mean"] == [0.485, 0.456, 0.406] and fields["image_std"] == [0.229, 0.224, 0.225]
    fields["size"] = {"shortest_edge": 300}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(fields))
    EsViTModel(small_config(image_size=224)).save_pretrained(tmp_path)
    assert AutoImageProcessor.from_pretrained(tmp_path).size["shortest_edge"] == 300


def test_configuration_round_trip(tmp_path):
    config = small_config(out_features=["stem", "stage2"], use_absolute_embeddings=True, image_size=[32, 48])
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, EsViTConfig)
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
    assert AutoConfig.for_model("esvit", depths=[2, 2, 18, 2]).depths == [2, 2, 18, 2]


@pytest.mark.parametrize(("auto_class", "model_class"), CLASSES.items())
def test_registered_by_import(auto_class, model_class):
    assert type(auto_class.from_config(small_config())) is model_class


@pytest.mark.parametrize(("auto_class", "model_class"), CLASSES.items())
def test_pretraining_folder_loads_as_everything(tmp_path, batch, local_hub, auto_class, model_class):
    source = EsViTForPreTraining(small_config()).eval()
    source.save_pretrained(tmp_path)
    with CaptureLogger(logging.get_logger("transformers.modeling_utils")) as log:
        model, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model) is model_class
    new = {"classifier.weight", "classifier.bias"} if model_class is EsViTForImageClassification else set()
    assert set(report["missing_keys"]) == new and not report["unexpected_keys"] and "UNEXPECTED" not in log.out
    encoder = model.encoder if model_class is EsViTModel else model.esvit.encoder
    for name, tensor in source.esvit.encoder.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], tensor)
    with torch.no_grad():
        bare = model if model_class is EsViTModel else model.esvit
        assert torch.equal(bare(batch).pooler_output, source.esvit(batch).pooler_output)


@pytest.mark.parametrize("model_class", [EsViTBackbone, EsViTForImageClassification])
def test_bare_model_ignores_other_heads(tmp_path, batch, model_class):
    source = model_class(small_config(out_features=["stage1", "stage2"])).eval()
    source.save_pretrained(tmp_path)
    model, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(model(batch).pooler_output, source.esvit(batch).pooler_output)


REMOTE = """
import json, sys
hidden = set(sys.argv[2].split(","))

class Hiding:  # a finder that knows nothing of the hidden packages
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *args):
        return None if name.split(".")[0] in hidden else self.finder.find_spec(name, *args)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
import torch, transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module

folder = sys.argv[1]
batch = torch.load(folder + "/batch.pt", weights_only=True)
names = ["AutoModel", "AutoModelForImageClassification", "AutoModelForPreTraining"]
models = {n: getattr(transformers, n).from_pretrained(folder, trust_remote_code=True).eval() for n in names}
config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
models["AutoBackbone"] = transformers.AutoBackbone.from_config(config, trust_remote_code=True)
models["AutoModel"].save_pretrained(folder + "/again")
again = transformers.AutoModel.from_pretrained(folder + "/again", trust_remote_code=True).eval()
with torch.no_grad():
    pooled = models["AutoModel"](batch).pooler_output
    result = {
        "classes": {n: [type(m).__module__.split(".")[0], type(m).__name__] for n, m in models.items()},
        "pooled": pooled.tolist(),
        "views": models["AutoModelForPreTraining"]([batch]).view_embeddings.tolist(),
        "again": torch.equal(again(batch).pooler_output, pooled),
        "imported": sorted(hidden & set(sys.modules)),
        "recomputes": models["AutoModel"].supports_gradient_checkpointing,
        "frozen": [n for n, p in models["AutoModelForPreTraining"].named_parameters() if not p.requires_grad],
    }
if "PIL" not in hidden:
    from PIL import Image
    extract = transformers.pipeline("image-feature-extraction", model=folder, trust_remote_code=True)
    result["pipeline"] = list(extract(Image.new("L", (60, 50)), pool=True, return_tensors=True).shape)
print(json.dumps(result))
"""


@pytest.mark.parametrize(
    "hidden",
    [
        ["modeling_esvit", "torchvision", "datasets", "accelerate", "evaluate", "PIL", "scipy", "sklearn", "timm"],
        pytest.param(["modeling_esvit"], marks=pytest.mark.slow),
        pytest.param(["modeling_esvit", "torchvision", "datasets", "accelerate"], marks=pytest.mark.slow),
    ],
    ids=["torch and transformers only", "all but this package", "no torchvision"],
)
def test_folder_loads_where_the_package_is_not_installed(tmp_path, batch, hidden):
    """In another process, from the code in the folder; also what that process saves again loads there."""
    model = EsViTForPreTraining(small_config()).eval()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    torch.save(batch, folder / "batch.pt")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", REMOTE, str(folder), ",".join(hidden)]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["imported"] == []
    assert result["classes"] == {
        auto.__name__: ["transformers_modules", ours.__name__] for auto, ours in CLASSES.items()
    }
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(result["pooled"]), model.esvit(batch).pooler_output)
        torch.testing.assert_close(torch.tensor(result["views"]), model([batch]).view_embeddings)
    assert result["again"] and result.get("pipeline", [1, 16]) == [1, 16]
    assert sorted(os.listdir(folder / "again")) == sorted(
        ["config.json", "model.safetensors", "preprocessor_config.json", *CODE]
    )


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["convnextv2", "dinov2"])
def test_a_backbone_of_transformers_loads_from_the_code_in_a_folder(backbone, tmp_path):
    """Of a folder's files transformers makes several copies, so that classes of one are unknown to the others."""
    torch.manual_seed(0)
    model = EsViTForPreTraining(auto_config(BACKBONES[backbone])).eval()
    model.save_pretrained(tmp_path / "model")
    batch = torch.randn(1, 3, 64, 64)
    torch.save(batch, tmp_path / "model" / "batch.pt")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", REMOTE, str(tmp_path / "model"), "modeling_esvit,PIL"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(found["pooled"]), model.esvit(batch).pooler_output)
    assert found["recomputes"] == model.supports_gradient_checkpointing
    assert found["frozen"] == [name for name, each in model.named_parameters() if not each.requires_grad]


def test_without_trust_the_package_is_enough(tmp_path):
    """The folder names remote code, but the imported package wins and nothing is asked."""
    EsViTModel(small_config()).save_pretrained(tmp_path)
    for trust in (None, True):
        model = AutoModel.from_pretrained(tmp_path, trust_remote_code=trust)
        assert type(model) is EsViTModel
