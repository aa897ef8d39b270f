"""Runs handled as people handle them: settings that cannot work, --resume with other flags, checkpoints copied, damaged
or moved, Ctrl-C, what was saved by older versions."""

import environment

import dataclasses
import errno
import importlib.machinery
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_samples
from forks import Forked
from safetensors import SafetensorError
from safetensors.torch import save_file
from test_train import metrics

import checkpoint
import damage
import run
import train_sft
import train_virl
from run import Run, parse_config
from synth import write_parquet

ROOT = Path(__file__).parent.parent
STAGES = {"train_sft.py": train_sft, "train_virl.py": train_virl}
SFT = ["--batch-size", "2", "--refine", "0", "--save-every", "1"]
VIRL = ["--prompts", "2", "--group", "2", "--max-new-tokens", "8", "--save-every", "1"]
SMALL = {"train_sft.py": SFT, "train_virl.py": VIRL}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Eight svg pairs as a parquet file."""
    code = '<svg viewBox="0 0 9 9"><rect width="{}" height="3" fill="red"/></svg>'
    samples = [dataclasses.replace(sample, code=code.format(i)) for i, sample in enumerate(make_samples() * 3)]
    path = tmp_path_factory.mktemp("pairs") / "train.parquet"
    write_parquet(samples[:8], path)
    return path


def made_run(folder: Path, stage, step: int = 4, **changed) -> Path:
    """The folder of a run that stopped after `step` steps, a model without weights; 0: before the first checkpoint."""
    if step:
        newest = folder / "checkpoints" / f"step-{step:06d}"
        newest.mkdir(parents=True)
        (newest / "config.json").write_text("{}")
        save_file({}, newest / "model.safetensors")
        torch.save({}, newest / "trainer.pt")
    config = dataclasses.replace(stage.PRESETS["tiny"][1], model="m", data="d", out=str(folder), steps=8)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(dataclasses.replace(config, **changed))))
    return folder


def resumed(stage, folder: Path, *flags):
    return parse_config(stage.PRESETS, ["tiny", "--out", str(folder), "--resume", *map(str, flags)])


# ------------------------------------------------------------------------------------------------------------- settings
CANNOT_WORK = [  # flags of either stage, and what is said
    ("both", "--steps 0", "--steps 0 has to be at least 1"),
    ("both", "--steps -5", "--steps -5 has to be"),
    ("both", "--save-every 0", "--save-every 0 has to be at least 1"),
    ("both", "--keep -1", "--keep -1 must not be negative"),
    ("both", "--row-tokens 0", "--row-tokens 0 has to be at least 1"),
    ("both", "--warmup -1", "--warmup -1 must not be negative"),
    ("both", "--lr 0", "--lr 0.0 has to be above 0"),
    ("both", "--lr nan", "--lr nan has to be above 0"),
    ("both", "--lr inf", "--lr inf has to be above 0"),
    ("both", "--grad-clip 0", "--grad-clip 0.0 has to be above 0; inf clips nothing"),
    ("both", "--weight-decay -0.1", "--weight-decay -0.1 has to be 0 or more"),
    ("both", "--seed -1", "--seed -1 has to lie"),
    ("both", "--device tpu", "--device tpu is neither cpu nor cuda"),
    ("both", "--model= --data=", "--model is missing; `--help` says what it takes; --data is missing"),
    ("both", "--out=", "--out is missing"),
    ("train_virl.py", "--encoder=", "--encoder is missing"),
    ("train_sft.py", "--batch-size 0", "--batch-size 0 has to be"),
    ("train_sft.py", "--max-tokens -1", "--max-tokens -1 has to be"),
    ("train_sft.py", "--refine 1.5", "--refine 1.5 has to lie between 0 and 1"),
    ("train_sft.py", "--refine -0.1", "--refine -0.1 has to lie between 0 and 1"),
    ("train_virl.py", "--group 1", "--group 1 has to be at least 2"),
    ("train_virl.py", "--temperature 0", "--temperature 0.0 has to be above 0"),
    ("train_virl.py", "--prompts 0", "--prompts 0 has to be"),
    ("train_virl.py", "--slots 0", "--slots 0 has to be"),
    ("train_virl.py", "--max-new-tokens 0", "--max-new-tokens 0 has to be"),
    ("train_virl.py", "--max-prompt-tokens 0", "--max-prompt-tokens 0 has to be"),
    ("train_virl.py", "--minibatches 0", "--minibatches 0 has to be"),
    ("train_virl.py", "--minibatches 33", "--minibatches 33 are more than the pictures of a process, 32"),
    ("train_virl.py", "--loss gspo", "--loss gspo wants several --minibatches"),
    ("train_virl.py", "--loss cispo", "--loss cispo wants several --minibatches"),
    ("train_virl.py", "--importance-cap 2 --minibatches 4", "--importance-cap does nothing"),
    ("train_virl.py", "--importance-cap 0.5", "--importance-cap 0.5 has to be at least 1, or 0"),
    ("train_virl.py", "--clip-low -0.1", "--clip-low -0.1 has to lie between 0 and 1"),
    ("train_virl.py", "--clip-low 1.1", "--clip-low 1.1 has to lie between 0 and 1"),
    ("train_virl.py", "--clip-high -1", "--clip-high -1.0 must not be negative"),
    ("train_virl.py", "--dual-clip 1", "--dual-clip 1.0 has to be above 1, or 0"),
    ("train_virl.py", "--kl -1", "--kl -1.0 has to be 0 or more"),
    ("train_virl.py", "--alignment-weight 2", "--alignment-weight 2.0 has to lie between 0 and 1"),
    ("train_virl.py", "--render-workers 0", "--render-workers 0 has to be"),
    ("train_virl.py", "--render-timeout 0", "--render-timeout 0.0 has to be above 0"),
    ("train_virl.py", "--render-python no-such", "--render-python no-such is no program"),
    ("train_virl.py", "--svg-side 0", "--svg-side 0 has to be"),
    ("train_virl.py", "--group 1 --temperature 0", "of its group; --temperature 0.0 has"),
]


@pytest.mark.parametrize(("name", "flags", "said"), CANNOT_WORK, ids=[flags for _, flags, _ in CANNOT_WORK])
def test_settings_that_cannot_work_are_refused_before_anything_is_loaded(name, flags, said, tmp_path):
    for stage in STAGES if name == "both" else [name]:
        arguments = ["tiny", "--model", "m", "--data", "d", "--out", str(tmp_path / "run"), *flags.split()]
        with pytest.raises(ValueError, match=re.escape(said)):
            STAGES[stage].main(arguments)  # neither the model nor the data exists
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", STAGES)
def test_every_number_among_the_settings_has_a_rule(name):
    ruled = {field for names, _, _ in [*run.COMMON_RULES, *STAGES[name].Config.rules] for field in names}
    for field in dataclasses.fields(STAGES[name].Config):
        assert field.name in ruled or field.type not in (int, float, int | None), field.name


def test_presets_and_the_readmes_variants_can_work(tmp_path):
    table = (ROOT / "README.md").read_text()
    variants = re.findall(r"^\| [^|]+ \| `(--[^`]+)` \| [^|]+ \|$", table, re.M)
    assert len(variants) >= 7
    for stage in STAGES.values():
        for preset in stage.PRESETS:
            for flags in variants if stage is train_virl else [""]:
                arguments = [preset, "--model", "m", "--data", "d", "--out", str(tmp_path), *flags.split()]
                assert parse_config(stage.PRESETS, arguments).model == "m"
    free = ["--grad-clip", "inf", "--clip-high", "inf", "--dual-clip", "inf", "--keep", "0"]
    parse_config(train_virl.PRESETS, ["tiny", "--model", "m", "--data", "d", "--out", str(tmp_path), *free])


def test_each_process_needs_its_share(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    given = ["tiny", "--model", "m", "--data", "d", "--out", str(tmp_path)]
    for stage, flags in ((train_sft, ["--batch-size", "3"]), (train_virl, ["--prompts", "3"])):
        with pytest.raises(ValueError, match="3 leaves some of 4 processes without work"):
            parse_config(stage.PRESETS, [*given, *flags])
    with pytest.raises(ValueError, match="more than the pictures of a process, 2"):
        parse_config(train_virl.PRESETS, [*given, "--prompts", "8", "--minibatches", "3"])


def test_a_logger_that_is_not_installed(monkeypatch, tmp_path):
    """A folder wandb/, as it leaves where it ran, is not the package."""
    (tmp_path / "wandb").mkdir()
    found = importlib.util.find_spec
    nothing = lambda name: None if name in ("tensorboard", "wandb") else found(name)  # noqa: E731
    folder = lambda name: importlib.machinery.PathFinder.find_spec(name, [str(tmp_path)])  # noqa: E731
    for name, finder in (("tensorboard", nothing), ("wandb", nothing), ("wandb", folder)):
        monkeypatch.setattr(importlib.util, "find_spec", finder)
        with pytest.raises(ValueError, match=f"--log-to {name} is not installed here: pip install it, or use files"):
            train_sft.main(["tiny", "--model", "m", "--data", "d", "--out", str(tmp_path / "run"), "--log-to", name])
    assert not (tmp_path / "run").exists()


def test_a_warm_up_longer_than_the_run_is_said(tmp_path, capsys):
    given = ["tiny", "--model", "m", "--data", "d", "--out", str(tmp_path), "--steps", "6"]
    assert parse_config(train_sft.PRESETS, given).warmup == 20
    assert "--warmup 20 is longer than the run of 6 steps" in capsys.readouterr().out


def test_logged_numbers_keep_their_significant_digits(tmp_path):
    run = Run(train_sft.Config(out=str(tmp_path)))
    run.log({"step": 0, "lr": 5e-7, "loss": 1.23456789, "small": 1.23456789e-12, "tokens": 123456789, "zero": 0.0})
    assert metrics(tmp_path) == [
        {"step": 0, "lr": 5e-7, "loss": 1.23457, "small": 1.23457e-12, "tokens": 123456789, "zero": 0.0}
    ]
    counted = train_virl.training_metrics(
        {"trained_tokens": 20_000_001.0, "mismatch_max": 0.0} | dict.fromkeys(("loss", "clipped", "mismatch"), 0.0),
        [1.0],
    )
    assert repr(counted["trained_tokens"]) == "20000001", "a count is not rounded"


# --------------------------------------------------------------------------------------------------------------- resume
@pytest.mark.parametrize("name", STAGES)
def test_flags_typed_on_resume_override_what_was_saved_and_are_named(name, tmp_path, capsys):
    stage = STAGES[name]
    folder = made_run(tmp_path / "run", stage, lr=1e-3, data="d/", save_every=3)
    before = (folder / "config.json").read_text()
    config = resumed(stage, folder, "--lr", 5e-7, "--save-every", 3, "--steps", 20, "--gradient-checkpointing")
    assert (config.lr, config.steps, config.gradient_checkpointing, config.save_every) == (5e-7, 20, True, 3)
    assert (config.data, config.warmup, config.resume) == ("d/", stage.PRESETS["tiny"][1].warmup, True)
    said = capsys.readouterr().out
    assert "--lr 5e-07 (was 0.001)" in said and "--steps 20 (was 8)" in said
    assert "--gradient-checkpointing True (was False)" in said and "save-every" not in said
    assert (folder / "config.json").read_text() == before, "nothing is written before everything is loaded"
    config = parse_config(stage.PRESETS, ["gpu1", "--out", str(folder), "--resume"])
    assert (config.lr, config.device) == (1e-3, "cpu"), "a preset changes nothing"
    assert capsys.readouterr().out.count("was") == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "other"], "--model other cannot change this run (m): the weights are in the run's checkpoints"),
        (["--optimizer", "adamw"], "--optimizer adamw cannot change this run (muon): the checkpoint holds the state"),
        (["--freeze", "vision"], "--freeze vision cannot change this run (nothing): the checkpoint holds"),
        (["--steps", 3], "step-000004 has taken 4 already"),
        (["--save-every", 0], "--save-every 0 has to be at least 1"),
    ],
)
def test_what_cannot_change_a_run_in_progress_is_refused(flags, said, tmp_path):
    folder = made_run(tmp_path / "run", train_sft)
    with pytest.raises(ValueError, match=re.escape(said)):
        resumed(train_sft, folder, *flags)
    if flags[0] in ("--model", "--optimizer", "--freeze"):  # before the first checkpoint nothing is decided
        fresh = made_run(tmp_path / "fresh", train_sft, step=0)
        assert str(getattr(resumed(train_sft, fresh, *flags), flags[0][2:])) == flags[1]
    assert resumed(train_sft, folder, "--model", "m/").steps == 8, "a slash is no other folder"


def test_a_run_that_is_done_says_so_and_more_steps_go_on(tmp_path, capsys):
    folder = made_run(tmp_path / "run", train_virl, step=8)
    with pytest.raises(SystemExit) as end:
        resumed(train_virl, folder)
    assert not end.value.code and "All 8 steps are done" in capsys.readouterr().out
    assert resumed(train_virl, folder, "--steps", 9).steps == 9


def test_what_older_versions_saved_gets_the_new_defaults(tmp_path):
    folder = made_run(tmp_path / "run", train_virl, lr=1e-3)
    saved = json.loads((folder / "config.json").read_text())
    assert saved.pop("keep")
    (folder / "config.json").write_text(json.dumps(saved))
    config = resumed(train_virl, folder)
    assert (config.keep, config.lr) == (train_virl.Config().keep, 1e-3)


def test_a_configuration_that_cannot_be_read_gets_one_sentence(tmp_path, capsys):
    folder = made_run(tmp_path / "run", train_sft)
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    for text, said in (
        (path.read_text()[:200], "is not whole"),
        ("", "is not whole"),
        ("[1]", "not a configuration"),
        (json.dumps(saved | {"learning_rate": 1}), "a setting 'learning_rate' that is not known here"),
        (json.dumps(saved | {"steps": "8"}), "'steps' cannot be '8'"),
        (json.dumps(saved | {"steps": True}), "'steps' cannot be True"),
        (json.dumps(saved | {"optimizer": "adam"}), "'optimizer' cannot be 'adam'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=re.escape(f"{path}")) as raised:
            resumed(train_sft, folder)
        assert said in str(raised.value) and "\n" not in str(raised.value)
    path.unlink()
    capsys.readouterr()
    assert resumed(train_sft, folder, "--model", "m", "--data", "d", "--lr", 0.5).lr == 0.5
    assert "config.json is gone: the run goes on with this preset and these flags" in capsys.readouterr().out


@pytest.mark.parametrize("name", STAGES)
def test_a_run_of_the_other_stage_is_not_resumed(name, script, tmp_path):
    (other,) = STAGES.keys() - {name}
    folder = made_run(tmp_path / "run", STAGES[other])
    status, printed = script(name, "tiny", "--out", folder, "--resume")
    assert (
        status == 1
        and printed == f"{name}: {folder} holds a run of {other}: resume it with that, or give another --out."
    )


@pytest.mark.parametrize("name", STAGES)
def test_a_run_goes_on_with_other_flags_beyond_its_end(name, qwen3_folder, pairs, tmp_path):
    """What is saved afterwards are the new settings; a resume that fails leaves the old ones."""
    stage, out = STAGES[name], tmp_path / "run"
    given = ["tiny", "--model", str(qwen3_folder), "--data", str(pairs), "--out", str(out), *SMALL[name]]
    stage.main([*given, "--steps", "2", "--warmup", "0", "--optimizer", "adamw"])
    saved = (out / "config.json").read_text()
    with pytest.raises(FileNotFoundError):
        stage.main(["tiny", "--out", str(out), "--resume", "--data", str(tmp_path / "no.parquet"), "--steps", "3"])
    assert (out / "config.json").read_text() == saved
    stage.main(["tiny", "--out", str(out), "--resume", "--lr", "5e-7", "--steps", "3", "--weight-decay", "0.25"])
    rows = metrics(out)
    assert [row["step"] for row in rows] == [0, 1, 2] and 0 < rows[2]["lr"] <= 5e-7 < rows[1]["lr"]
    assert json.loads((out / "config.json").read_text())["weight_decay"] == 0.25
    optimizers = torch.load(out / "checkpoints/step-000003/trainer.pt")["optimizers"]
    decays = {group["weight_decay"] for optimizer in optimizers for group in optimizer["param_groups"]}
    assert decays == {0.25, 0.0}, "the checkpoint's own was 0.01"


# ---------------------------------------------------------------------------------------------------------- checkpoints
COPIES = ["step-best", "step-000600-good", "step-000600.bak", "step-600", "step-0000600", "step-²", "step-", "best"]


def test_copies_neither_serve_as_checkpoints_nor_go(qwen3_folder, tmp_path):
    folder = tmp_path / "checkpoints"
    for name in COPIES:
        (folder / name).mkdir(parents=True)
        (folder / name / "kept").write_text(name)
    (folder / "step-000700").write_text("a file")
    assert checkpoint.latest_checkpoint(tmp_path) is None
    policy = train_sft.Policy.load(qwen3_folder)
    for step in (1, 2, 3, 1_000_000):
        checkpoint.save_checkpoint(tmp_path, step, policy, [], {}, keep=2)
    own = ["step-000003", "step-1000000"]
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == own
    assert checkpoint.latest_checkpoint(tmp_path).name == "step-1000000", "the larger number, not the later name"
    assert {path.name for path in folder.iterdir()} == {*COPIES, *own, "step-000700"}
    assert all((folder / name / "kept").read_text() == name for name in COPIES)


def test_how_many_checkpoints_stay(qwen3_folder, tmp_path):
    """The paper's preset: after a collapse at step 120 of 164 something older is left."""
    policy, config = train_sft.Policy.load(qwen3_folder), train_virl.PRESETS["paper"][1]
    left = lambda run: [checkpoint.step_of(path) for path in checkpoint.checkpoints(run)]  # noqa: E731
    steps = [step for step in range(1, config.steps + 1) if step % config.save_every == 0 or step == config.steps]
    for step in steps:
        for name, keep in (("default", config.keep), ("one", 1), ("all", 0)):
            checkpoint.save_checkpoint(tmp_path / name, step, policy, [], {}, keep)
    assert left(tmp_path / "default") == [100, 120, 140, 160, 164]
    assert left(tmp_path / "one") == [164] and left(tmp_path / "all") == steps


def test_a_checkpoint_moved_to_another_disk_is_left_alone(qwen3_folder, tmp_path):
    policy = train_sft.Policy.load(qwen3_folder)
    first = checkpoint.save_checkpoint(tmp_path, 1, policy, [], {}, keep=1)
    moved = shutil.move(first, tmp_path / "elsewhere")
    first.symlink_to(moved, target_is_directory=True)
    assert damage.checkpoint_to_resume(tmp_path) == first
    checkpoint.save_checkpoint(tmp_path, 2, policy, [], {}, keep=1)
    assert first.is_symlink() and (first / "trainer.pt").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("file", ["trainer.pt", "model.safetensors", "config.json"])
@pytest.mark.parametrize("harm", [cut, empty, Path.unlink])
def test_a_damaged_checkpoint_says_which_older_one_serves(file, harm, qwen3_folder, tmp_path):
    policy, tmp_path = train_sft.Policy.load(qwen3_folder), tmp_path / "a run"
    first, second, third = (checkpoint.save_checkpoint(tmp_path, step, policy, [], {}) for step in (1, 2, 3))
    assert damage.checkpoint_to_resume(tmp_path) == third and damage.damage(third) is None
    for path in (third, second):
        harm(path / file)
    with pytest.raises(OSError, match=f"step-000003 is damaged .*{file}.*step-000001 is whole") as raised:
        damage.checkpoint_to_resume(tmp_path)
    assert "\n" not in str(raised.value)
    command = str(raised.value).split("to go on from there, --resume after: ")[1]
    subprocess.run(command, shell=True, check=True)
    assert damage.checkpoint_to_resume(tmp_path) == first and len(list(first.parent.iterdir())) == 3
    harm(first / file)
    with pytest.raises(OSError, match="No older one is whole: start again"):
        damage.checkpoint_to_resume(tmp_path)


@pytest.mark.parametrize("name", STAGES)
def test_a_damaged_checkpoint_ends_a_resume_before_anything_is_loaded(name, script, tmp_path):
    """Also that of the last step: the run is not done with it."""
    folder = made_run(tmp_path / "run", STAGES[name], step=8)
    (folder / "checkpoints/step-000008/model.safetensors").write_bytes(b"")
    status, printed = script(name, "tiny", "--out", folder, "--resume")
    assert (
        status == 1 and "step-000008 is damaged (model.safetensors: " in printed and "No older one is whole" in printed
    )


def test_a_shard_that_is_missing_is_damage(qwen3_folder, tmp_path):
    policy = train_sft.Policy.load(qwen3_folder)
    folder = checkpoint.save_checkpoint(tmp_path, 1, policy, [], {})
    policy.hf.save_pretrained(folder, max_shard_size="2MB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert damage.damage(folder) is None
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert damage.damage(folder).startswith(shard.name)


NOT_WRITTEN = [  # what a save raises, and whether disk space would help
    (OSError(errno.ENOSPC, "No space left on device", "a"), True),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "a"), True),
    (SafetensorError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"), True),
    (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), True),
    (PermissionError(errno.EACCES, "Permission denied", "a"), False),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), False),
    (RuntimeError("Connection closed by peer"), False),
]


@pytest.mark.parametrize(("error", "full"), NOT_WRITTEN, ids=[str(error)[:40] for error, _ in NOT_WRITTEN])
def test_disk_space_is_spoken_of_where_it_lacks(error, full, tmp_path):
    class Policy:
        def whole_weights(self):
            raise error

    with pytest.raises(OSError, match=re.escape(f"step-000001 could not be written ({error}). ")) as raised:
        checkpoint.save_checkpoint(tmp_path, 1, Policy(), [], {})
    end = "Free some disk space; older ones are intact." if full else "). Older ones are intact."
    assert str(raised.value).endswith(end) and not list((tmp_path / "checkpoints").iterdir())


def test_a_run_has_to_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(OSError, match=rf"^--out {out} cannot be a folder \(.*\); give another.$"):
            Run(train_sft.Config(out=str(out)))


# --------------------------------------------------------------------------------------------------------------- Ctrl-C
def interrupted(name: str, arguments: list, ready: Path, processes: int = 1) -> list[subprocess.CompletedProcess]:
    """The script in some processes, as torchrun starts them, after a Ctrl-C once `ready` exists. It has more steps than
    it will take. (torchrun itself kills what does not end within 30 s, which a busy machine takes.)"""
    command = list(map(str, [sys.executable, ROOT / name, *arguments, "--steps", 100_000]))
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes)) | {"GROUP_WORLD_SIZE": "1"}
    ranks = [{"RANK": str(number), "LOCAL_RANK": str(number)} | sizes | meeting for number in range(processes)]
    own = [os.environ | rank for rank in ranks] if processes > 1 else [dict(os.environ)]
    running = [subprocess.Popen(command, env=environment, **options) for environment in own]
    while not ready.exists():
        for process in running:
            assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    for process in running:
        os.killpg(process.pid, signal.SIGINT)
    printed = [process.communicate() for process in running]
    return [subprocess.CompletedProcess(command, p.returncode, *said) for p, said in zip(running, printed, strict=True)]


@pytest.mark.parametrize("name", STAGES)
def test_ctrl_c_ends_with_the_command_that_goes_on(name, qwen3_folder, pairs, tmp_path):
    out = tmp_path / "a run"
    arguments = ["tiny", "--model", qwen3_folder, "--data", pairs, "--out", out, *SMALL[name]]
    (ended,) = interrupted(name, arguments, out / "checkpoints/step-000001")
    assert ended.returncode == 130 and "Traceback" not in ended.stderr, ended.stderr[-3000:]
    last = ended.stderr.splitlines()[-1]
    newest = checkpoint.latest_checkpoint(out)
    assert last.startswith(f"{name}: stopped by Ctrl-C; {newest} is saved. To go on: ")
    command = shlex.split(last.split("To go on: ")[1])
    step = checkpoint.step_of(newest)
    command[command.index("--steps") + 1] = str(step + 1)
    assert command[0] == sys.executable
    went_on = Forked(command[1:], dict(os.environ), ROOT)
    printed = went_on.communicate()
    assert went_on.returncode == 0, printed
    assert [row["step"] for row in metrics(out)] == list(range(step + 1))


SLOW = "import time; print('importing', flush=True); time.sleep(3600)"


@pytest.mark.parametrize("name", ["train_sft.py", "train_virl.py", "eval.py", "model.py", "reward.py"])
def test_ctrl_c_while_a_script_imports_is_one_line(name, tmp_path):
    (tmp_path / "torch.py").write_text(SLOW)
    command, options = [sys.executable, ROOT / name, "--help"], dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    options |= dict(text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    running = subprocess.Popen(command, **options)
    assert running.stdout.readline() == "importing\n", running.communicate()[1][-3000:]
    running.send_signal(signal.SIGINT)
    _, printed = running.communicate()
    assert printed.strip() == f"{name}: stopped by Ctrl-C before anything began." and running.returncode == 130


def test_who_imports_these_modules_keeps_his_ctrl_c(tmp_path):
    """Also within a script of ours, once it runs."""
    own = "import signal, environment; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", own], cwd=ROOT, check=True)
    (tmp_path / "other.py").write_text(own)
    subprocess.run([sys.executable, tmp_path / "other.py"], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    with pytest.raises(KeyboardInterrupt):
        environment.interrupted(signal.SIGINT, sys._getframe())


def test_ctrl_c_before_the_first_checkpoint(qwen3_folder, pairs, tmp_path):
    arguments = ["tiny", "--model", qwen3_folder, "--data", pairs, "--out", tmp_path / "run", *SFT]
    arguments += ["--save-every", 100_000]
    (ended,) = interrupted("train_sft.py", arguments, tmp_path / "run/metrics.jsonl")
    assert ended.returncode == 130 and "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    again = shlex.split(last.split("nothing is saved yet. To start again: ")[1])
    assert again[1:] == list(map(str, [ROOT / "train_sft.py", *arguments, "--steps", 100_000]))


def test_ctrl_c_says_nothing_of_what_it_met_half_made(tmp_path):
    """As a progress bar is between two lines of its constructor: it complains when it is freed."""
    program = """if True:
        import run, train_sft

        class HalfMade:
            def __init__(self):
                raise KeyboardInterrupt

            def __del__(self):
                self.closed

        run.run_script(HalfMade, train_sft.PRESETS)"""
    command = [sys.executable, "-c", program, "tiny", "--out", str(tmp_path / "run")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 130 and ended.stderr.startswith("\n-c: stopped by Ctrl-C; nothing is saved yet."), ended


def test_ctrl_c_under_torchrun_is_said_once(qwen3_folder, pairs, tmp_path):
    out = tmp_path / "run"
    arguments = ["tiny", "--model", qwen3_folder, "--data", pairs, "--out", out, *SFT]
    first, second = interrupted("train_sft.py", arguments, out / "checkpoints/step-000001", processes=2)
    assert first.returncode == 130 and "Traceback" not in first.stderr, first.stderr[-3000:]
    assert "stopped by Ctrl-C" not in second.stderr
    command = shlex.split(first.stderr.split("To go on: ")[1].splitlines()[0])
    assert command[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "2"] and command[-1] == "--resume"


# -------------------------------------------------------------------------------------------------------------- threads
TORCH_IS_WANTED = """
import os, runpy, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("SPIN", os.environ.get("GOMP_SPINCOUNT"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Finder())
sys.argv = [sys.argv[1], "--help"]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SCRIPTS = [
    path
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("benchmarks/*.py")])
    if re.search(r"(?s)import tyro.*__main__", path.read_text())
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_says_how_threads_wait_before_torch_is_loaded(path):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    for own in ({}, {"GOMP_SPINCOUNT": "7"}):
        command = [sys.executable, "-c", TORCH_IS_WANTED, path]
        done = subprocess.run(command, env=environment | own, capture_output=True, text=True, cwd=ROOT)
        spin = re.search(r"SPIN (\w+)", done.stdout)
        assert done.returncode == 0, done.stderr[-1000:]
        if spin is None:  # it does without torch, or loads it later
            return
        assert spin[1] == own.get("GOMP_SPINCOUNT", "10000"), "the user's own stays"


def test_flat_groups_have_no_advantage_at_all():
    """Twelve equal rewards: their mean is off by rounding, which was divided by 1e-6."""
    rewards = np.array([[0.1] * 12, [0.7] * 12, [0.3] * 11 + [0.3 + 1e-10], [0.3] * 11 + [0.31]])
    for normalized in (True, False):
        advantages = train_virl.group_advantages(rewards, normalized)
        assert (np.abs(advantages).max(1) > 0).tolist() == [False, False, False, True]
