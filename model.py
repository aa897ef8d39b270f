"""A Qwen-VL policy: load or create it, place its tokens, pack its rows, ask it for log-probabilities, save it.

    python model.py create runs/tiny                      # a tiny Qwen3-VL with random weights, as an ordinary folder
    python model.py create runs/tiny25 --family qwen2_5_vl
    python model.py --memory Qwen3-VL-8B --gpus 8         # what lives where in each phase, and what fits

Any Qwen2.5-VL or Qwen3-VL checkpoint in Hugging Face format is used unchanged, and what is saved is one again
(releases.py). Two things are our own. M-RoPE positions are computed here and always passed explicitly: Hugging Face's
defaults need an extra input that Qwen2.5-VL silently does without, and keep state between calls. And training rows are
packed, `[prompt | response 1 | .. | response G]`: the prompt and its picture are paid for once per group, rows hold no
padding and attention leaks nothing from one sequence to another (kernels.packed_attention).

Axes: T tokens of a packed row, P prompt tokens, R response tokens, G responses of a prompt, V vocabulary.
"""

import environment  # noqa: F401

import atexit
import gc
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
import tyro
from tokenizers import Tokenizer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import AttentionInterface, AutoModelForImageTextToText, AutoTokenizer, GenerationConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil  # of both families

import releases
from kernels import packed_attention, token_logprobs

transformers.utils.logging.disable_progress_bar()
# its table of missing and unexpected weights; releases.check_loaded says it in a sentence
IS_REPORT = "VLForConditionalGeneration LOAD REPORT"
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: IS_REPORT not in record.getMessage())

# ---------------------------------------------------------------------------------------------------------------------
# prompts and positions


@dataclass
class Prompt:
    """A prompt with its picture, ready for the model. Response token j stands at position `next_position + j`."""

    sample_id: str
    ids: torch.Tensor  # (P,) int64
    positions: torch.Tensor  # (3, P) int64: time, height, width
    next_position: int
    patches: torch.Tensor  # (number of patches, channels * 2 * patch * patch)
    grid: torch.Tensor  # (pictures, 3) int64: frames, rows and columns of patches


def mrope_positions(ids: Sequence[int], grids: Sequence[tuple[int, int, int]], image_id: int, merge: int):
    """Multimodal rotary positions (Qwen2-VL, arXiv 2409.12191) -> positions (3, P) int64, the next free position.

    Text advances all three axes together; a picture spreads over rows and columns, and the text after it goes on from
    its longer side. `grids` are in patches; `merge` patches a side make one token.
    """
    pieces, start, at = [], 0, 0
    grids = iter(grids)
    while at < len(ids):
        if ids[at] == image_id:
            frames, height, width = next(grids)
            height, width = height // merge, width // merge
            axes = torch.meshgrid(torch.arange(frames), torch.arange(height), torch.arange(width), indexing="ij")
            pieces.append(torch.stack([axis.flatten() for axis in axes]) + start)
            start += max(height, width)
            at += frames * height * width
        else:
            end = at
            while end < len(ids) and ids[end] != image_id:
                end += 1
            pieces.append((torch.arange(end - at) + start).expand(3, -1))
            start += end - at
            at = end
    positions = torch.cat(pieces, 1)
    if positions.shape[1] != len(ids):
        raise ValueError(
            f"{len(ids)} prompt tokens but {positions.shape[1]} positions: a picture's tokens were cut off."
        )
    return positions, start


def rope_tables(positions: torch.Tensor, rotary: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin, each (T, D) float32, for positions (3, T). Frequencies and scaling are those of `rotary`, Hugging
    Face's module, which knows YaRN and its like. Qwen3-VL interleaves the three axes over the frequencies, Qwen2.5-VL
    gives each axis one section of them."""
    angles = positions[..., None].float() * rotary.inv_freq.float()  # (3, T, D / 2)
    section = rotary.mrope_section
    if rotary.config.model_type.startswith("qwen3"):
        mixed = angles[0].clone()
        for axis in (1, 2):
            mixed[:, axis : 3 * section[axis] : 3] = angles[axis, :, axis : 3 * section[axis] : 3]
    else:
        mixed = torch.cat([part[axis] for axis, part in enumerate(angles.split(section, -1))], -1)
    both = torch.cat([mixed, mixed], -1)
    return both.cos() * rotary.attention_scaling, both.sin() * rotary.attention_scaling


# ---------------------------------------------------------------------------------------------------------------------
# packed rows


@dataclass
class Spans:
    """Which positions of a packed row see which. Every sequence is one (start, end, prefix start, prefix end): position
    start + i sees the prefix, which may be empty, and start .. start + i. In row order, without gaps."""

    spans: list[tuple[int, int, int, int]]
    device: torch.device | str = "cpu"

    @cached_property
    def blocks(self) -> list["AttentionBlock"]:
        """Sequences of similar length padded into one call: the longest at most twice as long as the shortest."""
        kind_and_length = lambda span: (span[2] < span[3], span[1] - span[0])  # noqa: E731
        parts, shortest = [], (None, 0)
        for span in sorted(self.spans, key=kind_and_length):
            kind, length = kind_and_length(span)
            if kind != shortest[0] or length > 2 * shortest[1]:
                parts.append([])
                shortest = kind, length
            parts[-1].append(span)
        return [AttentionBlock.of(part).to(self.device) for part in parts]

    @cached_property
    def back(self) -> torch.Tensor:
        """(T,) where each position of the row is among the blocks' real queries, one block after the other."""
        return torch.cat([block.rows for block in self.blocks]).argsort()

    @cached_property
    def flash(self) -> tuple:
        """What flash attention wants: where queries and keys of a sequence end (S + 1,) int32, the longest of each, and
        which positions are keys, sequence after sequence; None where each sees only itself."""
        queries = [end - start for start, end, _, _ in self.spans]
        keys = [end - start + prefix_end - prefix for start, end, prefix, prefix_end in self.spans]
        ends = [torch.tensor([0, *accumulate(n)], dtype=torch.int32, device=self.device) for n in (queries, keys)]
        if queries == keys:
            return *ends, max(queries), max(keys), None
        parts = [torch.arange(*part) for start, end, *prefix in self.spans for part in (prefix, (start, end))]
        return *ends, max(queries), max(keys), torch.cat(parts).to(self.device)


@dataclass
class AttentionBlock:
    """S sequences of a packed row that are attended in one padded call. Padding repeats position 0 and is never read.

    queries  (S, Lq) int64   positions of the row that ask
    keys     (S, Lk) int64   positions of the row that may be looked at
    mask     (S, 1, Lq, Lk) bool, or None when queries and keys are the same sequence and attention is causal
    real     (n,) int64      which of the S * Lq queries are no padding
    rows     (n,) int64      the positions of the row they stand for
    """

    queries: torch.Tensor
    keys: torch.Tensor
    mask: torch.Tensor | None
    real: torch.Tensor
    rows: torch.Tensor

    @classmethod
    def of(cls, spans: list[tuple[int, int, int, int]]) -> "AttentionBlock":
        """All with a prefix, or all without."""
        own = [torch.arange(start, end) for start, end, _, _ in spans]
        lengths = torch.tensor([len(positions) for positions in own])
        queries = nn.utils.rnn.pad_sequence(own, batch_first=True)  # (S, Lq)
        places = torch.arange(queries.shape[1])
        real = (places < lengths[:, None]).flatten().nonzero()[:, 0]
        if all(prefix == end for _, _, prefix, end in spans):
            return cls(queries, queries, None, real, torch.cat(own))
        prefixes = [torch.arange(start, end) for _, _, start, end in spans]
        both = [torch.cat(parts) for parts in zip(prefixes, own, strict=True)]
        keys = nn.utils.rnn.pad_sequence(both, batch_first=True)  # (S, Lk)
        # query j sees the prefix and j + 1 of its own; padding queries see keys too, so no row is empty
        reach = torch.tensor([len(prefix) for prefix in prefixes])[:, None] + places + 1
        mask = torch.arange(keys.shape[1]) < reach[..., None]
        return cls(queries, keys, mask[:, None], real, torch.cat(own))

    def to(self, device) -> "AttentionBlock":
        return AttentionBlock(*(None if x is None else x.to(device) for x in vars(self).values()))


@dataclass
class PackedRow:
    """Groups `[prompt | r1 | .. | rG]` one after the other, without padding.

    source[i] is the position in the row whose hidden state predicts targets[i]: the prompt's last token for the first
    token of every response, the token before otherwise. owner[i] numbers the responses in the order they were given.
    """

    ids: torch.Tensor  # (T,) int64
    positions: torch.Tensor  # (3, T) int64
    patches: torch.Tensor
    grid: torch.Tensor
    spans: Spans
    source: torch.Tensor  # (sum of R,) int64
    targets: torch.Tensor  # (sum of R,) int64
    owner: torch.Tensor  # (sum of R,) int64

    def to(self, device) -> "PackedRow":
        tensors = {name: value.to(device) for name, value in vars(self).items() if torch.is_tensor(value)}
        return PackedRow(spans=Spans(self.spans.spans, device), **tensors)


def pack(groups: Sequence[tuple[Prompt, Sequence[Sequence[int]]]]) -> PackedRow:
    """Lay groups of one prompt and its responses (token ids, each at least one) into one row, on the CPU."""
    ids, positions, source, targets, owner, spans = [], [], [], [], [], []
    at = responses_seen = 0
    for prompt, responses in groups:
        P = len(prompt.ids)
        prefix = torch.arange(at, at + P)
        ids.append(prompt.ids)
        positions.append(prompt.positions)
        end = at + P
        alone = len(responses) == 1  # then prompt and response are one sequence
        if not alone:
            spans.append((at, end, at, at))
        for response in responses:
            tokens = torch.as_tensor(np.asarray(response), dtype=torch.int64)
            own = torch.arange(end, end + len(tokens))
            ids.append(tokens)
            positions.append((torch.arange(len(tokens)) + prompt.next_position).expand(3, -1))
            source.append(torch.cat([prefix[-1:], own[:-1]]))
            targets.append(tokens)
            owner.append(torch.full((len(tokens),), responses_seen))
            spans.append((at, end + len(tokens), at, at) if alone else (end, end + len(tokens), at, at + P))
            responses_seen += 1
            end += len(tokens)
        at = end
    empty = torch.empty(0, dtype=torch.int64)
    return PackedRow(
        ids=torch.cat(ids),
        positions=torch.cat(positions, 1),
        patches=torch.cat([prompt.patches for prompt, _ in groups]),
        grid=torch.cat([prompt.grid for prompt, _ in groups]),
        spans=Spans(spans),
        source=torch.cat([empty, *source]),
        targets=torch.cat([empty, *targets]),
        owner=torch.cat([empty, *owner]),
    )


def _packed_rows_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, spans=None, **kwargs):
    """The attention function that Hugging Face's layers call. Extra arguments of the forward call also reach the vision
    tower, whose attention is not causal and stays theirs."""
    if spans is None or not module.is_causal:
        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return sdpa(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (1, heads, T, D) -> (T, heads, D)
    return packed_attention(q, k, v, spans, scaling)[None], None


AttentionInterface.register("packed_rows", _packed_rows_attention)


# ---------------------------------------------------------------------------------------------------------------------
# several processes, one per GPU, started by torchrun; alone, a process is number 0 of 1 and none of this does anything


def check_device(device) -> None:
    """Raise ValueError, in one sentence, for a device that is not here."""
    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except RuntimeError:
        raise ValueError(f"--device {device} is none; use cpu or cuda.") from None
    if kind == "cuda" and (index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: torch sees {torch.cuda.device_count()} GPUs here; use --device cpu.")


def join_processes(device: str) -> None:
    """Join the group that torchrun started, if it did; "cuda" then means this process's own GPU."""
    check_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        patience = timedelta(hours=2)  # one process saves, or waits for slow programs, while the others wait for it
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=patience)
        atexit.register(_leave_processes)
        if device.startswith("cuda"):
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _leave_processes() -> None:
    """gloo's threads abort a process that ends while anything holds their group: sharded weights in a cycle do."""
    gc.collect()
    dist.destroy_process_group()


def process_number() -> tuple[int, int]:
    """(number of this process, how many there are)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def from_all(value) -> list:
    """What every process gave, in their order."""
    values = [None] * process_number()[1]
    if len(values) == 1:
        return [value]
    dist.all_gather_object(values, value)
    return values


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor that may be sharded; every process has to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


# ---------------------------------------------------------------------------------------------------------------------
# the policy


class Policy(nn.Module):
    """A Hugging Face Qwen-VL model with its tokenizer and image processor. `forward` gives a packed row's log-probs.

    files: what lay around the weights in the folder that was loaded, and is saved again; save_dtype: number format of
    saved weights, the loaded folder's unless changed. frame: the chat template's, if it is known already.
    """

    def __init__(self, hf, tokenizer, image_processor, frame: list[str] | None = None):
        super().__init__()
        self.hf, self.tokenizer, self.image_processor = hf, tokenizer, image_processor
        config = hf.config
        self.frame = frame or releases.chat_frame(tokenizer)
        self.plain = plain_tokenizer(tokenizer)
        self.image_id, self.merge = config.image_token_id, config.vision_config.spatial_merge_size
        self.eos_ids = _eos_ids(hf, tokenizer)
        self.banned_ids = _banned_ids(config, tokenizer)
        self.files, self.save_dtype = {}, hf.dtype
        patch_embed = hf.model.visual.patch_embed
        patch_embed.forward = lambda patches: _patch_embedding(patch_embed.proj, patches)

    @classmethod
    def load(cls, path: str | Path, device="cpu", dtype=torch.float32) -> "Policy":
        """Open a Hugging Face folder or hub name (which downloads it). Raises FileNotFoundError or ValueError, in one
        sentence, for what cannot be read, or cannot be trained as it is meant."""
        check_device(device)
        folder = releases.find_folder(path)
        files, read = releases.read_files(folder), releases.readable
        config = releases.read_config(folder, files)
        what, its_files = f"The tokenizer in {folder}", " and ".join(releases.TOKENIZER)
        tokenizer = read(what, its_files, AutoTokenizer.from_pretrained, folder)
        releases.take_template(tokenizer, files)
        try:
            releases.check_tokenizer(tokenizer, config)
            frame = releases.chat_frame(tokenizer)
        except ValueError as error:
            lacks = " and ".join(name for name in releases.TOKENIZER if name not in files)
            why = f"it has no {lacks}; copy that from the model's release." if lacks else error
            raise ValueError(f"{folder}: {why}") from error
        what = f"{folder}/preprocessor_config.json"
        image_processor = read(what, "it", Qwen2VLImageProcessorPil.from_pretrained, folder)
        releases.check_image_processor(folder, image_processor, config)
        releases.check_weights(folder)
        options = dict(dtype=dtype, attn_implementation="packed_rows", output_loading_info=True)
        options |= dict(ignore_mismatched_sizes=True)  # `check_loaded` does not
        what = f"The weights in {folder}"
        hf, info = read(what, "them", AutoModelForImageTextToText.from_pretrained, folder, **options)
        left_out = releases.check_loaded(folder, info)
        if left_out and process_number()[0] == 0:
            print(left_out, file=sys.stderr)
        try:
            policy = cls(hf, tokenizer, image_processor, frame)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
        policy.files, policy.save_dtype = files, read(what, "them", releases.weights_dtype, folder)
        # the folder's own is saved again as it is; transformers would refuse to write some that it has read
        policy.hf.generation_config = GenerationConfig(eos_token_id=policy.eos_ids)
        policy.hf.to(device)
        return policy

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @cached_property
    def system_frame(self) -> list[str]:
        return releases.chat_frame(self.tokenizer, system=True)

    def encode(self, sample) -> Prompt:
        """A data.Sample as a Prompt (chat template, picture patches, positions), on the CPU. Special tokens in its text
        are plain text. Raises ValueError, naming the sample, where it has no picture or one that the image processor
        refuses, or text that is none."""
        if sample.image is None:
            raise ValueError(f"Sample {sample.id} has no picture: render its program first.")
        try:
            picture = self.image_processor(images=[sample.image], return_tensors="pt")
        except ValueError as error:
            raise ValueError(f"Sample {sample.id}: the image processor refuses its picture ({error}).") from error
        for text in (sample.prompt, sample.system):
            _check_text(text, sample.id)
        try:
            frame = self.system_frame if sample.system else self.frame
            pieces = releases.split_prompt(self.tokenizer, frame, sample.prompt, sample.system)
        except ValueError as error:
            raise ValueError(f"Sample {sample.id}: {error}.") from error
        ids = []
        for number, piece in enumerate(pieces):  # the template's and others' in turns
            is_template = number % 2 == 0
            ids += (
                self.tokenizer(piece, add_special_tokens=False)["input_ids"] if is_template else self.plain_ids(piece)
            )
        grid = picture["image_grid_thw"]
        at, image_tokens = ids.index(self.image_id), int(grid.prod(-1).sum()) // self.merge**2
        ids[at : at + 1] = [self.image_id] * image_tokens
        positions, next_position = mrope_positions(ids, grid.tolist(), self.image_id, self.merge)
        return Prompt(sample.id, torch.tensor(ids), positions, next_position, picture["pixel_values"], grid)

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of a text in which special tokens have no meaning: `<|im_end|>` in a program ends nothing."""
        return self.plain.encode(text, add_special_tokens=False).ids

    def response_ids(self, text: str, sample_id: str = "") -> list[int]:
        """Token ids of an answer, with the end-of-turn token that the policy must learn to say. `decode` gives the text
        back (in Unicode's composed form). Raises ValueError, naming the sample, for text that is none."""
        _check_text(text, sample_id)
        return self.plain_ids(text) + [self.eos_ids[0]]

    def decode(self, ids: Sequence[int]) -> str:
        said = [i for i in ids if i not in self.eos_ids]
        return self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def forward(self, row: PackedRow, temperature: float = 1.0) -> torch.Tensor:
        """Log-probs (sum of R,) float32 of row.targets, at the sampling temperature."""
        hidden = self.hf.model(
            input_ids=row.ids[None],
            position_ids=row.positions[:, None],
            pixel_values=row.patches,
            image_grid_thw=row.grid,
            use_cache=False,
            spans=row.spans,
        ).last_hidden_state[0]
        return token_logprobs(hidden.index_select(0, row.source), self.hf.lm_head.weight, row.targets, temperature)

    def checkpoint_activations(self) -> None:
        """Compute each layer twice instead of keeping its activations."""
        enable = getattr(self.hf, "activation_checkpointing_enable", None) or self.hf.gradient_checkpointing_enable
        enable({"use_reentrant": False})

    def shard(self, offload: bool = False) -> "Policy":
        """Spread weights, gradients and what optimizers keep over the processes of a machine; every machine holds all
        of them (FSDP2: fp32 shards, bf16 compute on GPUs). Gradients are averaged over all processes.

        offload: weights wait in host memory until they are needed (`lent`).
        """
        processes, machines = process_number()[1], int(os.environ.get("GROUP_WORLD_SIZE", 1))
        if processes == 1:
            return self.cpu() if offload else self
        gpu = self.device.type == "cuda"
        shape, names = (machines, processes // machines), ("copy", "shard")
        mesh = init_device_mesh(self.device.type, shape, mesh_dim_names=names)
        options = {"mesh": mesh if machines > 1 else mesh["shard"]}
        # the False: inputs are not cast; the vision tower would round its angles to bf16, which a sampler's does not
        options["mp_policy"] = MixedPrecisionPolicy(torch.bfloat16 if gpu else None, torch.float32, None, False)
        options |= {"offload_policy": CPUOffloadPolicy()} if gpu and offload else {}
        for block in [*self.hf.model.visual.blocks, *self.hf.model.language_model.layers]:
            fully_shard(block, **options)
        return fully_shard(self, **options, reshard_after_forward=offload or None)

    @torch.no_grad()
    def copy_weights(self, sharded: "Policy") -> None:
        """Take over the weights of a sharded policy: sampling needs all of them in every process. Shards arrive in
        place, in the number format of this policy; after sampling once, that place is the engine's buffer."""
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the name before torch 2.13
        for mine, theirs in zip(self.parameters(), sharded.parameters(), strict=True):
            mesh = theirs.device_mesh
            if len(theirs) % mesh.shape[-1]:
                mine.copy_(whole(theirs))
            else:
                gather(mine.detach(), theirs.to_local().to(mine.dtype), group=mesh.get_group(mesh.ndim - 1))

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """All weights as they are trained, by Hugging Face's names, shared ones once, in the first process; {} in the
        others, which have to ask for them, too."""
        weights, state = {}, self.hf.state_dict()
        for name, _ in self.hf.named_parameters():
            full = whole(state[name])
            if process_number()[0] == 0:
                weights[name] = full if full is state[name] else full.cpu()
        return weights

    def save(self, folder: str | Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write the folder that was loaded with the present weights (`whole_weights`, if they are there already), which
        transformers, before 5 too, and vLLM open; of several processes the first one does."""
        weights, folder = self.whole_weights() if weights is None else weights, Path(folder)
        if process_number()[0] > 0:
            return
        converted = {name: weight.to("cpu", self.save_dtype) for name, weight in weights.items()}
        self.hf.save_pretrained(folder, state_dict=converted)
        if "tokenizer_config.json" not in self.files:
            self.tokenizer.save_pretrained(folder)
        releases.write_files(folder, self.files, self.image_processor, self.save_dtype)


@contextmanager
def lent(policy: Policy | None, device):
    """A policy that waits in host memory (`shard` with offload), on the device for as long as it takes. What is sharded
    over several processes comes and goes by itself."""
    alone = policy is not None and process_number()[1] == 1
    if alone:
        policy.to(device)
    yield
    if alone:
        policy.cpu()


def _patch_embedding(conv: nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """The patch embedding's kernel is as large as its input, so it is a matrix product: Conv3d takes 10 to 50 times as
    long for the same numbers in some torch releases (pytorch issue 174051)."""
    return F.linear(patches.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias)


def plain_tokenizer(tokenizer) -> Tokenizer:
    """A copy that knows no special tokens. (transformers' `split_special_tokens` switches the one that all share, which
    threads that encode side by side would notice.)"""
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.encode_special_tokens = True
    plain.no_truncation()
    plain.no_padding()
    return plain


def _check_text(text: str, sample_id: str) -> None:
    """Raise ValueError, naming the sample, for what no tokenizer takes."""
    if not isinstance(text, str):
        raise ValueError(f"Sample {sample_id}: {str(text)[:40]!r} ({type(text).__name__}) where text belongs.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise ValueError(
            f"Sample {sample_id}: character {error.start} of its text is half of one, {half!r} (a lone surrogate); "
            "mend it or leave the row out."
        ) from error


def _eos_ids(hf, tokenizer) -> list[int]:
    """Ids that end an answer, the tokenizer's first. Raises ValueError where the generation config has one that is
    none of the tokenizer's."""
    said = hf.generation_config.eos_token_id if hf.generation_config else None
    said = said if isinstance(said, list) else [said]
    ids = [i for i in (tokenizer.eos_token_id, *said) if i is not None]
    for i in ids:
        if type(i) is not int or not 0 <= i < len(tokenizer):
            raise ValueError(
                f"generation_config.json has an eos_token_id {i!r}, the tokenizer's are 0 to {len(tokenizer) - 1}; "
                "copy generation_config.json from the model's release again."
            )
    return list(dict.fromkeys(ids))


def _banned_ids(config, tokenizer) -> list[int]:
    """Ids a response must never contain: picture and video placeholders (the training forward would look for the
    picture) and the padding rows of the vocabulary, which no tokenizer can spell."""
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    special = {getattr(config, name, None) for name in names} - {None}
    return sorted(special | set(range(len(tokenizer), config.text_config.vocab_size)))


# ---------------------------------------------------------------------------------------------------------------------


def main() -> None:
    from corpus.tiny import Create, create_tiny  # which need a policy
    from report.memory import Memory, table

    config = tyro.extras.subcommand_cli_from_dict({"create": Create, "--memory": Memory}, description=__doc__)
    try:
        if isinstance(config, Memory):
            print(table(config.model, config.gpus, config.row_tokens, config.cards))
            return
        create_tiny(config.path, config.family, None, config.vocab_size, config.width, config.layers, seed=config.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"model.py: {error}")
    policy = Policy.load(config.path)
    total, vision = (sum(p.numel() for p in m.parameters()) / 1e6 for m in (policy.hf, policy.hf.model.visual))
    print(f"{config.path}: {config.family}, {total:.2f} M parameters, {vision:.2f} M of them in the vision tower")


if __name__ == "__main__":
    main()
