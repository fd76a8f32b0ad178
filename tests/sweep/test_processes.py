"""Several processes as one run: the numbers of one process, stopped together, told of a lost one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import analysis
from sweep import Config, Place, UserError, config_of, resume, run
from sweep.cli import placed
from tests.sweep.test_survival import quiet

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "norms": ("batch",),
    "depths": (1, 3),
    "seeds": (0, 1, 2),  # six members a depth: both processes have some
    "width": 8,
    "batch_size": 32,
    "probe_batch_size": 16,
    "spectrum_batch_size": 2,
    "report": False,
}
FLAGS = "--norms batch --depths 1 3 --seeds 0 1 2 --width 8 --batch-size 32 --probe-batch-size 16 --no-report"
FLAGS = (*FLAGS.split(), "--spectrum-batch-size", "2")


def environment(devices, **variables):
    flags = re.sub(r"device_count=\d+", f"device_count={devices}", os.environ["XLA_FLAGS"])
    return os.environ | {"XLA_FLAGS": flags} | variables


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def start(*arguments, devices=(4, 4), second=(), **variables):
    """Two processes that are one run, the second with arguments of its own."""
    common = ("--distributed", "--coordinator", f"localhost:{free_port()}", "--processes", "2")
    return [
        subprocess.Popen(
            [sys.executable, "train.py", *common, "--process", str(process), *map(str, (*arguments, *own))],
            cwd=ROOT,
            env=environment(count, **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process, (count, own) in enumerate(zip(devices, ((), second), strict=True))
    ]


def ended(processes):
    """Exit codes and what was printed as errors, of both."""
    said = [process.communicate(timeout=240)[1] for process in processes]
    return [process.returncode for process in processes], said


def lose(processes, victim):
    """Kills one of them: the other ends within a minute, and says why."""
    processes[victim].kill()
    killed = time.monotonic()
    codes, said = ended(processes)
    assert time.monotonic() - killed < 60
    assert codes[1 - victim] in (4, -signal.SIGABRT), said
    line = r"train.py: error: .*another process of this run is gone .*--resume RUN.*\n$"
    assert re.search(line, said[1 - victim])


def newest_checkpoint(directory):
    names = (path.name for path in directory.glob("checkpoints/*/*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def wait_beyond(step, directory):
    """Returns when a checkpoint of a later step is there."""
    deadline = time.monotonic() + 240
    while newest_checkpoint(directory) <= step:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_same(path, other, exact):
    one, two = analysis.load(path).load(), analysis.load(other).load()
    for name in [*two.coords, *two.data_vars]:
        ours, theirs = one[name].values, two[name].values
        if exact or theirs.dtype.kind != "f":
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
        elif not name.endswith(("condition_number", "isometry_distance")):  # of values that are all rounding
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10, err_msg=name)


@pytest.mark.slow
def test_two_processes_are_one_run_through_a_kill_and_a_signal(tmp_path):
    directory = tmp_path / "two"
    processes = start(*FLAGS, "--steps", 1200, "--checkpoint-minutes", 1e-9, "--out", tmp_path, "--name", "two")
    wait_beyond(0, directory)
    lose(processes, 1)
    assert analysis.load(directory).sizes["member"] == 12

    with pytest.raises(UserError, match="is one of 2 processes, and here are 1; as many must go on"):
        resume(directory, config_of(directory), quiet())
    damaged = newest_checkpoint(directory)
    for chunk in directory.glob(f"checkpoints/*/{damaged}/state/ocdbt.process_1/d/*"):  # what only the second one reads
        chunk.write_bytes(chunk.read_bytes()[:10])

    processes = start("--resume", directory)
    wait_beyond(damaged, directory)
    assert list(directory.glob(f"checkpoints/*-damaged/{damaged}"))
    processes[1].send_signal(signal.SIGTERM)  # who tells the other
    codes, said = ended(processes)
    assert codes == [143, 143]
    assert "--resume" in said[0]

    codes, said = ended(start("--resume", directory, "--steps", 1300))
    assert codes == [0, 0], said
    assert {path.name for path in directory.glob("*.zarr*")} == {"results.zarr", "results-1.zarr"}
    measured = (1, 3, 10, 30, 100, 300, 1000, 1200)
    one = run(Config(**SETTINGS, steps=1300, probe_steps=measured, mesh="members=8", out=tmp_path, name="one"), quiet())
    assert_same(directory, one, exact=True)
    (directory / "results-1.zarr").rename(directory / "elsewhere")
    with pytest.raises(analysis.NotARunError, match=r"has the results of \d+ of 12 members"):
        analysis.load(directory)


@pytest.mark.slow
def test_one_that_is_lost_between_checkpoints(tmp_path):
    processes = start(*FLAGS, "--steps", 10**6, "--checkpoint-minutes", 0, "--out", tmp_path, "--name", "x")
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("x/results.zarr/train_loss/c/*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lose(processes, 0)


@pytest.mark.slow
def test_a_batch_shared_by_two_processes(tmp_path, double):
    arguments = (*FLAGS, "--steps", 12, "--out", tmp_path, "--name", "two", "--mesh", "members=1,batch=4")
    codes, said = ended(start(*arguments, devices=(2, 2), JAX_ENABLE_X64="1"))
    assert codes == [0, 0], said
    one = run(Config(**SETTINGS, steps=12, mesh="members=1", out=tmp_path, name="one"), quiet())
    assert_same(tmp_path / "two", one, exact=False)


@pytest.mark.slow
def test_one_of_them_tells_of_a_mistake(tmp_path):
    (tmp_path / "there").mkdir()
    codes, said = ended(start(*FLAGS, "--out", tmp_path, "--name", "there", devices=(1, 1)))
    assert codes == [2, 2]
    assert "".join(said).count("\n") == 1
    assert "there already exists; choose another --name" in said[0]
    codes, said = ended(start(*FLAGS, "--out", tmp_path, "--name", "x", "--mesh", "members=1", devices=(1, 1)))
    assert codes == [2, 2]
    assert said[0].endswith("--mesh of 2 processes takes all of their 2 devices, got 1\n")
    codes, said = ended(start(*FLAGS, "--out", tmp_path, "--name", "x", devices=(1, 3)))
    assert codes == [2, 2]
    assert said[0].endswith("as many devices in every process, got 1, 3; on CPUs JAX_NUM_CPU_DEVICES sets them\n")
    codes, said = ended(start(*FLAGS, "--out", tmp_path, "--name", "x", devices=(1, 1), second=("--steps", 3)))
    assert codes == [2, 2]
    assert said[0].endswith("the processes were given different flags; all but --process must be the same\n")
    assert not (tmp_path / "x").exists()


SRUN = """#!/bin/bash
export SLURM_JOB_ID=$$ SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2
for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & tasks+=($!); done
trap 'kill -TERM "${tasks[@]}"' TERM
echo $$ > srun.pid
code=0
for task in "${tasks[@]}"; do
    wait "$task"; found=$?
    while kill -0 "$task" 2>/dev/null; do wait "$task"; found=$?; done  # a trap ends a wait
    ((found > code)) && code=$found
done
exit $code
"""


@pytest.mark.slow
def test_the_readmes_slurm_script(tmp_path):
    """With plain local processes for SLURM's: stopped before its time is up, queued again, and done."""
    script = re.search(r"<!-- slurm -->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    small = " ".join(map(str, (*FLAGS, "--steps", 800, "--checkpoint-minutes", 1e-9)))
    (tmp_path / "job").write_text(script.replace("--depths 8 32 128 512", small))
    commands = {
        "bin/srun": SRUN,
        "bin/scontrol": "#!/bin/bash\necho $@ > scontrol.said\n",
        ".venv/bin/python": f'#!/bin/bash\nexec {sys.executable} "$@"\n',
    }
    for name, text in commands.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    settings = {"cwd": tmp_path, "env": environment(4, PATH=path, PYTHONPATH=str(ROOT), SLURM_JOB_ID="77")}

    job = subprocess.Popen(["bash", "job"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings)
    wait_beyond(0, tmp_path / "runs" / "depths")
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGTERM)
    said = job.communicate(timeout=120)[1]
    assert (tmp_path / "scontrol.said").read_text() == "requeue 77\n", said

    (tmp_path / "scontrol.said").unlink()
    done = subprocess.run(["bash", "job"], capture_output=True, text=True, timeout=240, check=False, **settings)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "scontrol.said").exists()
    results = analysis.load(tmp_path / "runs" / "depths")
    assert results.provenance["status"] == "complete"
    assert np.isfinite(results.train_loss).all()


def test_places():
    assert placed(["--steps", "3"]) == (None, ["--steps", "3"])
    assert placed(["--distributed", "--steps", "3"]) == (Place(), ["--steps", "3"])
    arguments = ["--coordinator=host:12", "--distributed", "--processes", "4", "--process", "3"]
    assert placed(arguments) == (Place("host:12", 4, 3), [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--process 1", "--process is of --distributed; give that too"),
        ("--distributed --processes two", "--processes takes a whole number, got 'two'"),
        ("--distributed --processes 2 --process 2", "--process must be below --processes 2, got 2"),
        ("--distributed --coordinator", "--coordinator is empty; give a value"),
    ],
)
def test_mistaken_places(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        placed(arguments.split())


WATCHED = """
import os, sys
from sweep.watcher import Watcher
watcher = Watcher()
watcher.will_say("first")
watcher.will_say("it was lost")
if sys.argv[1] == "lost":
    os.abort()
watcher.end()
"""


@pytest.mark.parametrize(("how", "said"), [("lost", "it was lost\n"), ("well", "")])
def test_the_last_word(how, said):
    done = subprocess.run([sys.executable, "-c", WATCHED, how], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.endswith(said)
    assert bool(done.stderr) == bool(said)
