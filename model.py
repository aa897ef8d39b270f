"""A Qwen-VL policy: load it, encode samples, ask it for log-probabilities, shard it, save it.

Any dense Qwen2.5-VL or Qwen3-VL checkpoint in Hugging Face format is used unchanged, and what is saved is one again
(releases.py). Positions and packed rows are packing.py's, a tiny model to try things with is tiny.py's.

Axes: T tokens of a packed row, P prompt tokens, R response tokens, V vocabulary.
"""

import environment  # noqa: F401

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import nn

import releases
from packing import PackedRow, Prompt, mrope_positions, packed_attention
from processes import check_device, full_tensor, rank_and_size


def _packed_rows_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, spans=None, **kwargs):
    """The attention function that Hugging Face's layers call. Extra arguments of the forward call also reach the vision
    tower, whose attention is not causal and stays theirs."""
    if spans is None or not module.is_causal:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
        return sdpa(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (1, heads, T, D) -> (T, heads, D)
    return packed_attention(q, k, v, spans, scaling)[None], None


@cache
def hugging_face():
    """What loading a model takes of transformers, which needs three seconds to import: `--help` does without."""
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil  # of both families

    transformers.AttentionInterface.register("packed_rows", _packed_rows_attention)
    transformers.utils.logging.disable_progress_bar()
    # its table of missing and unexpected weights; releases.check_loaded says it in a sentence
    report = "VLForConditionalGeneration LOAD REPORT"
    logging.getLogger("transformers.modeling_utils").addFilter(lambda record: report not in record.getMessage())
    return transformers, Qwen2VLImageProcessorPil


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
        self.files, self.save_dtype = {}, hf.dtype
        patch_embed = hf.model.visual.patch_embed
        patch_embed.forward = lambda patches: _patch_embedding(patch_embed.proj, patches)

    @classmethod
    def load(cls, path: str | Path, device="cpu", dtype=torch.float32) -> "Policy":
        """Open a Hugging Face folder or hub name (which downloads it), or a LoRA adapter's, added to its base. Raises
        FileNotFoundError or ValueError, in one sentence, for what cannot be read, or cannot be trained as it is meant.
        """
        check_device(device)
        transformers, Qwen2VLImageProcessorPil = hugging_face()
        folder = releases.find_folder(path)
        if releases.is_adapter(folder):
            return importlib.import_module("lora").merged(folder, device, dtype)
        files, read = releases.read_files(folder), releases.readable
        config = releases.read_config(folder, files)
        what, its_files = f"The tokenizer in {folder}", " and ".join(releases.TOKENIZER)
        tokenizer = read(what, its_files, transformers.AutoTokenizer.from_pretrained, folder)
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
        hf, info = read(what, "them", transformers.AutoModelForImageTextToText.from_pretrained, folder, **options)
        left_out = releases.check_loaded(folder, info)
        if left_out and rank_and_size()[0] == 0:
            print(left_out, file=sys.stderr)
        try:
            policy = cls(hf, tokenizer, image_processor, frame)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
        policy.files, policy.save_dtype = files, read(what, "them", releases.weights_dtype, folder)
        # the folder's own is saved again as it is; transformers would refuse to write some that it has read
        policy.hf.generation_config = transformers.GenerationConfig(eos_token_id=policy.eos_ids)
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
        refuses, or invalid text."""
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
        template_ids = lambda piece: self.tokenizer(piece, add_special_tokens=False)["input_ids"]  # noqa: E731
        for number, piece in enumerate(pieces):  # the template's and others' in turns
            ids += self.plain_ids(piece) if number % 2 else template_ids(piece)
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
        back (in Unicode's composed form). Raises ValueError, naming the sample, for invalid text."""
        _check_text(text, sample_id)
        return self.plain_ids(text) + [self.eos_ids[0]]

    def decode(self, ids: Sequence[int]) -> str:
        said = [i for i in ids if i not in self.eos_ids]
        return self.tokenizer.decode(said, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def forward(self, row: PackedRow, temperature: float = 1.0) -> torch.Tensor:
        """Log-probs (sum of R,) float32 of the responses' tokens, at the sampling temperature."""
        hidden = self.hf.model(
            input_ids=row.ids[None],
            position_ids=row.positions[:, None],
            pixel_values=row.patches,
            image_grid_thw=row.grid,
            use_cache=False,
            spans=row.spans,
        ).last_hidden_state[0]
        hidden = hidden.index_select(0, row.source)
        logps = token_logprobs(hidden, self.hf.lm_head.weight, row.targets, temperature)
        return logps.index_select(0, row.responses)

    def shard(self, offload: bool = False) -> "Policy":
        """Spread weights, gradients and what optimizers keep over the processes of a machine; every machine holds all
        of them (FSDP2: fp32 shards, bf16 compute on GPUs). Gradients are averaged over all processes.

        offload: weights wait in host memory until they are needed.
        """
        processes, machines = rank_and_size()[1], int(os.environ.get("GROUP_WORLD_SIZE", 1))
        if processes == 1:
            return self.cpu() if offload else self
        from torch.distributed.device_mesh import init_device_mesh  # here: they take a second
        from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

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

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """All weights as they are trained, by Hugging Face's names, shared ones once, in the first process; {} in the
        others, which have to ask for them, too."""
        weights, state = {}, self.hf.state_dict()
        for name, _ in self.hf.named_parameters():
            full = full_tensor(state[name])
            if rank_and_size()[0] == 0:
                weights[name] = full if full is state[name] else full.cpu()
        return weights

    def save(self, folder: str | Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write the folder that was loaded with the present weights (`whole_weights`, if they are there already), which
        transformers, before 5 too, and vLLM open; of several processes the first one does."""
        weights, folder = self.whole_weights() if weights is None else weights, Path(folder)
        if rank_and_size()[0] > 0:
            return
        converted = {name: weight.to("cpu", self.save_dtype) for name, weight in weights.items()}
        self.hf.save_pretrained(folder, state_dict=converted)
        if "tokenizer_config.json" not in self.files:
            self.tokenizer.save_pretrained(folder)
        releases.write_files(folder, self.files, self.image_processor, self.save_dtype)


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


# --------------------------------------------------------------------------------------------------- log-probabilities


class _TokenLogprobs(torch.autograd.Function):
    """Recomputes the logits of one chunk at a time in the backward pass instead of keeping them."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk):
        logps, totals = [], []
        for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = _wide(rows @ weight.T).div_(temperature)
            totals.append(logits.logsumexp(-1))
            logps.append(logits.gather(-1, wanted[:, None])[:, 0] - totals[-1])
        empty = hidden.new_empty(0, dtype=_wide(hidden[:0]).dtype)
        ctx.save_for_backward(hidden, weight, targets, torch.cat([empty, *totals]))
        ctx.temperature, ctx.chunk = temperature, chunk
        return torch.cat([empty, *logps])

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, targets, totals = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        # bf16 sums over chunks would bias training; a frozen head has none
        grad_weight = torch.zeros_like(weight, dtype=grad.dtype) if ctx.needs_input_grad[1] else None
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits = _wide(hidden[part] @ weight.T).div_(ctx.temperature)
            # d logp / d logits = onehot - softmax, in the place of the logits
            grad_logits = logits.sub_(totals[part, None]).exp_().neg_()
            grad_logits.scatter_add_(-1, targets[part, None], grad_logits.new_ones(len(logits), 1))
            grad_logits *= grad[part, None] / ctx.temperature
            narrow = grad_logits.to(weight.dtype)
            grad_hidden[part] = narrow @ weight
            if grad_weight is None:
                continue
            if weight.is_cuda and weight.dtype == torch.bfloat16:  # bf16 factors, products summed and kept in fp32
                grad_weight += torch.mm(narrow.T, hidden[part], out_dtype=torch.float32)
            else:
                grad_weight += grad_logits.T @ _wide(hidden[part])
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None


def _wide(x: torch.Tensor) -> torch.Tensor:
    """float32, or more where it is more already."""
    return x if x.dtype == torch.float64 else x.float()


def token_logprobs(hidden, weight, targets, temperature: float = 1.0, chunk: int = 1024) -> torch.Tensor:
    """log softmax(hidden @ weight.T / temperature)[targets], in chunks of tokens: [T, V] never exists.

    hidden (T, width), weight (V, width), targets (T,) int64 -> (T,) float32 (float64 of float64), differentiable in
    hidden and weight. A chunk of 1,024 tokens and 152,000 words is 0.6 GB.
    """
    if torch.is_autocast_enabled(hidden.device.type):  # here, so that the backward pass computes the same logits
        hidden, weight = (x.to(torch.get_autocast_dtype(hidden.device.type)) for x in (hidden, weight))
    return _TokenLogprobs.apply(hidden, weight, targets, temperature, chunk)
