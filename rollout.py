"""Rollout: prompts in, sampled completions out, streamed as they finish; the prompt is paid for once per group.

    for completion in generate(policy, prompts, G=8, max_new_tokens=1024, temperature=1.0, seed=step):
        ...                                          # render and score it while the others still decode

The vision tower and the prompt run once per group (`Engine.prefill`). Keys and values lie in pages of one pool: a
prompt's pages belong to its group, a response's to its sample, and attention reads both where they lie.
`Engine.decode_step` writes one token for every occupied slot; after some steps the host looks (`Scheduler`): samples
that ended are handed out, their slots and pages go to the next ones. Only tables of numbers move, never keys or values.
Where the pool runs full the youngest sample gives its pages back and is computed again later.

The decoder is Hugging Face's text model written as plain functions over its own weights, which share memory with one
flat buffer (`FlatWeights`): sampling never goes stale, addresses never change. On a GPU each step is one CUDA graph per
batch size, on a CPU several steps are one call of C (`native`). Noise is a hash of (sample seed, step, token): a
completion depends on its prompt, number and seed alone.

`reference.py` samples the same completions in thirty plain lines: begin there.

Axes: B slots, G samples per group, P prompt tokens, R response tokens, H query heads, C key/value heads, D head size.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

import kernels
import native
from kernels import KeyTable, rms_norm
from packing import Prompt, pack, packed_attention

MOST_TOKENS = 16384  # of prompts, and of preempted answers, that are computed together; one may go over it


@dataclass
class Completion:
    """One sampled answer. `ids` holds the end-of-turn token where the model said it (finish "eos")."""

    sample_id: str
    index: int  # 0 .. G - 1, the sample's number within its group
    ids: np.ndarray  # (R,) int32
    logps: np.ndarray  # (R,) float32, under the sampling temperature
    text: str
    finish: str  # "eos" or "length"
    number: int = 0  # the place of its prompt in the batch: ids are for people, and need not differ


def generate(
    policy, prompts: Sequence[Prompt], G: int, max_new_tokens: int = 1024, temperature: float = 1.0,
    seed: int = 0, slots: int = 256, numbers: Sequence[int] | None = None,
) -> Iterator[Completion]:  # fmt: skip
    """Sample G completions of every prompt; yield each as soon as it ends. temperature 0 is greedy.

    At most `slots` samples decode together. The same arguments give the same completions, whatever `slots` is. A share
    of a batch draws what it would have drawn as part of it, given `numbers`: its prompts' places there (0, 1 ..).
    """
    if min(G, max_new_tokens, slots) < 1:
        raise ValueError(f"G is {G}, max_new_tokens {max_new_tokens}, slots {slots}: each must be at least 1.")
    if not hasattr(policy, "engine"):
        policy.engine = Engine(policy)
    return policy.engine.generate(prompts, G, max_new_tokens, temperature, seed, slots, numbers)


def banned_ids(policy) -> list[int]:
    """Ids a response must never contain: picture and video placeholders (the training forward would look for the
    picture) and the padding rows of the vocabulary, which no tokenizer can spell."""
    config = policy.hf.config
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    special = {getattr(config, name, None) for name in names} - {None}
    return sorted(special | set(range(len(policy.tokenizer), config.text_config.vocab_size)))


def sample_seed(seed: int, number: int) -> int:
    """The seed of a batch's sample `number`: the low 32 bits, as a signed number."""
    return (seed * 1_000_003 + number + 2**31) % 2**32 - 2**31


# ----------------------------------------------------------------------------------------------------------- the model


class FlatWeights:
    """The text model's weights in one flat buffer, some of them fused: q, k, v are one matrix, gate and up another.

    A parameter that is whole and has the buffer's number format becomes a view of the buffer, so that an optimizer's
    step is a step of the sampler. Others (fp32 masters on a GPU) are copied by `refill`, before each rollout; to the
    base matrices of LoRA it adds the adapter's products.
    """

    def __init__(self, policy, dtype: torch.dtype):
        self.layers = [SimpleNamespace(qkv_bias=None, gains=None) for _ in policy.hf.model.language_model.layers]
        fused = self._fused(policy)
        sizes = [-(-sum(p.numel() for p in parameters) // 64) * 64 for _, _, parameters in fused]  # aligned
        self.buffer = torch.empty(sum(sizes), dtype=dtype, device=policy.device)
        self.sources: list[tuple[torch.Tensor, torch.Tensor]] = []  # part of the buffer, what belongs there
        self.products = getattr(policy, "products", {})  # of LoRA: matrix -> what gives the adapter's product
        for (holder, name, parameters), room in zip(fused, self.buffer.split(sizes), strict=True):
            rows = [len(p) for p in parameters]
            weight = room[: sum(p.numel() for p in parameters)].view(sum(rows), *parameters[0].shape[1:])
            setattr(holder, name, weight)
            self.sources += zip(weight.split(rows), parameters, strict=True)
        self.lm_head = getattr(self, "lm_head", self.embed)
        self.refill()
        for view, parameter in self.sources:
            shared = isinstance(parameter, torch.nn.Parameter) and parameter not in self.products
            if shared and parameter.dtype == dtype:
                parameter.data = view

    def _fused(self, policy) -> list[tuple[object, str, list[torch.Tensor]]]:
        """(whose attribute, its name, the parameters stacked in it) of every weight."""
        text, config = policy.hf.model.language_model, policy.hf.config.text_config
        fused = [(self, "embed", [text.embed_tokens.weight]), (self, "norm", [text.norm.weight])]
        if policy.hf.lm_head.weight is not text.embed_tokens.weight:
            fused.append((self, "lm_head", [policy.hf.lm_head.weight]))
        for mine, layer in zip(self.layers, text.layers, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            projections = attention.q_proj, attention.k_proj, attention.v_proj
            fused += [
                (mine, "attention_norm", [layer.input_layernorm.weight]),
                (mine, "qkv", [proj.weight for proj in projections]),
                (mine, "o", [attention.o_proj.weight]),
                (mine, "mlp_norm", [layer.post_attention_layernorm.weight]),
                (mine, "gate_up", [mlp.gate_proj.weight, mlp.up_proj.weight]),
                (mine, "down", [mlp.down_proj.weight]),
            ]
            if attention.q_proj.bias is not None:  # Qwen2.5
                fused.append((mine, "qkv_bias", [proj.bias for proj in projections]))
            if hasattr(attention, "q_norm"):  # Qwen3: the gains of every query head, then of every key head
                heads = (config.num_attention_heads, config.num_key_value_heads)
                gains = attention.q_norm.weight.data, attention.k_norm.weight.data
                fused.append((mine, "gains", [g.expand(n, -1) for g, n in zip(gains, heads, strict=True)]))
        return fused

    @torch.no_grad()
    def refill(self) -> None:
        for view, parameter in self.sources:
            if parameter.data_ptr() != view.data_ptr():
                product = self.products.get(parameter)
                view.copy_(parameter + product() if product else parameter)


class Engine:
    """A policy's decoder with its page pool, slots and CUDA graphs. One per policy, made by `generate`, kept for good.

    page: tokens in a page. steps: between two looks of the host; samples run on for up to steps - 1 of them past
    their end. memory: share of the free memory that the pool may take, pages: how many at most.
    counters: what was done, for benchmarks and tests.
    """

    def __init__(self, policy, page: int = 64, steps=None, memory: float = 0.8, pages: int = 1 << 30):
        gpu = policy.device.type == "cuda"
        self.policy, self.config = policy, policy.hf.config.text_config
        self.page, self.steps = page, steps or (8 if gpu else 4)
        self.memory, self.most_pages = memory, pages
        bf16 = gpu and torch.is_autocast_enabled("cuda")  # training on a GPU: fp32 weights, bf16 everything else
        self.weights = FlatWeights(policy, torch.bfloat16 if bf16 else policy.hf.lm_head.weight.dtype)
        self.head_size = policy.hf.model.language_model.layers[0].self_attn.head_dim
        self.banned = torch.zeros(len(self.weights.lm_head), dtype=torch.bool, device=policy.device)
        self.pool = self.slots = self.cos_sin_cache = None
        self.graphs: dict[tuple, torch.cuda.CUDAGraph] = {}
        self.use_graphs = gpu and kernels.triton is not None
        self.counters, self.busy = Counter(), False

    def rope(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """positions (3, T) -> cos and signed sin (T, D) in the dtype of the weights."""
        cos, sin = rope_tables(positions, self.policy.hf.model.language_model.rotary_emb)
        return cos.to(self.weights.buffer.dtype), kernels.signed(sin).to(self.weights.buffer.dtype)

    def layer(self, w, x, cos, sin, kv, slot_mapping, attend) -> torch.Tensor:
        """One decoder layer, which changes x (T, width) in place. Keys and values go to `slot_mapping` (T, 2C) of kv;
        attend(q, k, v, kv) -> (T, H, D)."""
        eps = self.config.rms_norm_eps
        normal = rms_norm(x, w.attention_norm, eps)
        qkv = F.linear(normal, w.qkv, w.qkv_bias).unflatten(-1, (-1, self.head_size))  # (T, H + 2C, D)
        q, k, v = kernels.norm_rope_append(qkv, w.gains, cos, sin, kv, slot_mapping, eps)
        x.addmm_(attend(q, k, v, kv).flatten(1), w.o.T)
        gate_up = F.linear(rms_norm(x, w.mlp_norm, eps), w.gate_up)
        return x.addmm_(kernels.silu_mul(gate_up), w.down.T)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(rms_norm(x, self.weights.norm, self.config.rms_norm_eps), self.weights.lm_head)

    def decode_step(self, rows: int, groups: int, temperature: float) -> None:
        """Feed the newest token of the first `rows` slots, draw the next ones. Everything is read from and written to
        the slots on the device, without a look of the host: a CUDA graph can hold it."""
        s = self.slots.device
        token, length, pages = s.token[:rows], s.length[:rows], s.block_table[:rows]
        page = pages.gather(1, (length // self.page).long()[:, None])[:, 0]
        slot_mapping = kernels.slot_mapping(self.pool.kv[0], page, length % self.page)  # of this token
        prompts = KeyTable(s.members[:groups], s.prompt_length[:groups], s.prompt_block_table[:groups], self.page)
        own = KeyTable(s.row[:rows], length + 1, pages, self.page)

        def attend(q, k, v, kv):
            return kernels.decode_attention(q, kv, prompts, own, self.head_size**-0.5)

        x = F.embedding(token, self.weights.embed)  # (B, width)
        cos, sin = self.cos_sin_cache.index_select(1, s.start[:rows] + length)
        for w, kv in zip(self.weights.layers, self.pool.kv, strict=True):
            x = self.layer(w, x, cos, sin, kv, slot_mapping, attend)
        drawn, logps = kernels.sample_tokens(self.logits(x), s.seed[:rows], length + 1, temperature, self.banned)
        s.drawn[:rows].index_copy_(1, s.step.long(), drawn.int()[:, None])
        s.logps[:rows].index_copy_(1, s.step.long(), logps[:, None])
        token.copy_(drawn)
        length.add_(1)
        s.step.add_(1)

    @torch.inference_mode()
    def decode_steps(self, rows: int, groups: int, temperature: float) -> None:
        """`steps` steps for the first `rows` slots. With graphs, for a few more (dead) slots and groups, so that there
        are few graphs; a dead slot writes to page 0, which belongs to nobody."""
        self.slots.push()
        self.counters["steps"] += self.steps
        with torch.autocast(self.policy.device.type, enabled=False):
            if native.ready(self):
                native.decode_steps(self, rows, groups, temperature)
            elif self.use_graphs:
                key = (bucket(rows, self.slots.count), bucket(groups, self.slots.count), temperature)
                if key not in self.graphs:
                    self.graphs[key] = self.capture(*key)
                for _ in range(self.steps):
                    self.graphs[key].replay()
            else:
                for _ in range(self.steps):
                    self.decode_step(rows, groups, temperature)
        self.slots.pull()

    def capture(self, rows: int, groups: int, temperature: float) -> torch.cuda.CUDAGraph:
        """Record one decode step. It runs once before: kernels are compiled then, not while recording."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.decode_step(rows, groups, temperature)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        memory_pool = next(iter(self.graphs.values())).pool() if self.graphs else None
        with torch.cuda.graph(graph, pool=memory_pool):
            self.decode_step(rows, groups, temperature)
        self.slots.push()  # the step that ran has moved the slots on
        return graph

    @torch.no_grad()
    def prefill(self, jobs: list[tuple["PromptGroup", list["Request"]]]) -> torch.Tensor:
        """Write the keys and values of prompts, and of what preempted answers had said, to their pages.

        All of it is one packed row (packing.pack). Returns the logits after each prompt (n, V).
        """
        device = self.policy.device
        row = pack([(group.prompt, [r.ids[: r.length - 1] for r in requests]) for group, requests in jobs], share=False)
        slot_mapping, ends, at = [], [], 0
        for group, requests in jobs:
            segments = [(group.block_table, len(group.prompt.ids))] + [(r.block_table, r.length - 1) for r in requests]
            ends.append(at + len(group.prompt.ids) - 1)
            for pages, length in segments:
                place = torch.arange(length)
                page = torch.tensor(pages)[place // self.page]
                slot_mapping.append(kernels.slot_mapping(self.pool.kv[0], page, place % self.page))
                at += length
        row, slot_mapping = row.to(device), torch.cat(slot_mapping).to(device)
        self.counters.update(prefill_tokens=len(row.ids), vision_calls=len(row.grid))
        vision = self.policy.hf.model.get_image_features(row.patches, row.grid, return_dict=True)
        with torch.autocast(device.type, enabled=False):
            is_image = row.ids == self.policy.image_id
            x = F.embedding(row.ids, self.weights.embed)  # (T, width)
            x[is_image] = torch.cat(list(vision.pooler_output)).to(x.dtype)
            deepstack = getattr(vision, "deepstack_features", None) or []
            cos, sin = self.rope(row.positions)

            def attend(q, k, v, kv):
                return packed_attention(q, k, v, row.spans, self.head_size**-0.5)

            for index, (w, kv) in enumerate(zip(self.weights.layers, self.pool.kv, strict=True)):
                x = self.layer(w, x, cos, sin, kv, slot_mapping, attend)
                if index < len(deepstack):  # one tensor, or one per picture, depending on the release
                    feature = deepstack[index]
                    x[is_image] += (feature if torch.is_tensor(feature) else torch.cat(list(feature))).to(x.dtype)
            return self.logits(x[ends])

    def release_memory(self) -> None:
        """Leave a GPU's memory to training; the next rollout makes pool and graphs anew."""
        if self.policy.device.type == "cuda":
            self.pool, self.graphs = None, {}
            torch.cuda.empty_cache()

    @torch.no_grad()
    def reserve(self, prompts: Sequence[Prompt], G: int, max_new_tokens: int, slots: int) -> None:
        """Make slots and page pool at least as large as these prompts need; drop the graphs of smaller ones."""
        longest = max(len(prompt.ids) for prompt in prompts)
        columns = -(-(max_new_tokens + self.steps) // self.page)
        prompt_columns = bucket(-(-longest // self.page), 1 << 30)
        old = self.slots.shape if self.slots else (0, 0, 0, 0)
        shape = tuple(map(max, old, (slots, G, columns, prompt_columns)))
        if shape != old:
            self.slots, self.graphs = Slots(*shape, self.steps, self.policy.device), {}
        furthest = max(prompt.next_position for prompt in prompts) + max_new_tokens + self.steps
        if self.cos_sin_cache is None or self.cos_sin_cache.shape[1] < furthest:
            text = torch.arange(furthest, device=self.policy.device).expand(3, -1)
            self.cos_sin_cache, self.graphs = torch.stack(self.rope(text)), {}  # (2, positions of text, D)
        live = min(slots, G * len(prompts))
        needed = live * -(-max_new_tokens // self.page) + min(live, live // G + 2) * prompt_columns + 1
        if self.pool is None or self.pool.count < needed and not self.pool.largest:
            self.pool, self.graphs = None, {}
            self.pool = PagePool(self, needed)
        least, tokens = -(-max_new_tokens // self.page) + -(-longest // self.page), longest + max_new_tokens
        if (size := self.pool.count - 1) < least:
            raise ValueError(f"One answer of {tokens} tokens needs {least} pages, memory holds {size}: shorten it.")

    def generate(self, prompts, G, max_new_tokens, temperature, seed, slots, numbers) -> Iterator[Completion]:
        """What the function `generate` does, which is the way to call it."""
        if not prompts:
            return
        if self.busy:
            raise RuntimeError("This policy is already generating: finish (or close) the other iterator first.")
        self.busy = True
        try:
            self.weights.refill()
            self.reserve(prompts, G, max_new_tokens, slots)
            self.banned.zero_()[banned_ids(self.policy)] = True
            scheduler = Scheduler(self, prompts, G, max_new_tokens, seed, slots, numbers)
            while scheduler.waiting_prompts or scheduler.waiting or scheduler.running:
                if groups := scheduler.admit_prompts():
                    logits = self.prefill([(group, []) for group in groups])
                    yield from scheduler.first_tokens(groups, logits, temperature)
                if again := scheduler.schedule():
                    self.prefill(again)
                scheduler.assign_pages()
                if scheduler.running:
                    rows, groups = self.slots.arrange(scheduler.running)
                    self.decode_steps(rows, groups, temperature)
                    yield from scheduler.collect()
        finally:
            self.pool and self.pool.clear()
            self.busy = False


@contextlib.contextmanager
def half_the_threads():
    """torch on half of its CPU threads meanwhile: the renderer has the other cores. Threads that wait for one another
    at every operation all stand still as soon as one of them waits for a core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rope_tables(positions: torch.Tensor, rotary: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
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


def bucket(n: int, most: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24 .. that holds n: few sizes, at most half of one wasted."""
    power = 1 << max(0, n - 1).bit_length()
    return min(most, power * 3 // 4 if power >= 4 and n <= power * 3 // 4 else power)


# -------------------------------------------------------------------------------------------------------------- memory


class PagePool:
    """kv (layers, count, 2, C, page, D), and which pages are free. Page 0 belongs to nobody: dead slots write there,
    unused table entries point there."""

    def __init__(self, engine: Engine, count: int):
        like, config = engine.weights.buffer, engine.config
        shape = (config.num_hidden_layers, 2, config.num_key_value_heads, engine.page, engine.head_size)
        page_bytes = np.prod(shape) * like.element_size()
        if like.device.type == "cuda":
            torch.cuda.empty_cache()
            free = torch.cuda.mem_get_info(like.device)[0]
        else:
            words = Path("/proc/meminfo").read_text().split()  # what caches of files would make room for is available
            free = 1024 * int(words[words.index("MemAvailable:") + 1])
        largest = max(3, min(engine.most_pages, int(engine.memory * free / page_bytes)))
        self.largest = count >= largest  # asking for more would not help
        self.count = min(count, largest)
        shape = (shape[0], self.count, *shape[1:])
        if like.device.type == "cpu":  # untouched pages of numpy's zeros take no memory
            zeros = torch.from_numpy(np.zeros(self.count * page_bytes, np.uint8))
            self.kv = zeros.view(like.dtype).view(shape).unbind()
        else:
            self.kv = torch.zeros(shape, dtype=like.dtype, device=like.device).unbind()  # one tensor per layer
        self.clear()

    def clear(self) -> None:
        self.free = list(range(self.count - 1, 0, -1))  # the last one is taken next

    def allocate(self, count: int) -> list[int]:
        return [self.free.pop() for _ in range(count)]

    def free_pages(self, pages: list[int]) -> None:
        self.free += reversed(pages)


class Slots:
    """What a decode step reads and writes, one row per slot: one int32 buffer on the host and one on the device (on a
    CPU the same one), moved whole. `host` has numpy views of it, `device` tensors.

    token     the newest token, drawn but not yet fed           length    tokens fed so far
    start     position of the first response token              seed      of the sample's noise
    block_table  (B, columns) of the response                    row       (B, 1) 0, 1, 2 ..
    members   (groups, G) rows of each group, -1 for none       prompt_length, prompt_block_table   of each group
    drawn, logps   (B, steps) what each step wrote                step      (1,) column of `drawn` that comes next
    """

    def __init__(self, count: int, G: int, columns: int, prompt_columns: int, steps: int, device):
        self.count, self.shape = count, (count, G, columns, prompt_columns)
        shapes = {name: (count,) for name in ("token", "length", "start", "seed", "prompt_length")}
        shapes |= {"block_table": (count, columns), "row": (count, 1), "members": (count, G), "step": (1,)}
        shapes |= {"prompt_block_table": (count, prompt_columns), "drawn": (count, steps), "logps": (count, steps)}
        on_gpu = torch.device(device).type == "cuda"
        self._host = torch.zeros(sum(map(np.prod, shapes.values())), dtype=torch.int32, pin_memory=on_gpu)
        self._device = self._host.to(device)
        self.host, self.device, at = SimpleNamespace(), SimpleNamespace(), 0
        for name, shape in shapes.items():
            end = at + int(np.prod(shape))
            for holder, buffer in ((self.host, self._host), (self.device, self._device)):
                view = buffer[at:end].view(shape)
                setattr(holder, name, view.view(torch.float32) if name == "logps" else view)
            setattr(self.host, name, getattr(self.host, name).numpy())
            at = end
        self.host.row[:, 0] = np.arange(count)
        self.arranged = [], (0, 0)

    def push(self) -> None:
        self.host.step[:] = 0
        if self._device is not self._host:
            self._device.copy_(self._host, non_blocking=True)

    def pull(self) -> None:
        if self._device is not self._host:
            self._host.copy_(self._device)

    def set(self, row: int, request: "Request") -> None:
        h = self.host
        h.token[row], h.length[row] = request.ids[request.length - 1], request.length - 1
        h.start[row], h.seed[row] = request.group.prompt.next_position, request.seed
        h.block_table[row] = 0
        h.block_table[row, : len(request.block_table)] = request.block_table

    def keep(self, rows: np.ndarray) -> None:
        """Move these rows to the front: compaction, of numbers alone."""
        for values in (self.host.token, self.host.length, self.host.start, self.host.seed, self.host.block_table):
            values[: len(rows)] = values[rows]
            values[len(rows) :] = 0

    def arrange(self, running: list["Request"]) -> tuple[int, int]:
        """Write down which rows form a group, where that has changed -> (rows, groups) in use."""
        if running != self.arranged[0]:
            h, groups = self.host, {}
            for row, request in enumerate(running):
                groups.setdefault(request.group, []).append(row)
            h.members[:], h.prompt_length[:], h.prompt_block_table[:] = -1, 0, 0
            for item, (group, rows) in enumerate(groups.items()):
                h.members[item, : len(rows)] = rows
                h.prompt_length[item] = len(group.prompt.ids)
                h.prompt_block_table[item, : len(group.block_table)] = group.block_table
            self.arranged = list(running), (len(running), len(groups))
        return self.arranged[1]


# ---------------------------------------------------------------------------------------------------- who decodes when


@dataclass(eq=False)
class PromptGroup:
    """A prompt whose samples are being written; its pages are taken while any of them may need them."""

    prompt: Prompt
    number: int  # place of the prompt in the batch
    block_table: list[int] = field(default_factory=list)
    running: int = 0  # samples in slots
    unfinished: int = 0  # samples not ended


@dataclass(eq=False)
class Request:
    """A sample being written: `length` tokens are drawn, of which all but the newest have keys and values in pages."""

    group: PromptGroup
    index: int
    seed: int  # the low 32 bits, as a signed number
    ids: np.ndarray  # (max_new_tokens,) int32
    logps: np.ndarray  # (max_new_tokens,) float32
    length: int = 0
    block_table: list[int] = field(default_factory=list)


class Scheduler:
    """The host's side of a rollout: which samples hold which slots and pages. The rows 0 to
    len(running) - 1 are occupied, in the order in which their samples came."""

    def __init__(self, engine: Engine, prompts, G: int, max_new_tokens: int, seed: int, slots: int, numbers):
        self.engine, self.policy, self.pool, self.slots = engine, engine.policy, engine.pool, engine.slots
        self.G, self.most, self.seed, self.size = G, max_new_tokens, seed, slots
        self.waiting_prompts = deque(map(PromptGroup, prompts, numbers or range(len(prompts))))
        self.waiting: deque[Request] = deque()  # begun, without a slot
        self.running: list[Request] = []
        self.slots.keep(np.arange(0))

    def page_count(self, tokens: int) -> int:
        return -(-tokens // self.engine.page)

    def admit_prompts(self) -> list[PromptGroup]:
        """The next groups, as many as slots and pages are free for, with pages for their prompts."""
        groups, tokens = [], 0
        slots = self.size - len(self.running) - len(self.waiting)
        while self.waiting_prompts and slots > 0:
            P = len(self.waiting_prompts[0].prompt.ids)
            samples = len(self.running) + len(self.waiting) + self.G * (len(groups) + 1)
            pages = self.page_count(P) + samples  # every sample may soon want a page
            alone = not (self.running or self.waiting or groups)
            if not alone and (pages > len(self.pool.free) or tokens + P > MOST_TOKENS):
                break
            group = self.waiting_prompts.popleft()
            group.block_table, group.unfinished = self.pool.allocate(self.page_count(P)), self.G
            groups.append(group)
            slots, tokens = slots - self.G, tokens + P
        return groups

    def first_tokens(self, groups: list[PromptGroup], logits: torch.Tensor, temperature: float) -> Iterator[Completion]:
        """Draw the first token of every sample of new groups, logits (n, V) being those after their prompts."""
        numbers = [group.number * self.G + i for group in groups for i in range(self.G)]
        seeds = torch.tensor([sample_seed(self.seed, number) for number in numbers], device=logits.device)
        logits = logits.repeat_interleave(self.G, 0)
        tokens, logps = kernels.sample_tokens(logits, seeds, torch.zeros_like(seeds), temperature, self.engine.banned)
        drawn = zip(seeds.tolist(), tokens.cpu().numpy()[:, None], logps.cpu().numpy()[:, None], strict=True)
        for number, (seed, token, logp) in enumerate(drawn):
            group = groups[number // self.G]
            room = np.zeros(self.most, np.int32), np.zeros(self.most, np.float32)
            request = Request(group, number % self.G, seed, *room)
            if self.append_tokens(request, token, logp):
                yield self.complete(request)
            else:
                self.waiting.append(request)

    def schedule(self) -> list[tuple[PromptGroup, list[Request]]]:
        """Give free slots to waiting samples -> what has to be computed for them: nothing for new ones; for preempted
        ones their tokens, and their prompt where its pages were given back, too."""
        again, tokens = {}, 0
        while self.waiting and len(self.running) < self.size and tokens < MOST_TOKENS:
            request = self.waiting[0]
            group, own = request.group, self.page_count(request.length)
            prompt = 0 if group.block_table else self.page_count(len(group.prompt.ids))
            if len(self.pool.free) < own + prompt + len(self.running) * (self.page_count(self.most) > 1):
                if self.running:
                    break
                for other in dict.fromkeys(waiting.group for waiting in self.waiting if waiting.group is not group):
                    self.release(other)  # nothing else runs: prompts that only wait make room
            self.waiting.popleft()
            if prompt or request.length > 1:
                tokens += request.length - 1 + (group not in again) * len(group.prompt.ids)
                again.setdefault(group, [])
            if prompt:
                group.block_table = self.pool.allocate(prompt)
            request.block_table = self.pool.allocate(own)
            if request.length > 1:
                again[group].append(request)
            group.running += 1
            self.slots.set(len(self.running), request)
            self.running.append(request)
        return list(again.items())

    def assign_pages(self) -> None:
        """Pages for the tokens of the next steps. Where there are none left the youngest sample makes room."""
        host, size = self.slots.host, self.engine.page
        ahead = np.minimum(host.length[: len(self.running)] + self.engine.steps, self.most)
        for row in np.flatnonzero(-(-ahead // size) > [len(request.block_table) for request in self.running]):
            if row >= len(self.running):  # preempted meanwhile
                break
            request, needed = self.running[row], -(-int(ahead[row]) // size)
            while needed - len(request.block_table) > len(self.pool.free) and self.running[-1] is not request:
                self.preempt()
            if needed - len(request.block_table) > len(self.pool.free):
                self.preempt()  # itself
                break
            request.block_table += self.pool.allocate(needed - len(request.block_table))
            host.block_table[row, : len(request.block_table)] = request.block_table

    def preempt(self) -> None:
        request = self.running.pop()
        self.slots.keep(np.arange(len(self.running)))
        self.pool.free_pages(request.block_table)
        request.block_table = []
        request.group.running -= 1
        if not request.group.running:
            self.release(request.group)
        self.waiting.appendleft(request)
        self.engine.counters["preempted"] += 1

    def release(self, group: PromptGroup) -> None:
        self.pool.free_pages(group.block_table)
        group.block_table, self.slots.arranged = [], ([], (0, 0))  # the tables name pages that others may get

    def collect(self) -> Iterator[Completion]:
        """Take over what the steps drew, hand out the samples that ended, move the others together."""
        host, ended = self.slots.host, []
        for row, request in enumerate(self.running):
            if self.append_tokens(request, host.drawn[row], host.logps[row]):
                ended.append(row)
        finished = [self.running[row] for row in ended]
        keep = np.delete(np.arange(len(self.running)), ended)
        self.running = [self.running[row] for row in keep]
        self.slots.keep(keep)
        for request in finished:
            self.pool.free_pages(request.block_table)
            request.group.running -= 1
            yield self.complete(request)

    def append_tokens(self, request: Request, ids: np.ndarray, logps: np.ndarray) -> bool:
        """Append drawn tokens up to the first that ends the answer -> whether it has ended."""
        for token, logp in zip(ids[: self.most - request.length].tolist(), logps.tolist(), strict=False):
            request.ids[request.length], request.logps[request.length] = token, logp
            request.length += 1
            if token in self.policy.eos_ids:
                return True
        return request.length == self.most

    def complete(self, request: Request) -> Completion:
        group, ids, logps = request.group, request.ids[: request.length], request.logps[: request.length]
        group.unfinished -= 1
        if not group.unfinished:
            self.release(group)
        finish = "eos" if ids[-1] in self.policy.eos_ids else "length"
        text = self.policy.decode(ids.tolist())
        return Completion(group.prompt.sample_id, request.index, ids, logps, text, finish, group.number)
