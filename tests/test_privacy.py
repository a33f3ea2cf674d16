"""Nothing leaves the machine, and nothing is left in the home folder, whatever part of pixa is used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from textwrap import dedent

import pytest

from pixa.app import bundle

SAMPLE = Path(__file__).parents[1] / "app" / "samples" / "coffee.png"
ADDRESS = re.compile(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"')
USES = {
    "command line": """
        from pixa.cli import main
        assert main(["encode", sys.argv[1], "-o", "a.pixa"]) == main(["decode", "a.pixa", "-o", "a.png"]) == 0""",
    "videos": """
        import numpy as np, pixa
        pixa.write_video("a.pixa", np.zeros((2, 64, 64, 3), np.uint8), fps=25, model="fast")
        with pixa.open_video("a.pixa") as video:
            assert len(list(video)) == 2""",
    "training": """
        import torch, pixa.models.export.driver, pixa.models.training.program
        from pixa.models.registry import find_model
        from pixa.runtime.model import load_model
        load_model(find_model("fast"), 1)""",
    "benchmark": """
        from pixa.app.bench.pictures import main
        assert main([sys.argv[1], "--codecs", "jpeg", "--anchor", "jpeg", "--points", "2", "-o", "runs"]) == 0""",
    "page": """
        import time, urllib.request
        from pixa.app.page import program
        page = program.build()
        address = program.launch(page, program.LOOPBACK, None, block=False)
        assert urllib.request.urlopen(address).status == 200
        time.sleep(2)
        page.close(verbose=False)""",
    "bundle": """
        sys.path.insert(0, sys.argv[2])
        import decoder
        decoder.self_test()""",
}
pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="no strace is installed: apt-get install strace")


@pytest.mark.parametrize("use", USES)
def test_nobody_is_asked_and_nothing_is_left_at_home(use, tmp_path):
    home, work, trace = (tmp_path / name for name in ("home", "work", "trace"))
    home.mkdir()
    work.mkdir()
    assert bundle.main([str(work / "bundle")]) == 0
    switches = ("XDG_", "ORT_", "GRADIO_", "HF_", "MPL")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(switches)}
    watched = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", trace]
    command = [*watched, sys.executable, "-c", "import sys\n" + dedent(USES[use]), SAMPLE, work / "bundle"]
    environment |= {"HOME": str(home)}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []
    addresses = {address for pair in ADDRESS.findall(trace.read_text()) for address in pair if address}
    assert {address for address in addresses if not ip_address(address).is_loopback} == set()
