"""The weights of convolutions, read from graphs without a library for ONNX."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pixa.bitstream.container import read_varint

GRAPH, NODE, INITIALIZER = 7, 1, 5  # fields of a model, and of its graph
NODE_INPUT, NODE_OUTPUT, NODE_OPERATOR = 1, 2, 4
TENSOR_DIMENSIONS, TENSOR_TYPE, TENSOR_NAME, TENSOR_BYTES = 1, 2, 8, 9
TYPES = {1: "<f4", 10: "<f2"}


def convolutions(content: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight (C_out, C_in, k, k), bias (C_out,)) of the convolutions of a graph in their order, float32."""
    (graph,) = (value for field, value in fields(content) if field == GRAPH)
    arrays, result = {}, []
    for field, value in fields(graph):
        if field == INITIALIZER:
            name, array = tensor(value)
            arrays[name] = array
    for field, value in fields(graph):
        if field != NODE:
            continue
        parts = list(fields(value))
        texts = {n: [part.decode() for number, part in parts if number == n] for n in (1, 2, 4)}
        inputs, (output, *_), (operator,) = texts[NODE_INPUT], texts[NODE_OUTPUT], texts[NODE_OPERATOR]
        if operator == "Cast" and inputs[0] in arrays:
            arrays[output] = arrays[inputs[0]]
        if operator == "Conv":
            result.append((arrays[inputs[1]], arrays[inputs[2]]))
    return result


def tensor(content: bytes) -> tuple[str, np.ndarray | None]:
    """Name and elements of a tensor, these only of floats, as float32."""
    dimensions, kind, name, data = [], 0, "", b""
    for field, value in fields(content):
        if field == TENSOR_DIMENSIONS:
            dimensions += [value] if isinstance(value, int) else varints(value)
        elif field == TENSOR_TYPE:
            kind = value
        elif field == TENSOR_NAME:
            name = value.decode()
        elif field == TENSOR_BYTES:
            data = value
    return name, np.frombuffer(data, TYPES[kind]).astype(np.float32).reshape(dimensions) if kind in TYPES else None


def fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of the fields of a message of Protocol Buffers.

    Raises:
        Corrupt: it is none.
    """
    place = 0
    while place < len(content):
        key, place = read_varint(content, place)
        if key & 7 == 0:
            value, place = read_varint(content, place)
        else:
            size = {1: 8, 5: 4}.get(key & 7)
            if size is None:
                size, place = read_varint(content, place)
            value, place = content[place : place + size], place + size
        yield key >> 3, value


def varints(content: bytes) -> list[int]:
    place, result = 0, []
    while place < len(content):
        value, place = read_varint(content, place)
        result.append(value)
    return result
