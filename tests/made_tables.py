"""A page pool in which three prompts and seven responses lie scattered, for tests of attention over pages."""

import torch

from kernels import KeyTable

PROMPTS, MEMBERS = [37, 16, 5], [[4, 0, 6], [1, 3, -1], [2, 5, -1]]
RESPONSES = [1, 20, 16, 33, 2, 9, 48]


def made_tables(H: int, C: int, D: int = 16, size: int = 16, count: int = 20, dtype=torch.float32):
    """-> q (7, H, D), kv (count, 2, C, size, D), the prompts' and the responses' KeyTable. Page 0 belongs to nobody."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(7, H, D, generator=generator, dtype=dtype)
    kv = torch.randn(count, 2, C, size, D, generator=generator, dtype=dtype)
    free = iter((torch.randperm(count - 1, generator=generator) + 1).tolist())

    def table(rows, lengths):
        pages = torch.zeros(len(lengths), -(-max(lengths) // size) + 1, dtype=torch.int32)
        for item, length in enumerate(lengths):
            for column in range(-(-length // size)):
                pages[item, column] = next(free)
        return KeyTable(torch.tensor(rows, dtype=torch.int32), torch.tensor(lengths, dtype=torch.int32), pages, size)

    return q, kv, table(MEMBERS, PROMPTS), table([[row] for row in range(7)], RESPONSES)


def keys_of(kv, table: KeyTable, item: int) -> torch.Tensor:
    """(2, C, length, D) the keys and values of an item, gathered."""
    return kv[table.block_table[item].long()].permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, : table.lengths[item]]
