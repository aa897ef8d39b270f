"""Answers from an OpenAI-compatible server (vLLM, SGLang, llama.cpp, a paid one): concurrent, retried, resumable.

Every answer is written to a file as it arrives, under a hash of the whole question. A rerun, after whatever ended the
last one, asks only for what is not there.
"""

import base64
import hashlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data import Sample
from synth import png_bytes

JUDGE_KEYS = ("JUDGE_API_KEY", "OPENAI_API_KEY")  # environment variables of a judge's key
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # HTTP statuses that may be better next time


@dataclass
class Answer:
    """What eval.py reads of a rollout.Completion. ids: only their number is known."""

    sample_id: str
    index: int
    text: str
    finish: str
    ids: Sequence[int] = ()


class Answers:
    """{question's key: reply}, in memory and in a jsonl file. A last line cut short by a kill is dropped."""

    def __init__(self, path: str | Path | None):
        self.known: dict[str, dict] = {}
        self.lock, self.file = threading.Lock(), None
        if path is None:
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self.known, kept = self.read(path)
            if kept < path.stat().st_size:
                os.truncate(path, kept)
        self.file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (kept open for the run)

    @staticmethod
    def read(path: Path) -> tuple[dict[str, dict], int]:
        """({key: reply}, bytes of whole lines) of a file."""
        known, whole = {}, path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        for number, line in enumerate(kept.splitlines(), 1):
            try:
                row = json.loads(line)
                known[row.pop("key")] = row
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ValueError(f"{path}, line {number} is no answer; remove that line.") from None
        return known, len(kept)

    def keep(self, key: str, reply: dict) -> None:
        with self.lock:
            self.known[key] = reply
            if self.file:
                self.file.write(json.dumps({"key": key} | reply) + "\n")
                self.file.flush()


class Server:
    """url: base address, with or without /v1. model: the name the server knows it by. path: where answers are kept.

    timeout: seconds for one request. retries: how often a request is repeated, after `pause` seconds that double each
    time (or what Retry-After says). keys: environment variables of which the first that is set holds the key.
    """

    def __init__(
        self,
        url: str,
        model: str,
        path: str | Path | None = None,
        concurrency: int = 16,
        timeout: float = 300.0,
        retries: int = 6,
        pause: float = 1.0,
        keys: Sequence[str] = ("OPENAI_API_KEY",),
    ):
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is no server's address; write http://host:port/v1.")
        base = url.rstrip("/")
        self.url = base + ("" if base.endswith("/v1") else "/v1") + "/chat/completions"
        self.model, self.timeout, self.retries, self.pause = model, timeout, retries, pause
        self.answers, self.threads = Answers(path), ThreadPoolExecutor(concurrency)
        self.keys, self.asked = keys, 0

    def answer(
        self, samples: Sequence[Sample], G: int, max_new_tokens: int, temperature: float, seed: int
    ) -> Iterator[Answer]:
        """G answers per sample, as they come. Raises RuntimeError, once all others are kept, if one cannot be had."""
        jobs = {}
        for sample in samples:
            content = [picture_part(sample.image), {"type": "text", "text": sample.prompt}]
            system = [{"role": "system", "content": sample.system}] if sample.system else []
            for index in range(G):
                question = {
                    "model": self.model,
                    "messages": [*system, {"role": "user", "content": content}],
                    "max_tokens": max_new_tokens,
                    "temperature": temperature,
                    "seed": (seed + index) % 2**31,
                }
                jobs[self.threads.submit(self.ask, question, (sample.id, index))] = (sample.id, index)
        failure = None
        for job in as_completed(jobs):
            try:
                reply = job.result()
            except RuntimeError as error:
                failure = error
                continue
            yield Answer(*jobs[job], reply["text"], reply["finish"], range(reply["tokens"]))
        if failure:
            raise failure

    def ask(self, question: dict, about: object, note: dict | None = None) -> dict:
        """{"text", "finish", "tokens"} and `note`: from the file if this was asked before, else from the server."""
        key = hashlib.sha256(json.dumps([about, question]).encode()).hexdigest()[:32]
        if key not in self.answers.known:
            self.answers.keep(key, self._request(json.dumps(question).encode()) | (note or {}))
        return self.answers.known[key]

    def _request(self, body: bytes) -> dict:
        headers = {"Content-Type": "application/json"}
        if key := next(filter(None, map(os.environ.get, self.keys)), None):
            headers["Authorization"] = f"Bearer {key}"
        problem = ""
        for attempt in range(self.retries + 1):
            wait = self.pause * 2**attempt
            try:
                self.asked += 1
                request = urllib.request.Request(self.url, body, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return reply_of(json.loads(response.read()))
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code} {error.read(300).decode(errors='replace').strip()}"
                if error.code not in AGAIN:
                    break
                after = error.headers.get("Retry-After", "")
                wait = max(wait, float(after)) if after.replace(".", "", 1).isdigit() else wait
            except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:  # lost, late, or no JSON
                problem = f"{type(error).__name__}: {error}"
            except Exception as error:  # http.client raises its own for a connection cut in the middle
                problem = f"{type(error).__name__}: {error}"
            if attempt < self.retries:
                time.sleep(min(wait, 60))
        raise RuntimeError(
            f"{self.url} gave no answer ({problem}); what was answered is kept, run the same command again."
        )


def reply_of(response: dict) -> dict:
    """KeyError, TypeError, IndexError where it is no chat completion."""
    choice = response["choices"][0]
    content = choice["message"]["content"]
    if content is not None and not isinstance(content, str):
        raise TypeError("the message's content is no text")
    tokens = (response.get("usage") or {}).get("completion_tokens") or 0
    finish = "length" if choice.get("finish_reason") == "length" else "eos"
    return {"text": content or "", "finish": finish, "tokens": int(tokens)}


def picture_part(image: Image.Image) -> dict:
    """A picture as a part of a message."""
    uri = f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}"
    return {"type": "image_url", "image_url": {"url": uri}}
