"""Runs that are stopped, killed and damaged: what is there stays, and going on gives the same bits."""

import dataclasses
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
import yaml
from rich.console import Console

from sweep import Config, Interrupted, StorageError, UserError, config_of, resume, run
from sweep.checkpoints import Checkpoints
from sweep.lock import only_writer
from sweep.store import Store
from tests.tiers import slow

ROOT = Path(__file__).parents[2]


def small(out, name, **kwargs):
    settings = {
        "depths": (2,),
        "seeds": (0,),
        "width": 8,
        "learning_rates": (0.02, 1e30),  # the second one diverges
        "batch_size": 32,
        "steps": 12,
        "probe_steps": (5,),
        "probe_batch_size": 16,
        "spectrum_batch_size": 2,
        "probes": ("gradients",),
        "checkpoint_minutes": 1e-9,  # after every call
        "out": out,
        "name": name,
        "report": False,
    }
    return Config(**(settings | kwargs))


def quiet():
    return Console(file=io.StringIO(), width=400)


def stored(directory):
    return xr.open_zarr(directory / "results.zarr", consolidated=False, chunks=None).load()


def last_state(directory, program):
    """The arrays of a program's newest checkpoint, by their names."""
    folder = max((directory / "checkpoints" / program).iterdir(), key=lambda path: int(path.name))
    import orbax.checkpoint as ocp

    return int(folder.name), ocp.StandardCheckpointer().restore(folder.absolute() / "state")


def assert_the_same_bits(one, other):
    first, second = stored(one), stored(other)
    assert first.equals(second)
    for program in ("0-norm-none", "1-norm-batch"):
        (step, arrays), (other_step, others) = (last_state(directory, program) for directory in (one, other))
        assert step == other_step
        assert arrays.keys() == others.keys()
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], others[name])


def files(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name[0] != "."}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return run(small(tmp_path_factory.mktemp("runs"), "reference"), quiet())


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A function that runs until a signal comes as losses from a step on are stored, in the given program."""

    def until(step, program, number=signal.SIGTERM, name="stopped"):
        write = Store.write_losses

        def signalled(self, members, first_step, losses):
            write(self, members, first_step, losses)
            if first_step >= step and bool(members.start) == bool(program):
                os.kill(os.getpid(), number)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_losses", signalled)
            with pytest.raises(Interrupted) as caught:
                run(small(tmp_path, name), quiet())
        return tmp_path / name, caught.value

    return until


@pytest.mark.parametrize(
    ("step", "program", "number"),
    [slow(0, 0, signal.SIGTERM), (5, 1, signal.SIGINT)],
)
def test_a_stopped_run_goes_on_to_the_same_bits(reference, stopped, step, program, number):
    directory, interrupted = stopped(step, program, number)
    assert interrupted.signal == number
    assert json.loads((directory / "provenance.json").read_text())["status"] == "interrupted"
    partly = stored(directory)
    assert np.isnan(partly.test_loss).any()
    assert resume(directory, config_of(directory), quiet()) == directory
    assert_the_same_bits(directory, reference)
    provenance = json.loads((directory / "provenance.json").read_text())
    assert provenance["status"] == "complete"
    assert len(provenance["resumed"]) == 1
    # Of a run that is complete nothing is done again.
    before = files(directory)
    resume(directory, config_of(directory), quiet())
    after = files(directory)
    assert {p for p in before if before[p] != after[p]} == {directory / "provenance.json"}


def test_other_devices_are_refused(reference):
    """A checkpoint is of one split of the members."""
    before = files(reference)
    with pytest.raises(UserError) as caught:
        resume(reference, dataclasses.replace(config_of(reference), mesh="members=2"), quiet())
    assert "is split as members=4,batch=1, and would be as members=2,batch=1 here; go on with --mesh members=4" in str(
        caught.value
    )
    assert files(reference) == before


@pytest.mark.slow
def test_less_memory_changes_nothing(reference, stopped, monkeypatch):
    directory, _ = stopped(5, 1)
    monkeypatch.setattr("sweep.prepare.available_bytes", lambda devices: 1)
    resume(directory, config_of(directory), quiet())
    assert_the_same_bits(directory, reference)


def test_more_steps(tmp_path):
    """12 steps, and on to 20, are 20 steps; the step that was the last stays measured."""
    # None diverges: that may show at a measured step, of which the two runs have different ones.
    settings = {"learning_rates": (0.02,), "norms": ("none",)}
    short = run(small(tmp_path, "grown", **settings), quiet())
    longer = resume(short, dataclasses.replace(config_of(short), steps=20), quiet())
    straight = run(small(tmp_path, "straight", steps=20, probe_steps=(1, 3, 5, 10, 12), **settings), quiet())
    found, expected = stored(longer), stored(straight)
    assert found.probe_step.values.tolist() == [0, 5, 12, 20]
    assert found.drop_vars("probe_step").equals(expected.sel(probe_step=[0, 5, 12, 20]).drop_vars("probe_step"))
    assert config_of(longer).steps == 20
    with pytest.raises(UserError, match="--steps is 20 there, and cannot shrink to 12"):
        resume(longer, dataclasses.replace(config_of(longer), steps=12, probe_steps=None), quiet())


def test_a_damaged_checkpoint_gives_way_to_the_one_before(reference, stopped):
    directory, _ = stopped(5, 1)
    folder = directory / "checkpoints" / "1-norm-batch"
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    for path in newest.rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    console = quiet()
    resume(directory, config_of(directory), console)
    printed = console.file.getvalue()
    assert f"{newest} is damaged" in printed
    assert "and set aside" in printed
    assert (directory / "checkpoints" / "1-norm-batch-damaged" / newest.name).is_dir()
    assert_the_same_bits(directory, reference)


def test_another_config_is_refused(reference):
    before = files(reference)
    changed = dataclasses.replace(config_of(reference), width=16, seeds=(0, 1))
    with pytest.raises(UserError) as caught:
        resume(reference, changed, quiet())
    message = str(caught.value)
    assert "--seeds is 0 there, 0 1 was asked for; --width is 8 there, 16 was asked for" in message
    assert "\n" not in message
    assert files(reference) == before


def test_a_config_that_was_edited_by_hand(stopped):
    directory, _ = stopped(0, 0)
    config = yaml.safe_load((directory / "config.yaml").read_text())
    (directory / "config.yaml").write_text(yaml.safe_dump(config | {"width": 9}))
    before = files(directory)
    with pytest.raises(UserError, match="was changed since the run began: --width 8, now 9; nothing was changed"):
        resume(directory, config_of(directory), quiet())
    assert files(directory) == before
    (directory / "config.yaml").write_text("widht: 9")
    with pytest.raises(UserError, match=r"config\.yaml: unknown field 'widht'; did you mean 'width'"):
        config_of(directory)
    (directory / "config.yaml").write_text("a: [")
    with pytest.raises(UserError, match="cannot be read"):
        config_of(directory)


def test_a_truncated_store(stopped):
    directory, _ = stopped(5, 1)
    chunk = directory / "results.zarr" / "train_loss" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    before = files(directory)
    with pytest.raises(UserError, match=r"results\.zarr is damaged: .*; nothing was changed"):
        resume(directory, config_of(directory), quiet())
    assert files(directory) == before


def test_no_run_there(tmp_path):
    with pytest.raises(UserError, match="--resume needs a run directory"):
        config_of(tmp_path / "nothing")


HOLD = """
import sys, time
from pathlib import Path
from sweep.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_run_has_one_writer(reference):
    command = [sys.executable, "-c", HOLD, str(reference)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"is being written by process {holder.pid} on .* since 20"):
            resume(reference, config_of(reference), quiet())
        holder.kill()
    # A lock whose holder is gone holds nothing.
    with only_writer(reference):
        pass


def test_storage_that_fails_is_told(tmp_path, monkeypatch):
    def refused(self, members, step, values):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_probes", refused)
        with pytest.raises(StorageError, match=r"cannot write .*: Permission denied; what was written before is whole"):
            run(small(tmp_path, "x", norms=("none",)), quiet())
    assert json.loads((tmp_path / "x" / "provenance.json").read_text())["status"] == "failed"
    resume(tmp_path / "x", config_of(tmp_path / "x"), quiet())
    assert np.isfinite(stored(tmp_path / "x").train_loss).any()


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import train
train.command()
"""


def train(config, *arguments, command=("train.py",), **kwargs):
    flags = []
    for name, value in config.to_dict().items():
        if value is not None and name != "report":
            flags += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return subprocess.Popen(
        [sys.executable, *command, *(arguments or (*flags, "--no-report"))],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


@pytest.mark.slow
def test_files_that_cannot_be_written_whole(tmp_path):
    """No file may be larger than 4 kB, as a checkpoint is; the system answers as if the disk were full."""
    config = small(tmp_path, "full", learning_rates=(0.02,), width=32)
    # Kept programs are files too.
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    process = train(config, command=("-c", LIMITED), env=environment)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    line = err.strip().splitlines()[-1]
    assert line.startswith(f"train.py: error: cannot write {tmp_path / 'full'}: ")
    assert line.endswith("what was written before is whole")
    assert np.isfinite(stored(tmp_path / "full").train_loss).any()
    resume(tmp_path / "full", config_of(tmp_path / "full"), quiet())
    assert np.isfinite(stored(tmp_path / "full").test_loss).all()


# Of root the system asks no permission, unless it has given that up.
OBEDIENT = """
import ctypes, os, sys
if os.geteuid() == 0:
    drop, override, search = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for capability in (override, search):
        assert ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "train.py", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="permissions are given up in another way elsewhere")
def test_a_read_only_directory(tmp_path):
    finished = run(small(tmp_path, "x", learning_rates=(0.02,)), quiet())
    before = files(tmp_path)
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    modes = [path.stat().st_mode for path in folders]
    for path in folders:
        path.chmod(0o555)
    try:
        there = train(config_of(finished), "--resume", str(finished), "--steps", "20", command=("-c", OBEDIENT))
        _, err = there.communicate(timeout=120)
        assert there.returncode == 3, err
        assert err == f"train.py: error: cannot write {finished}: Permission denied; what was written before is whole\n"
        new = train(small(tmp_path, "y"), command=("-c", OBEDIENT))
        _, err = new.communicate(timeout=120)
        assert new.returncode == 2
        assert err == f"train.py: error: cannot make {tmp_path / 'y'}: Permission denied\n"
    finally:
        for path, mode in zip(folders, modes, strict=True):
            path.chmod(mode)
    assert files(tmp_path) == before


def killed_again_and_again(out, kills, seed):
    """Kills a run and those that go on with it at random instants, so often, then lets it end; returns its folder."""
    rng = random.Random(seed)
    config = small(out, f"killed-{seed}", steps=400, probe_steps=(5, 50, 100, 150, 200, 250, 300, 350))
    directory, done = out / f"killed-{seed}", 0
    while True:
        arguments = ("--resume", str(directory), "--no-report") if directory.exists() else ()
        process = train(config, *arguments)
        while not directory.exists() and process.poll() is None:
            time.sleep(0.01)
        if done < kills:
            time.sleep(rng.uniform(0, 6))
        if done == kills or process.poll() is not None:
            _, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            return directory, done
        process.kill()
        process.communicate()
        done += 1
        stored(directory)  # it opens


def check_kills(out, kills, seed):
    directory, done = killed_again_and_again(out, kills, seed)
    whole = run(dataclasses.replace(config_of(directory), name=f"whole-{seed}"), quiet())
    assert_the_same_bits(directory, whole)
    return done


@pytest.mark.slow
def test_kill_9_at_random_instants(tmp_path):
    """Two kills; `python -m tests.sweep.test_survival 20` does twenty."""
    assert check_kills(tmp_path, 2, 0) >= 1


def test_a_member_that_diverges_is_measured_no_more(reference):
    results = stored(reference)
    for norm in ("none", "batch"):
        members = results.isel(member=(results.norm.values == norm) & (results.learning_rate.values > 1))
        lost = members.isel(member=np.isfinite(members.diverged_step.values))
        assert set(lost.diverged_cause.values) <= {"training loss", "update", "test loss"}
        for member in range(lost.sizes["member"]):
            one = lost.isel(member=member)
            step = int(one.diverged_step)
            assert np.isfinite(one.train_loss[:step]).all()
            assert np.isnan(one.train_loss[step + 1 :]).all()
            later = one.isel(probe_step=one.probe_step.values >= step)
            assert np.isnan(later.output_gradient).all()
            assert np.isnan(later.test_accuracy).all()
    assert set(results.diverged_cause.values[np.isnan(results.diverged_step.values)]) == {""}


def test_a_run_whose_members_all_diverged_ends_early(tmp_path):
    console = quiet()
    config = small(tmp_path, "lost", learning_rates=(1e30,), norms=("none",), activation="linear", steps=1000)
    directory = run(config, console)
    assert "every member diverged by step 5; stopped there" in console.file.getvalue()
    assert np.isfinite(stored(directory).diverged_step).all()
    assert np.isnan(stored(directory).train_loss.isel(step=slice(6, None))).all()


def test_the_last_checkpoints_are_kept(tmp_path):
    state = {"a": jax.numpy.arange(4.0), "b": jax.numpy.ones((2, 3))}
    with Checkpoints(tmp_path, "p", 2) as checkpoints:
        for step in (1, 5, 9):
            checkpoints.save(step, jax.tree.map(lambda leaf, s=step: leaf + s, state), measured=step == 9)
        checkpoints.wait()
        assert not checkpoints.is_done(10)
        assert checkpoints.is_done(9)
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        said: list[str] = []
        found = checkpoints.restore(like, said.append)
        assert found is not None
        arrays, step, measured = found
        assert (step, measured, said) == (9, True, [])
        np.testing.assert_array_equal(arrays["a"], np.arange(4.0) + 9)
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "p").iterdir()) == ["5", "9"]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        print(check_kills(Path(folder), int(sys.argv[1]), 1), "kills, the same bits")
