"""LoRA (arXiv 2106.09685): matrices W stay as they are; beside each an adapter is trained, two narrow matrices A and B
of rank r, and what computes is W + alpha / r * B A. `--lora RANK`; PEFT has its layers and files (pip install peft).

    python train_virl.py gpu24 --model Qwen/Qwen3-VL-2B-Instruct --data pool.parquet --out runs/virl
    python lora.py runs/virl --merge runs/whole       # the base with the products added, an ordinary folder

The base is in bf16 on a GPU, which computes in that anyway; A and B are fp32, and alone have gradients and moments. The
sampler decodes with plain matrices: those with a product are copied, with it, before each rollout (`refill` of
rollout.py), all others are shared. Policy.load adds an adapter to its base, for eval.py and answer.py; a run with
--lora that starts from an adapter goes on training it.
"""

import environment  # noqa: F401

import importlib.util
import json
import os
import re
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
import tyro
from safetensors import SafetensorError
from torch import nn

import releases
from checkpoint import latest_checkpoint
from model import Policy
from processes import full_tensor, rank_and_size

TOWERS = {"": r"model\.language_model\.layers", "visual.": r"model\.visual\.blocks"}


class LoraPolicy(Policy):
    """A frozen base with an adapter. `adapter` is PEFT's model around `hf`, some of whose layers it has replaced."""

    @classmethod
    def of(cls, path: str | Path, config) -> "LoraPolicy":
        """A new adapter of the model at `path`, or the adapter that lies there, on the base that `config.model` names.
        Raises ValueError, in one sentence, where settings and folders do not fit one another."""
        peft, folder, start = load_peft(), releases.find_folder(path), releases.find_folder(config.model)
        base = base_of(start) if releases.is_adapter(start) else config.model
        gpu = str(config.device).startswith("cuda")
        policy = cls.load(base, config.device, torch.bfloat16 if gpu else torch.float32)
        merge = f"or merge it first: python lora.py {start} --merge FOLDER"
        if releases.is_adapter(folder):
            adapter = attached(policy.hf, folder, base)
            if (rank := adapter.peft_config["default"].r) != config.lora:
                raise ValueError(f"The adapter in {folder} has rank {rank}: give --lora {rank}, {merge}.")
            if releases.is_adapter(start) and getattr(config, "kl", 0):
                raise ValueError(f"--kl would be to {base}, not to what the run starts from: leave it out, {merge}.")
        else:
            path = str(Path(base).absolute()) if Path(base).is_dir() else str(base)
            settings = {"target_modules": pattern(policy.hf, config.lora_targets), "base_model_name_or_path": path}
            settings |= {"r": config.lora, "lora_alpha": config.lora_alpha or 2 * config.lora}
            adapter = peft.get_peft_model(policy.hf, peft.LoraConfig(**settings))
        trained = [name for name, p in policy.named_parameters() if p.requires_grad]
        if not all(re.search(r"\.lora_[AB]\.default\.weight$", name) for name in trained):
            raise ValueError(
                f"The adapter in {folder} is more than products of two matrices: it cannot go on, {merge}."
            )
        if config.freeze == "vision" and any("visual" in name for name in trained):
            raise ValueError("--lora-targets has matrices of the vision tower, which --freeze vision leaves as it is.")
        policy.__dict__["adapter"] = adapter  # not as a module, which would have all weights twice
        policy.save_dtype = policy.hf.dtype  # the adapter's files have all of its bits
        return policy

    @property
    def products(self) -> dict[torch.Tensor, partial]:
        """Base matrix -> what gives the product that the adapter adds to it now."""
        layers = [module for module in self.hf.modules() if hasattr(module, "get_delta_weight")]
        return {layer.base_layer.weight: partial(layer.get_delta_weight, "default") for layer in layers}

    def without_adapter(self, row, temperature: float = 1.0) -> torch.Tensor:
        """`forward` of the base alone, the KL's reference. (PEFT's disable_adapter would switch gradients off, between
        the forward pass of a step and its backward pass.)"""
        with importlib.import_module("peft.helpers").rescale_adapter_scale(self.hf, 0.0):
            return self(row, temperature)

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """As Policy.whole_weights, of the adapter."""
        whole = {name: full_tensor(p.detach()) for name, p in self.hf.named_parameters() if "lora_" in name}
        return {name: weight.cpu() for name, weight in whole.items()} if rank_and_size()[0] == 0 else {}

    def save(self, folder: str | Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """The adapter alone, as PeftModel.from_pretrained opens it."""
        weights = self.whole_weights() if weights is None else weights
        if rank_and_size()[0] == 0:
            named = {f"base_model.model.{name}": weight for name, weight in weights.items()}
            self.adapter.save_pretrained(folder, state_dict=named, save_embedding_layers=False)


def load_peft():
    if importlib.util.find_spec("peft") is None:
        raise ValueError("LoRA needs PEFT, which is not installed here: pip install peft.")
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # which PEFT asks for
    return importlib.import_module("peft")


def pattern(hf, targets: tuple[str, ...] = ()) -> str:
    """The regular expression of the names of the layers' matrices that `targets` names, () all of the language model.
    Raises ValueError for a name that none has."""
    linear = [name for name, module in hf.named_modules() if isinstance(module, nn.Linear)]
    known = {tower: [name.split(".")[-1] for name in linear if re.match(TOWERS[tower], name)] for tower in TOWERS}
    names = list(dict.fromkeys(tower + name for tower in TOWERS for name in known[tower]))
    if unknown := set(targets) - set(names):
        raise ValueError(f"--lora-targets {min(unknown)} is no matrix of the layers; they have {', '.join(names)}.")
    chosen = {
        tower: [n for n in dict.fromkeys(known[tower]) if tower + n in (targets or known[""])] for tower in TOWERS
    }
    return "|".join(rf"{TOWERS[tower]}\..*\.({'|'.join(own)})" for tower, own in chosen.items() if own)


def base_of(folder: Path) -> str:
    """The folder or hub name of an adapter's base. Raises ValueError where it names none, or none that is there."""
    file = folder / releases.ADAPTER[0]
    base = releases.readable(file, "it", json.loads, file.read_bytes()).get("base_model_name_or_path")
    remedy = f"write its base's folder or hub name into base_model_name_or_path of {file}"
    if not base:
        raise ValueError(f"{folder} is an adapter that names no base; {remedy}.")
    try:
        releases.find_folder(base)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is an adapter of {base}, which is not there; {remedy}.") from error
    return base


def attached(hf, folder: Path, base: str | Path, trainable: bool = True):
    """PEFT's model of `hf` with the adapter in `folder`. Raises ValueError where it is damaged, or another model's."""
    peft, what = load_peft(), f"The adapter in {folder} does not fit {base}"
    try:
        adapter = peft.PeftModel.from_pretrained(hf, folder, is_trainable=trainable, torch_device=str(hf.device))
        saved = peft.utils.load_peft_weights(folder, device="cpu")
    except Exception as error:  # of json, safetensors, torch and PEFT
        why = "its matrices have other shapes" if "size mismatch" in str(error) else releases.first_line(error)
        raise ValueError(f"{what} ({why}); give the model that it was trained on.") from error
    if len(saved) != len(peft.get_peft_model_state_dict(adapter, save_embedding_layers=False)):
        raise ValueError(f"{what} (it has other layers); give the model that it was trained on.")
    return adapter


def merged(folder: Path, device="cpu", dtype=torch.float32) -> Policy:
    """An adapter's base with the products added: an ordinary policy."""
    load_peft()  # before it takes time
    base = base_of(folder)
    policy = Policy.load(base, device, dtype)
    policy.hf = attached(policy.hf, folder, base, trainable=False).merge_and_unload().requires_grad_(True)
    return policy


def write_merged(adapter: tyro.conf.Positional[Path], merge: Path) -> None:
    """Add an adapter to its base, and write the whole model as an ordinary folder.

    Args:
        adapter: Folder of an adapter, or of a run, whose newest checkpoint is taken.
        merge: Folder to write.
    """
    folder, unfinished = latest_checkpoint(adapter) or adapter, merge.with_name(f".{merge.name}.tmp")
    if not releases.is_adapter(folder):
        raise ValueError(f"{folder} holds no adapter; a run with --lora makes them.")
    if merge.exists():
        raise ValueError(f"--merge {merge} is there already; give another folder.")
    try:
        merged(folder).save(unfinished)
        os.replace(unfinished, merge)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise OSError(f"{merge} could not be written ({error}).") from error
    print(f"{merge} holds {base_of(folder)} with {folder} added to it.")


if __name__ == "__main__":
    try:
        tyro.cli(write_merged)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"lora.py: {error}")
