"""A file told by another one that holds most of its bytes: runs copied from there, and its own bytes between."""

from __future__ import annotations

import numpy as np

SHORTEST = 64  # bytes of a run that is looked for
OWN = -1  # place of a run that is not in the other file


def write_delta(data: bytes, source: bytes) -> tuple[np.ndarray, np.ndarray]:
    """What `read_delta` needs beside `source` to give `data`.

    Returns:
        runs (n, 2) int32, each (place in `source` or OWN, length), and the bytes of the OWN runs, uint8.
    """
    places: dict[bytes, int] = {}
    for place in range(0, len(source) - SHORTEST + 1, SHORTEST):
        places.setdefault(source[place : place + SHORTEST], place)
    runs, own, done, at = [], [], 0, 0
    while at < len(data):
        place = places.get(data[at : at + SHORTEST])
        if place is None:
            at += 1
            continue
        while at > done and place > 0 and data[at - 1] == source[place - 1]:
            at, place = at - 1, place - 1
        length = SHORTEST
        while data[at + length : at + length + 1] == source[place + length : place + length + 1] != b"":
            length += 1
        if at > done:
            runs.append((OWN, at - done))
            own.append(data[done:at])
        runs.append((place, length))
        done = at = at + length
    if done < len(data):
        runs.append((OWN, len(data) - done))
        own.append(data[done:])
    return np.array(runs, np.int32).reshape(-1, 2), np.frombuffer(b"".join(own), np.uint8)


def read_delta(runs: np.ndarray, own: np.ndarray, source: bytes) -> bytes:
    """The file whose delta to `source` this is."""
    parts, content, at = [], own.tobytes(), 0
    for place, length in runs.tolist():
        if place == OWN:
            parts.append(content[at : at + length])
            at += length
        else:
            parts.append(source[place : place + length])
    return b"".join(parts)
