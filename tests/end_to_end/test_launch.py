# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Runs the scripts of `examples/launch` on one machine that plays several, and sends signals to their processes."""

import os
import shlex
import signal
import socket
import string
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml

from tests.helpers.commands import make_environment
from tests.helpers.paths import ROOT
from tests.helpers.tiny_runs import read_losses, tiny
from training.options.pretrain_options import parse_options


pytestmark = pytest.mark.slow
LAUNCH = "examples/launch"
TWO = "--drop_path_rate 0 --batch_size 4"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def start(*command: str, **environment: str) -> subprocess.Popen:
    env = make_environment(**environment)
    return subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def ended(process: subprocess.Popen, code: int = 0) -> str:
    """Waits for the end of a process, checks its code, and returns what it printed."""
    shown, _ = process.communicate(timeout=1200)
    assert process.returncode == code, shown
    return shown


@pytest.fixture(scope="module")
def losses(images, tmp_path_factory) -> list[float]:
    """Returns the losses of a run of one process with the same global batch."""
    output = tmp_path_factory.mktemp("one")
    ended(start("python", "training/pretrain.py", *tiny(images, output, "--drop_path_rate 0")))
    return read_losses(output)


@pytest.mark.parametrize("script", ["torchrun.sh", "accelerate.sh"])
@pytest.mark.parametrize("processes", [2, 4])
def test_one_machine(images, losses, tmp_path, script, processes):
    arguments = tiny(images, tmp_path, f"--drop_path_rate 0 --batch_size {8 // processes}")
    shown = ended(start(f"{LAUNCH}/{script}", *arguments, GPUS=str(processes), PORT=free_port()))
    assert f"{8 // processes} a process x {processes} processes" in shown
    assert read_losses(tmp_path) == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("script", ["torchrun.sh", "accelerate.sh"])
def test_two_agents_on_one_machine(images, losses, tmp_path, script):
    settings = {"NODES": "2", "GPUS": "1", "PORT": free_port()}
    nodes = [start(f"{LAUNCH}/{script}", *tiny(images, tmp_path, TWO), NODE=node, **settings) for node in "01"]
    assert "4 a process x 2 processes" in "".join(map(ended, nodes))
    assert read_losses(tmp_path) == pytest.approx(losses, rel=1e-5)


def test_an_agent_that_is_lost_leaves_its_work_to_the_other(images, tmp_path):
    """Kills one of two agents, as a machine that goes away: torchrun starts the other's process again, alone."""
    length = "--drop_path_rate 0 --epochs 10 --save_every 1"
    ended(start("python", "training/pretrain.py", *tiny(images, tmp_path / "one", length)))
    elastic = ["--nnodes", "1:2", "--nproc_per_node", "1", "--max_restarts", "9", "--rdzv_backend", "c10d"]
    elastic += ["--rdzv_endpoint", f"127.0.0.1:{free_port()}"]
    output = tmp_path / "two"
    program = ["training/pretrain.py", *tiny(images, output, f"{length} --batch_size 4")]
    # Else the faster of the two is the host, whose loss no agent survives.
    host, guest = (
        start("torchrun", *elastic, "--rdzv_conf", f"last_call_timeout=2,is_host={is_host}", *program)
        for is_host in (True, False)
    )
    wait_for_steps(output, [host, guest])
    for process in [psutil.Process(guest.pid), *psutil.Process(guest.pid).children(recursive=True)]:
        process.kill()
    guest.wait()
    shown = ended(host)
    assert "are now 1 process x batch_size 4 x 2 accumulated (before: 2 processes with 4)" in shown
    assert read_losses(output) == pytest.approx(read_losses(tmp_path / "one"), rel=1e-3)


@contextmanager
def two_networks():
    """Makes two network namespaces, each with one end of a cable: 10.99.0.1 and 10.99.0.2."""
    names = [f"esvit{os.getpid()}-{number}" for number in (1, 2)]
    commands = [f"ip netns add {name}" for name in names]
    commands.append(f"ip link add eth0 netns {names[0]} type veth peer name eth0 netns {names[1]}")
    for number, name in enumerate(names, start=1):
        commands.append(f"ip -n {name} addr add 10.99.0.{number}/24 dev eth0")
        commands += [f"ip -n {name} link set {device} up" for device in ("lo", "eth0")]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {done.stderr}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.skipif(os.getuid() != 0 or sys.platform != "linux", reason="only root makes network namespaces")
@pytest.mark.parametrize("script", ["torchrun.sh", "accelerate.sh"])
def test_two_machines_with_a_network_between_them(images, losses, tmp_path, script):
    settings = {"NODES": "2", "GPUS": "1", "MAIN_ADDRESS": "10.99.0.1", "GLOO_SOCKET_IFNAME": "eth0"}
    with two_networks() as names:
        nodes = []
        for node, name in enumerate(names):
            # What a host name would tell, which both have in common here.
            address = {"PET_LOCAL_ADDR": f"10.99.0.{node + 1}", "PET_RDZV_CONF": f"is_host={node == 0}"}
            command = ["ip", "netns", "exec", name, f"{LAUNCH}/{script}", *tiny(images, tmp_path, TWO)]
            nodes.append(start(*command, NODE=str(node), **settings, **(address if script == "torchrun.sh" else {})))
        assert "4 a process x 2 processes" in "".join(map(ended, nodes))
    assert read_losses(tmp_path) == pytest.approx(losses, rel=1e-5)


LONG = f"{TWO} --epochs 5000 --warmup_epochs 0 --save_every 1000000"


def steps(output: Path) -> int:
    log = output / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def wait_for_steps(output: Path, processes: list[subprocess.Popen]) -> int:
    while steps(output) < 4:
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return steps(output)


def ranks(launcher: subprocess.Popen) -> list[psutil.Process]:
    """Returns the processes that train; they have no loader workers here."""
    family = psutil.Process(launcher.pid).children(recursive=True)
    return [process for process in family if not process.children() and "training/pretrain.py" in process.cmdline()]


def assert_saved(output: Path, before: int, within: int = 3) -> None:
    """Checks that at most the step under way, the one after it, and one not yet in the log were done and saved."""
    step = steps(output)
    assert step - before <= within
    assert (output / "checkpoints" / "last").resolve().name == f"step-{step:08d}"


def slurm(images: Path, output: Path) -> list[subprocess.Popen]:
    common = {"SLURM_NTASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [f"{LAUNCH}/slurm_process.sh", *tiny(images, output, LONG)]
    return [start(*command, SLURM_PROCID=rank, SLURM_LOCALID=rank, **common) for rank in "01"]


@pytest.mark.parametrize(
    "number, receivers",
    [(signal.SIGTERM, [0]), (signal.SIGUSR1, [1]), (signal.SIGUSR2, [0, 1]), (signal.SIGTERM, [0, 1])],
)
def test_a_signal_to_one_or_all_processes(images, tmp_path, number, receivers):
    """Both save the same step, and both end with the code."""
    processes = slurm(images, tmp_path)
    before = wait_for_steps(tmp_path, processes)
    for receiver in receivers:
        processes[receiver].send_signal(number)
    shown = [ended(process, code=75) for process in processes]
    assert "".join(shown).count(f"{number.name} stopped the run after step") == 1
    assert_saved(tmp_path, before)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_is_reported_by_the_other(images, tmp_path, lost):
    processes = slurm(images, tmp_path)
    wait_for_steps(tmp_path, processes)
    processes[lost].kill()
    shown = ended(processes[1 - lost], code=1)
    assert f"error: Process {1 - lost} of 2 (counted from 0) lost another one" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("script", ["torchrun.sh", "accelerate.sh"])
@pytest.mark.parametrize(
    "number, receiver",
    [(signal.SIGTERM, "launcher"), (signal.SIGUSR1, "launcher"), (signal.SIGUSR2, "rank"), (signal.SIGUSR1, "all")],
)
def test_a_signal_under_a_launcher(images, tmp_path, script, number, receiver):
    """Saved all the same; the code is the launcher's own."""
    launcher = start(f"{LAUNCH}/{script}", *tiny(images, tmp_path, LONG), GPUS="2", PORT=free_port())
    before = wait_for_steps(tmp_path, [launcher])
    trained = ranks(launcher)
    assert len(trained) == 2
    receivers = {"launcher": [launcher], "rank": trained[1:], "all": [*trained, launcher]}[receiver]
    for process in receivers:
        process.send_signal(number)
    assert ended(launcher, code=1).count(f"{number.name} stopped the run after step") == 1
    assert_saved(tmp_path, before, within=100 if receiver == "launcher" else 3)  # launchers look at times only


SRUN = """#!/bin/bash
# As srun: the command once a task, and the highest code of them.
[ "$1" = --kill-on-bad-exit=1 ] || exit 2
shift
for task in 0 1; do SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NTASKS=2 "$@" & tasks+=($!); done
highest=0
for task in "${tasks[@]}"; do wait "$task"; code=$?; [ $code -gt $highest ] && highest=$code; done
exit $highest
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && echo 127.0.0.1 || echo "$@" >> "$REQUESTS"
"""


def test_a_slurm_job_queues_itself_again(images, tmp_path):
    """The script as it is, and the real program; of SLURM there is what the script calls."""
    for name, content in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"SLURM_JOB_NODELIST": "here", "SLURM_JOB_ID": free_port(), "PATH": path}
    settings["REQUESTS"] = str(tmp_path / "requests")
    job = start(f"{LAUNCH}/slurm.sh", *tiny(images, tmp_path / "run", LONG), **settings)
    before = wait_for_steps(tmp_path / "run", [job])
    for process in ranks(job):
        process.send_signal(signal.SIGUSR1)
    ended(job, code=75)
    assert_saved(tmp_path / "run", before)
    assert (tmp_path / "requests").read_text() == f"requeue {settings['SLURM_JOB_ID']}\n"
    step = steps(tmp_path / "run")
    again = [*tiny(images, tmp_path / "run", LONG), "--max_steps", str(step + 2)]
    ended(start(f"{LAUNCH}/slurm.sh", *again, **settings))
    assert steps(tmp_path / "run") == step + 2
    assert (tmp_path / "requests").read_text().count("requeue") == 1


def read_job(*arguments: str, **variables: str) -> dict[str, str]:
    """Returns what the Hub's client would send, by the fields that it prints; nothing is sent."""
    names = {"DRY_RUN": "1", "SOURCE": str(ROOT), "BUCKET": "org/runs", "HF_TOKEN": "hf_not_a_token"}
    shown = ended(start(f"{LAUNCH}/hf_job.sh", *arguments, **{**names, **variables}))
    pairs = (line.strip().split(maxsplit=1) for line in shown.splitlines() if line.startswith("  "))
    return {pair[0]: pair[1] for pair in pairs}


def test_a_job_of_the_hub_trains_what_it_was_given(images, losses, tmp_path):
    """The client reads the job, and its command runs here: it clones this checkout; only the install is left out."""
    job = read_job(*tiny(images, tmp_path / "run", "--drop_path_rate 0"), TIMEOUT="2h", FLAVOR="a100-large")
    expected = {"flavor": "a100-large", "timeout": "2h", "attempts": "3", "volumes": "hf://buckets/org/runs:/runs"}
    assert {name: job[name] for name in expected} == expected
    assert "hf_not_a_token" not in job["secrets"]
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "pip").write_text("#!/bin/sh\n[ \"$1 $3\" = 'install .[training]' ]\n")
    (programs / "pip").chmod(0o755)
    environment = make_environment(ACCELERATE_USE_CPU="true")
    environment["PATH"] = os.pathsep.join([str(programs), environment["PATH"]])
    words = shlex.split(job["command"])
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_losses(tmp_path / "run") == losses


def test_a_job_without_a_bucket_is_refused():
    assert "BUCKET: is a bucket, such as org/runs" in ended(start(f"{LAUNCH}/hf_job.sh", SOURCE="x", BUCKET=""), 1)


def test_the_file_of_skypilot_starts_a_run(tmp_path):
    """Its command is one that the program takes; where SkyPilot is installed, its own reader takes the file, too."""
    file = ROOT / LAUNCH / "skypilot.yaml"
    task = yaml.safe_load(file.read_text())
    values = {**task["envs"], "SKYPILOT_NUM_GPUS_PER_NODE": "1"}
    words = shlex.split(string.Template(task["run"]).substitute(values))
    assert words[:3] == ["exec", "accelerate", "launch"] and task["file_mounts"]["/runs"]["mode"] == "MOUNT_CACHED"
    options = parse_options(words[words.index("training/pretrain.py") + 1 :])
    assert (options.output, options.data) == ("/runs/mine", "ILSVRC/imagenet-1k")
    if find_spec("sky"):
        import sky

        assert sky.Task.from_yaml(str(file)).storage_mounts.keys() == {"/runs"}
