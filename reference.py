"""A plain sampler: what rollout.py's engine does, without pages, slots or a cache. The way into that file, and what it
is tested against: same prompts, same seeds, same completions.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

import kernels
from packing import Prompt
from rollout import Completion, banned_ids, sample_seed


@torch.no_grad()
def reference_generate(
    policy, prompts: Sequence[Prompt], G: int, max_new_tokens: int = 1024, temperature: float = 1.0, seed: int = 0
) -> Iterator[Completion]:
    """The completions of `generate` in the plainest way: one after the other, each token by Hugging Face's forward pass
    over all before it."""
    banned = torch.zeros(policy.hf.config.text_config.vocab_size, dtype=torch.bool, device=policy.device)
    banned[banned_ids(policy)] = True
    for number, prompt in enumerate(prompts):
        picture = {"pixel_values": prompt.patches.to(policy.device), "image_grid_thw": prompt.grid.to(policy.device)}
        for index in range(G):
            noise = torch.tensor([sample_seed(seed, number * G + index)], device=policy.device)
            ids, positions = prompt.ids.to(policy.device), prompt.positions.to(policy.device)  # (T,), (3, T)
            drawn, logps = [], []
            while len(drawn) < max_new_tokens and not set(drawn[-1:]) & set(policy.eos_ids):
                seen = {"input_ids": ids[None], "position_ids": positions[:, None]}
                hidden = policy.hf.model(**seen, **picture, use_cache=False).last_hidden_state[:, -1]
                step = torch.full_like(noise, len(drawn))
                logits = policy.hf.lm_head(hidden)  # (1, V)
                token, logp = kernels.sample_tokens(logits, noise, step, temperature, banned)
                next_position = torch.full_like(positions[:, :1], prompt.next_position + len(drawn))
                ids, positions = torch.cat([ids, token]), torch.cat([positions, next_position], 1)
                drawn.append(token.item())
                logps.append(logp.item())
            finish = "eos" if drawn[-1] in policy.eos_ids else "length"
            arrays = np.array(drawn, np.int32), np.array(logps, np.float32)
            yield Completion(prompt.sample_id, index, *arrays, policy.decode(drawn), finish, number)
