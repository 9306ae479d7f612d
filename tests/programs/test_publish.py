# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs `publish.py` against the loopback Hub, with the unmodified clients in processes of their own.

What arrives there and who may see it, what it says when it cannot, what is not sent twice; and strangers can load it by
its name.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from modeling_esvit import EsViTForPreTraining, EsViTModel
from modeling_esvit.storage.manifest import list_names
from tests.helpers.paths import ROOT
from tests.helpers.tiny_models import CODE, small_config
from tests.hub.client import client
from tests.hub.loopback_hub import Fault, LoopbackHub
from tests.hub.protocol import HubFile, Repository
from training.publishing.folder import HEADS


TOKENS = {"hf_ada_secret": "ada", "hf_bob_secret": "bob"}
ADA, BOB = TOKENS


@pytest.fixture
def hub():
    with LoopbackHub([], TOKENS, organizations={"lab": ["ada"]}) as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(1)
    network = EsViTForPreTraining(small_config(norm_last_layer=False))
    torch.nn.init.normal_(network.view_center)
    network.save_pretrained(folder)
    return folder


def command(hub: LoopbackHub, home: Path, *arguments: str | Path, token: str = ADA) -> subprocess.CompletedProcess:
    """`publish.py`, as a user types it."""
    line = [sys.executable, str(ROOT / "training" / "publish.py"), "--yes", *map(str, arguments)]
    environment = hub.environment(home, token, OMP_NUM_THREADS="1")
    return subprocess.run(line, env=environment, cwd=home, capture_output=True, text=True, timeout=300)


def repository(hub: LoopbackHub, name: str) -> Repository:
    return hub.hub.repositories["model", name]


def files(hub: LoopbackHub, name: str, revision: str = "main") -> dict[str, HubFile]:
    return repository(hub, name).at(revision)[1]


@pytest.mark.slow
def test_push_and_check(hub, model, tmp_path):
    """All files in one commit to a repository that is closed before; loaded back by name from an empty cache."""
    done = command(hub, tmp_path, model, "--repo_id", "ada/tiny", "--private", "--gated", "manual", "--output", "out")
    assert done.returncode == 0, done.stderr
    sent = {name: (tmp_path / "out" / name).read_bytes() for name in list_names(tmp_path / "out")}
    there = {name: file.content for name, file in files(hub, "ada/tiny").items()}
    assert there == sent and {HEADS, "README.md", "config.json", *CODE} < set(there)
    assert files(hub, "ada/tiny")["model.safetensors"].lfs and files(hub, "ada/tiny")[HEADS].lfs
    assert repository(hub, "ada/tiny").private and repository(hub, "ada/tiny").gated == "manual"
    paths = [(entry.method, entry.path) for entry in hub.requests()]
    closed = paths.index(("PUT", "/api/models/ada/tiny/settings"))
    assert closed < min(number for number, (method, path) in enumerate(paths) if path.startswith("/upload"))
    assert len(hub.requests("*/commit/*")) == 1 and len(hub.requests("*/objects/verify")) == 2
    assert "Loaded back by its name in a fresh process: outputs differ by 0.0e+00 at most." in done.stdout
    commit = repository(hub, "ada/tiny").branches["main"]
    assert hub.requests(f"/ada/tiny/resolve/{commit}/modeling_esvit.py", "GET")
    assert all(hub.requests(f"/model/ada/tiny/{commit}/{name}", "GET") for name in ("model.safetensors", HEADS))
    nowhere_to_be_found(ADA, tmp_path, done, hub)


def nowhere_to_be_found(token: str, folder: Path, done: subprocess.CompletedProcess, hub: LoopbackHub) -> None:
    """Checks that the token is in no output, no file of the folder (caches included), and no upload."""
    assert token not in done.stdout + done.stderr
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert written and not [path for path in written if token.encode() in path.read_bytes()]
    contents = [file.content for r in hub.hub.repositories.values() for c in r.commits.values() for file in c.values()]
    assert contents and not any(token.encode() in content for content in contents)


@pytest.mark.slow
def test_a_check_that_fails_says_so(hub, model, tmp_path):
    """Lets the Hub serve something else than was sent, a backbone with other weights."""
    line = (model, "--repo_id", "ada/tiny", "--output", "out")
    assert command(hub, tmp_path, *line, "--no_check").returncode == 0
    torch.manual_seed(5)
    other = tmp_path / "other"
    EsViTModel(small_config()).save_pretrained(other)
    stored = files(hub, "ada/tiny")["model.safetensors"]
    stored.content = hub.hub.objects[stored.sha256] = (other / "model.safetensors").read_bytes()
    done = command(hub, tmp_path, *line)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "ada/tiny was pushed" in done.stderr and "gives other outputs: {'last_hidden_state'" in done.stderr


@contextmanager
def stalled_push(hub: LoopbackHub, home: Path, path: str, method: str, *arguments: str | Path):
    """Runs `publish.py` and yields while the Hub is silent at its first request of `method` and `path`."""
    fault = Fault(path, cut="stall", pause=1000, after=None, method=method)
    hub.inject(fault)
    line = [sys.executable, str(ROOT / "training" / "publish.py"), "--yes", *map(str, arguments)]
    environment = hub.environment(home, ADA, OMP_NUM_THREADS="1")
    with subprocess.Popen(line, env=environment, cwd=home, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not hub.requests(path, method):
            time.sleep(0.05)
        yield process, fault


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_push_that_is_interrupted_says_at_once_how_to_go_on(hub, model, tmp_path, number):
    """Ctrl-C, or the end of a machine, while a large file is being sent."""
    arguments = (model, "--repo_id", "ada/tiny", "--output", "out", "--no_check")
    with stalled_push(hub, tmp_path, "/upload/*", "PUT", *arguments) as (process, _):
        process.send_signal(number)
        _, printed = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in printed
    assert "The push to ada/tiny was interrupted.\nThe folder out is whole; to try again: " in printed
    done = command(hub, tmp_path, *arguments)
    assert done.returncode == 0 and "Pushed: " in done.stdout
    sent = {name: (tmp_path / "out" / name).read_bytes() for name in list_names(tmp_path / "out")}
    assert {name: file.content for name, file in files(hub, "ada/tiny").items()} == sent
    nowhere_to_be_found(ADA, tmp_path, done, hub)


@pytest.mark.slow
def test_a_check_that_is_interrupted_says_that_the_model_is_there(hub, model, tmp_path):
    arguments = (model, "--repo_id", "ada/tiny", "--output", "out")
    with stalled_push(hub, tmp_path, "/ada/tiny/resolve/*", "GET", *arguments) as (process, _):
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in printed
    assert "ada/tiny was pushed (" in printed and "loading it back was interrupted." in printed


@pytest.mark.slow
@pytest.mark.parametrize("what", ["out", "out/model.safetensors"])
def test_a_folder_that_is_deleted_under_a_push_is_not_sent_in_parts(hub, model, tmp_path, what):
    arguments = (model, "--repo_id", "ada/tiny", "--output", "out", "--no_check")
    with stalled_push(hub, tmp_path, "/api/repos/create", "POST", *arguments) as (process, fault):
        shutil.rmtree(tmp_path / what) if what == "out" else (tmp_path / what).unlink()
        fault.resumed.set()
        _, printed = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in printed
    assert "error: The files to send to ada/tiny cannot be read here: " in printed
    assert "The folder out will be written anew; to try again: " in printed
    assert not files(hub, "ada/tiny").keys() & {"model.safetensors", "config.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path, method, status, xet, said",
    [
        ("/upload/*", "PUT", 503, "1", "cannot be reached, or cannot answer now (HfHubHTTPError: Server error '503"),
        ("*/objects/batch", "POST", 429, "1", "is asked too often by this account (429): try again in 1 s."),
        ("*/xet-write-token/*", "GET", 401, "0", "The store of the Hub's large files did not take them ("),
        ("*/xet-write-token/*", "GET", 503, "0", "The store of the Hub's large files did not take them ("),
    ],
)
def test_a_store_that_fails_is_said_in_a_line_and_the_same_command_goes_on(
    hub, model, tmp_path, path, method, status, xet, said
):
    """huggingface_hub issue 3071, datasets issues 7760 and 6257, xet-core issue 404."""
    fault = Fault(path, status=status, retry_after=1 if status == 429 else 0, times=None, method=method)
    hub.inject(fault)
    line = [sys.executable, str(ROOT / "training" / "publish.py"), str(model), "--repo_id", "ada/tiny", "--no_check"]
    line.append("--yes")
    environment = hub.environment(tmp_path, ADA, OMP_NUM_THREADS="1", HF_HUB_DISABLE_XET=xet)
    done = subprocess.run(
        [*line, "--output", "out"], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert fault.hits and done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    [error] = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert said in error and "The folder out is whole; to try again: " in done.stderr
    hub.faults.clear()
    again = command(hub, tmp_path, model, "--repo_id", "ada/tiny", "--output", "out", "--no_check")
    assert again.returncode == 0 and "Pushed: " in again.stdout, again.stderr
    sent = {name: (tmp_path / "out" / name).read_bytes() for name in list_names(tmp_path / "out")}
    assert {name: file.content for name, file in files(hub, "ada/tiny").items()} == sent


# -- many commands in one process --------------------------------------------------------------------------------------

COMMANDS = """
    import contextlib, io, os, pty, sys
    import training.publish as publish
    from huggingface_hub import constants

    def run(line, token="hf_ada_secret", confirmed="--yes"):
        os.environ.pop("HF_TOKEN", None)
        if token:
            os.environ["HF_TOKEN"] = token
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                publish.main(["MODEL", "--no_check", "--output", "out", *confirmed.split(), *line.split()])
            except SystemExit as error:
                return str(error)
        return printed.getvalue()

    keyboard, terminal = pty.openpty()

    def answer(text, line):
        kept = os.dup(0)
        os.dup2(terminal, 0)
        sys.stdin = open(0, closefd=False)
        os.write(keyboard, text.encode())
        try:
            return run(line, confirmed="")
        finally:
            os.dup2(kept, 0)

    asked = {
        "nobody to ask": run("--repo_id ada/asked", confirmed=""),
        "no": answer("\\n", "--repo_id ada/asked"),
        "to a private one": run("--repo_id ada/closed", confirmed="--private_if_new"),
        "to a private one again": run("--repo_id ada/closed", confirmed=""),
        "yes": answer("y\\n", "--repo_id ada/asked"),
        "once more": run("--repo_id ada/asked", confirmed=""),
    }
    result = asked | {
        "dry run": run("--repo_id ada/dry --dry_run", token=None),
        "no token": run("--repo_id ada/none", token=None),
        "wrong token": run("--repo_id ada/none", token="hf_wrong_secret"),
        "not mine": run("--repo_id bob/none"),
        "not mine, exists": run("--repo_id bob/open"),
        "proposed to none": run("--repo_id bob/none --create_pr"),
        "organisation": run("--repo_id lab/tiny --gated"),
        "branch": run("--repo_id lab/tiny --revision v2"),
        "proposal": run("--repo_id bob/open --create_pr"),
        "commit lost": run("--repo_id ada/tiny"),
        "server fails": run("--repo_id ada/tiny"),
        "rate limit": run("--repo_id ada/tiny"),
        "continued": run("--repo_id ada/tiny"),
        "again": run("--repo_id ada/tiny"),
    }
    constants.HF_HUB_OFFLINE = True  # as HF_HUB_OFFLINE=1 at the start
    result["offline"] = run("--repo_id ada/tiny")
"""
REFUSED = {
    "nobody to ask": "Create it, visible to everybody? Nobody can be asked here: add --yes, or --private",
    "no": "Nothing was sent. For a private repository add --private.",
    "no token": "There is no token: log in with `hf auth login`, or set HF_TOKEN",
    "wrong token": "does not accept the token",
    "not mine": "may not write to bob/none",
    "not mine, exists": "may not write to bob/open",
    "proposed to none": "There is no bob/none",
    "rate limit": "is asked too often by this account (429): try again in 2000 s.",
    **dict.fromkeys(("commit lost", "server fails", "offline"), "cannot be reached, or cannot answer now"),
}


@pytest.fixture(scope="module")
def commands(model, tmp_path_factory):
    """Yields the Hub after the commands, the output or error of each, and the folder where they ran."""
    home = tmp_path_factory.mktemp("home")
    others = Repository("bob/open", {"README.md": b"bob's"}, "model")
    with LoopbackHub([others], TOKENS, organizations={"lab": ["ada"]}) as hub:
        hub.inject(Fault("*/ada/tiny/commit/main", cut="drop", after=None, method="POST"))
        hub.inject(Fault("/api/repos/create", status=503, skip=10, method="POST"))
        hub.inject(Fault("/api/repos/create", status=429, retry_after=2000, skip=10, method="POST"))
        script = COMMANDS.replace("ROOT", str(ROOT)).replace("MODEL", str(model))
        yield hub, client(hub, home, script), home


@pytest.mark.parametrize("what", REFUSED)
def test_a_push_that_fails_says_why_and_leaves_the_folder(commands, what):
    message = commands[1][what]
    assert message.startswith("error: ") and REFUSED[what] in message
    assert "The folder out is whole; to try again: " in message and "secret" not in message


def test_what_was_refused_is_not_there(commands):
    hub, _, home = commands
    pushed = {"bob/open", "lab/tiny", "ada/tiny", "ada/asked", "ada/closed"}
    assert {name for _, name in hub.hub.repositories} == pushed
    assert {name: file.content for name, file in files(hub, "bob/open").items()} == {"README.md": b"bob's"}
    assert {"model.safetensors", HEADS, "README.md"} < {path.name for path in (home / "out").iterdir()}


def test_interrupted_pushes_go_on(commands):
    """Files that arrived before the commit was lost are not sent again, and what is there is not committed again."""
    hub, printed, home = commands
    assert "Pushed: " in printed["continued"] and "Pushed: " in printed["again"]
    assert len(repository(hub, "ada/tiny").commits) == 2  # the empty one and one push
    assert files(hub, "ada/tiny")["model.safetensors"].content == (home / "out/model.safetensors").read_bytes()
    assert len(hub.requests("/upload/*", "PUT")) == 2  # weights and heads, once for all these commands


def test_where_it_can_be_pushed(commands):
    """Pushes to an organisation, to a branch, and as a pull request to others."""
    hub, printed, _ = commands
    assert "Pushed: " in printed["organisation"] and "Pushed: " in printed["branch"]
    assert f"Pushed: {hub.url}/bob/open/discussions/1" in printed["proposal"]
    lab, bob = repository(hub, "lab/tiny"), repository(hub, "bob/open")
    assert lab.gated == "auto" and not lab.private and "model.safetensors" in files(hub, "lab/tiny", "v2")
    assert "model.safetensors" in files(hub, "bob/open", "refs/pr/1") and set(bob.branches) == {"main", "refs/pr/1"}


def test_a_model_becomes_public_after_a_yes_alone(commands):
    """Asks once: not where the repository is private, and not where a model has been published before."""
    hub, printed, _ = commands
    for what in ("to a private one", "to a private one again", "yes", "once more"):
        assert "Pushed: " in printed[what], what
    assert "Create it, visible to everybody? [y/N]" in printed["yes"] and "[y/N]" not in printed["once more"]
    assert repository(hub, "ada/closed").private and not repository(hub, "ada/asked").private


def test_dry_run_asks_nobody(commands):
    hub, printed, _ = commands
    assert "model.safetensors" in printed["dry run"] and "Nothing was sent" in printed["dry run"]
    assert not hub.requests("*ada/dry*")
    assert all(entry.authenticated for entry in hub.requests() if entry.host == "hub")  # nor do those without a token


# -- strangers ---------------------------------------------------------------------------------------------------------

LOAD = """
    import torch, transformers
    from PIL import Image
    name, options = "ada/tiny", OPTIONS
    images = torch.linspace(-1, 1, 2 * 3 * 40 * 36).view(2, 3, 40, 36)
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained(name, **options).eval()
        heads = transformers.AutoModelForPreTraining.from_pretrained(name, **options).eval()
        backbone = transformers.AutoBackbone.from_pretrained(name, **options).eval()
        extract = transformers.pipeline("image-feature-extraction", model=name, **options)
        result = {
            "module": type(model).__module__.split(".")[0],
            "feature": model(images).pooler_output.tolist(),
            "views": heads([images]).view_embeddings.tolist(),
            "center": heads.view_center.tolist(),
            "maps": [list(map_.shape) for map_ in backbone(images).feature_maps],
            "pipeline": extract(Image.linear_gradient("L").resize((50, 60)), pool=True, return_tensors=True).tolist(),
        }
"""


@pytest.mark.slow
@pytest.mark.parametrize("installed", [True, False], ids=["package imported", "remote code"])
def test_strangers_load_it_by_name(hub, model, tmp_path, installed):
    assert command(hub, tmp_path, model, "--repo_id", "ada/tiny", "--output", "out", "--no_check").returncode == 0
    options = {} if installed else {"trust_remote_code": True}
    imports = "import modeling_esvit" if installed else ""
    found = client(hub, tmp_path, imports, LOAD.replace("OPTIONS", repr(options)))
    assert found["module"] == ("modeling_esvit" if installed else "transformers_modules")
    source = EsViTForPreTraining.from_pretrained(model).eval()
    images = torch.linspace(-1, 1, 2 * 3 * 40 * 36).view(2, 3, 40, 36)
    with torch.no_grad():
        expected = {"feature": source.esvit(images).pooler_output, "views": source([images]).view_embeddings}
    expected["center"] = source.view_center
    for name, tensor in expected.items():
        torch.testing.assert_close(torch.tensor(found[name]), tensor, rtol=1e-5, atol=1e-6)
    assert found["maps"] == [[2, 16, 5, 5]] and torch.tensor(found["pipeline"]).shape == (1, 16)


BY_NAME = """
    import torch, transformers
    images = torch.linspace(-1, 1, 2 * 3 * 40 * 36).view(2, 3, 40, 36)
    with torch.no_grad():
        model = transformers.AutoModel.from_pretrained("ada/tiny", trust_remote_code=True, **OPTIONS).eval()
        transformers.AutoModelForPreTraining.from_pretrained("ada/tiny", trust_remote_code=True, **OPTIONS)
        transformers.AutoImageProcessor.from_pretrained("ada/tiny", **OPTIONS)
        result = [type(model).__module__.split(".")[0], model(images).pooler_output.tolist()]
"""


@pytest.mark.slow
def test_remote_code_loads_offline_and_of_a_pinned_revision(hub, model, tmp_path):
    """transformers issues 34855 and 22692, sentence-transformers issue 2613."""
    arguments = (model, "--repo_id", "ada/tiny", "--output", "out", "--no_check")
    assert command(hub, tmp_path, *arguments).returncode == 0
    first = repository(hub, "ada/tiny").branches["main"]
    expected = client(hub, tmp_path, BY_NAME.replace("OPTIONS", "{}"))
    assert expected[0] == "transformers_modules"
    broken = {"modeling_esvit.py": HubFile(b"raise SystemExit", False)}
    repository(hub, "ada/tiny").commit(files(hub, "ada/tiny") | broken)
    asked = len(hub.log)
    for options in ({}, {"revision": first}):
        found = client(hub, tmp_path, BY_NAME.replace("OPTIONS", repr(options)), HF_HUB_OFFLINE="1")
        assert found == expected and len(hub.log) == asked


@pytest.mark.slow
def test_native_loads_by_plain_transformers(hub, tmp_path):
    torch.manual_seed(0)
    config = small_config(image_size=224, window_size=7, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    model = EsViTModel(config).eval()
    model.save_pretrained(tmp_path / "model")
    done = command(hub, tmp_path, tmp_path / "model", "--repo_id", "ada/native", "--native")
    assert done.returncode == 0 and "Loaded back by its name" in done.stdout, done.stderr
    script = """
        import sys, torch, transformers
        images = torch.linspace(-1, 1, 3 * 224 * 224).view(1, 3, 224, 224)
        model = transformers.AutoModel.from_pretrained("ada/native").eval()
        with torch.no_grad():
            result = [type(model).__name__, model(images).pooler_output.tolist(), "modeling_esvit" in sys.modules]
    """
    name, feature, ours = client(hub, tmp_path, script)
    images = torch.linspace(-1, 1, 3 * 224 * 224).view(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(feature), model(images).pooler_output, rtol=1e-4, atol=1e-5)
    assert name == "SwinModel" and not ours
    assert not set(files(hub, "ada/native")) & {*CODE, HEADS}


@pytest.mark.slow
def test_a_native_push_removes_what_ours_left(hub, tmp_path):
    config = small_config(image_size=224, window_size=7, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2])
    EsViTForPreTraining(config).save_pretrained(tmp_path / "model")
    for options in ([], ["--native"]):
        done = command(hub, tmp_path, tmp_path / "model", "--repo_id", "ada/both", "--no_check", *options)
        assert done.returncode == 0, done.stderr
    assert sorted(files(hub, "ada/both")) == sorted(
        ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    )


@pytest.mark.slow
def test_the_snippet_of_the_card_runs(hub, model, tmp_path):
    assert command(hub, tmp_path, model, "--repo_id", "ada/tiny", "--output", "out", "--no_check").returncode == 0
    card = (tmp_path / "out" / "README.md").read_text()
    snippet = card.partition("```python\n")[2].partition("```")[0]
    Image.linear_gradient("L").save(tmp_path / "photo.jpg")
    assert client(hub, tmp_path, snippet, "result = list(feature.shape)") == [1, 16]


@pytest.mark.slow
def test_pretraining_starts_from_its_name(hub, model, tmp_path):
    """`--init_from` a published model: heads and centres come along."""
    assert command(hub, tmp_path, model, "--repo_id", "ada/tiny", "--output", "out", "--no_check").returncode == 0
    script = """
        import sys
        import torch
        from training.learning.init_from import initialise
        from modeling_esvit import EsViTConfig, EsViTForPreTraining
        from training.learning.optimizer import group_parameters
        student, teacher = (EsViTForPreTraining(EsViTConfig.from_pretrained("ada/tiny")) for _ in range(2))
        report = initialise("ada/tiny", student, teacher, torch.optim.AdamW(group_parameters(student)))
        result = [report, teacher.view_center.tolist()]
    """
    report, center = client(hub, tmp_path, script)
    assert "view head and centre: kept" in report and "region head and centre: kept" in report
    source = EsViTForPreTraining.from_pretrained(model)
    torch.testing.assert_close(torch.tensor(center), source.view_center)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["EsViTModel"]
