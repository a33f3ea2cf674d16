"""What running pixa loads: no more than the job needs, and never what only training needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pixa

TRAINING = {"torch", "torchvision", "compressai", "onnx", "scipy"}
MODELS = {"onnxruntime", "constriction", "numpy"}


def loaded(code: str, *arguments: str | Path) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded when `code` is done."""
    script = f"import sys\nfrom pathlib import Path\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.fixture(scope="module")
def path(photo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runtime") / "photo.pixa"
    path.write_bytes(pixa.encode(photo[:48, :64]))
    return path


def test_import_loads_nothing_heavy():
    assert not loaded("import pixa") & (MODELS | TRAINING | {"PIL"})


def test_info_loads_no_runtime(path):
    modules = loaded("import pixa; assert pixa.info(Path(sys.argv[1]).read_bytes())['width'] == 64", path)
    assert not modules & (MODELS | TRAINING | {"PIL"})


def test_arrays_need_neither_training_nor_pillow():
    code = "import numpy, pixa; assert pixa.decode(pixa.encode(numpy.zeros((20, 30, 4), 'uint8'))).shape == (20, 30, 4)"
    modules = loaded(code)
    assert "onnxruntime" in modules
    assert not modules & (TRAINING | {"PIL"})


def test_targets_need_no_training():
    code = "import numpy, pixa; pixa.encode(numpy.zeros((20, 30, 3), 'uint8'), psnr=30, effort=3)"
    assert not loaded(code) & (TRAINING | {"PIL"})


def test_decoder_for_embedding_needs_no_pillow(path):
    code = "import pixa; d = pixa.Decoder(Path(sys.argv[1]).read_bytes()); d.picture(); d.symbols_sha256()"
    assert not loaded(code, path) & (TRAINING | {"PIL"})


def test_pillow_pictures_need_no_training(path):
    code = "import pixa; image = pixa.open_image(Path(sys.argv[1]).read_bytes()); pixa.encode(image)"
    modules = loaded(code, path)
    assert "PIL" in modules
    assert not modules & TRAINING
