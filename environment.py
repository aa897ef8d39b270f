"""What has to be in the environment before torch is loaded: every script imports this first. Yours is kept."""

import os

# torch's idle threads wait busily for some 0.15 ms, then sleep: others need the cores, above all the renderer
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# the tokenizer's own threads gain nothing here, and warn wherever a process forks
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
