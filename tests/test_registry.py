"""The models that there are, and those that there were."""

from __future__ import annotations

from dataclasses import replace

import pytest

import pixa
from pixa import errors
from pixa.bitstream.container import Chunk, read_file, write_file
from pixa.bitstream.headers import Head
from pixa.models.registry import RETIRED, find_model, list_models


def test_a_wire_id_belongs_to_one_model_for_ever():
    ids = [entry.wire_id for entry in list_models()]
    assert len({*ids, *RETIRED}) == len(ids) + len(RETIRED)


@pytest.mark.parametrize("wire_id", RETIRED)
def test_files_of_retired_models_are_refused_with_who_reads_them(run, photo, tmp_path, wire_id):
    head, *rest = read_file(pixa.encode(photo[:32, :32]))
    old = Chunk(head.type, replace(Head.read(head.payload), model=wire_id).write())
    (tmp_path / "old.pixa").write_bytes(write_file([old, *rest]))
    code, _, lines = run("decode", tmp_path / "old.pixa", "-o", tmp_path / "old.png")
    assert code == errors.ModelMissing.exit_code == 5
    assert all(word in lines[0] for word in RETIRED[wire_id])
    assert run("info", tmp_path / "old.pixa")[0] == 0


@pytest.mark.parametrize("name", [name for name, _ in RETIRED.values()])
def test_retired_models_code_nothing_more(name):
    with pytest.raises(errors.ModelMissing, match="retired"):
        find_model(name)
