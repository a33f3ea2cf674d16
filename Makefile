# Each target sets up what it needs from nothing. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
DEMO = .venv-demo/bin
TEST = .venv-test/bin

.PHONY: demo test bench lint clean

demo: .venv-demo/ready
	$(DEMO)/python -m pixa.app.bench.showcase --output demo.png

test: .venv-test/ready
	$(TEST)/ruff check .
	$(TEST)/lint-imports
	$(TEST)/python -m pytest --numprocesses 2 --dist loadfile -rs --durations=20

# KODAK is a folder of pictures, CURVES published rate-distortion points in CompressAI's schema.
bench: .venv-test/ready
	$(TEST)/python -m pixa.app.bench $(KODAK) --curves $(CURVES) -o runs/bench

SOURCES = $(wildcard $(foreach folder,codec bitstream models datasets app,$(folder)/*.py $(folder)/*/*.py)) \
	bitstream/FORMAT.md $(wildcard app/page/* app/bench/kodak/* weights/*.json weights/*/*)

.venv-demo/ready: pyproject.toml $(SOURCES)
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/pip install --quiet .
	touch $@

# torch is installed first and pinned, so that resolving the extras keeps its build.
.venv-test/ready: pyproject.toml $(SOURCES)
	$(PYTHON) -m venv .venv-test
	$(TEST)/pip install --quiet torch==2.13.0
	$(TEST)/pip install --quiet torch==2.13.0 ".[heif,video,train,bench,app,cluster,dev]"
	$(TEST)/pip install --quiet --no-deps lpips
	touch $@

clean:
	rm -rf .venv-demo .venv-test build runs demo.png
