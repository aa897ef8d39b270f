"""What has to be in the environment before torch is loaded: every script imports this first. Yours is kept.
And what Ctrl-C does meanwhile."""

import os
import signal
import sys

# torch's idle threads wait busily for some 0.15 ms, then sleep: others need the cores, above all the renderer
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# the tokenizer's own threads gain nothing here, and warn wherever a process forks
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def interrupted(signum, frame) -> None:
    """Ctrl-C as ever, but while a script's own imports run, which take seconds and have begun nothing: then one line
    and exit status 130 at once. Raised within an import it would be a long traceback, or another module's odd error."""
    stack = []
    while frame:
        stack.append(frame.f_code.co_filename)
        frame = frame.f_back
    if len(stack) < 2 or not stack[-2].startswith("<frozen importlib"):  # stack[-1] is the script
        signal.default_int_handler(signum, frame)
    if os.environ.get("RANK", "0") == "0":
        os.write(2, f"\n{os.path.basename(SCRIPT)}: stopped by Ctrl-C before anything began.\n".encode())
    os._exit(130)


# only where one of the scripts beside this file is what runs: who imports these modules elsewhere keeps his Ctrl-C
SCRIPT = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "/")
is_ours = os.path.dirname(SCRIPT) == os.path.dirname(os.path.abspath(__file__))
if is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup's is another
    signal.signal(signal.SIGINT, interrupted)
