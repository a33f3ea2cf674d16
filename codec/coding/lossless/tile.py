"""A tile of a lossless picture to bytes and back: its kind, its palette or planes, and the coder of that kind."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from pixa.bitstream.container import read_varint, write_varint
from pixa.bitstream.deflate import deflate, inflate
from pixa.coding.lossless import drawings, photographs
from pixa.coding.lossless.symbols import Reader, Writer
from pixa.coding.lossless.wavefront import Wavefront
from pixa.errors import Corrupt

MAX_PALETTE = 4096
FLAT = 0.25  # of pixels with the colour of the one to the left or above, from which on a tile may be a drawing
FEW = 4096  # pixels up to which every kind is tried


class Kind(IntEnum):
    """The first byte of a tile."""

    GRADIENT = 0
    PALETTE = 1
    COMPONENTS = 2
    PHOTOGRAPH = 3
    NEAR = 4


def encode_tile(samples: np.ndarray, model: photographs.Model, step: int = 1) -> bytes:
    """The shortest coding of samples (height, width, C) uint8 or uint16.

    Args:
        step: odd; samples become multiples of it, at most half a step away. 1 keeps them.
    """
    if step > 1:
        return bytes([Kind.NEAR]) + write_varint(step) + encode_tile(quantise(samples, step), model)
    pixels = samples.shape[0] * samples.shape[1]
    packed = pack(samples)
    colours, numbers = np.unique(packed, return_inverse=True)
    numbers = numbers.reshape(packed.shape).astype(np.uint32)
    same = np.zeros(packed.shape, bool)
    same[1:], same[:, 1:] = packed[1:] == packed[:-1], same[:, 1:] | (packed[:, 1:] == packed[:, :-1])
    drawn, few = same.mean() > FLAT, pixels <= FEW
    codings = []
    if few or samples.dtype == np.uint16:
        codings.append(bytes([Kind.GRADIENT]) + encode_gradient(samples))
    if len(colours) <= MAX_PALETTE and (few or drawn or len(colours) <= 256):
        codings.append(bytes([Kind.PALETTE]) + encode_palette(colours, numbers, samples))
    if samples.dtype == np.uint8 and (few or (drawn and len(colours) > MAX_PALETTE)):
        codings.append(bytes([Kind.COMPONENTS]) + encode_components(packed.astype(np.uint32), samples.shape[2]))
    if len(colours) > 16 and not (len(colours) <= 256 and same.mean() > 0.9):
        codings.append(bytes([Kind.PHOTOGRAPH]) + encode_photograph(samples, model))
    return min(codings, key=len)


def decode_tile(payload: bytes, shape: tuple[int, int, int], dtype: type, model: photographs.Model) -> np.ndarray:
    """The samples of a tile.

    Raises:
        Corrupt: the payload contradicts itself.
    """
    if payload and payload[0] == Kind.NEAR:
        return decode_near(payload[1:], shape, dtype, model)
    decoders = {
        Kind.GRADIENT: decode_gradient,
        Kind.PALETTE: decode_palette,
        Kind.COMPONENTS: decode_components,
        Kind.PHOTOGRAPH: lambda *tile: decode_photograph(*tile, model),
    }
    if not payload or payload[0] not in decoders:
        raise Corrupt("a tile is of no known kind")
    return decoders[payload[0]](payload[1:], shape, dtype)


def quantise(samples: np.ndarray, step: int) -> np.ndarray:
    """Samples in steps, rounded."""
    return ((samples.astype(np.uint32) + step // 2) // step).astype(samples.dtype)


def dequantise(numbers: np.ndarray, step: int) -> np.ndarray:
    """The inverse of `quantise`, as near as it is; what is beyond the largest sample becomes that."""
    return np.minimum(numbers.astype(np.uint32) * step, np.iinfo(numbers.dtype).max).astype(numbers.dtype)


def decode_near(payload: bytes, shape: tuple[int, int, int], dtype: type, model: photographs.Model) -> np.ndarray:
    """A step, then a tile of another kind whose samples count such steps."""
    step, start = read_varint(payload, 0)
    if not 3 <= step <= np.iinfo(dtype).max or step % 2 == 0 or payload[start : start + 1] == bytes([Kind.NEAR]):
        raise Corrupt("a tile has a step that there is not")
    return dequantise(decode_tile(payload[start:], shape, dtype, model), step)


def pack(samples: np.ndarray) -> np.ndarray:
    """Samples (h, w, C) as one uint64 a pixel, the first sample in its lowest bits, by the bits of their type."""
    shifts = 8 * samples.itemsize * np.arange(samples.shape[2], dtype=np.uint64)
    return (samples.astype(np.uint64) << shifts).sum(2, dtype=np.uint64)


def unpack(packed: np.ndarray, channels: int, dtype: type) -> np.ndarray:
    """The inverse of `pack`, of packed colours of any shape."""
    return packed.astype("<u8")[..., None].view(np.dtype(dtype).newbyteorder("<"))[..., :channels].astype(dtype)


def take(payload: bytes, size: int) -> tuple[bytes, bytes]:
    """A zlib stream of `size` bytes behind its length, inflated, and what follows it.

    Raises:
        Corrupt: as `inflate`; it is cut.
    """
    length, start = read_varint(payload, 0)
    if start + length > len(payload):
        raise Corrupt("a tile is shorter than it says")
    return inflate(payload[start : start + length], size), payload[start + length :]


def give(data: bytes) -> bytes:
    """What `take` takes."""
    stream = deflate(data)
    return write_varint(len(stream)) + stream


def planar(samples: np.ndarray) -> bytes:
    """Bytes of samples (..., C): plane by plane, of each all low bytes, then all high ones."""
    planes = np.ascontiguousarray(np.moveaxis(samples, -1, 0)).astype(samples.dtype.newbyteorder("<"))
    return planes.view(np.uint8).reshape(len(planes), -1, samples.itemsize).swapaxes(1, 2).tobytes()


def from_planar(data: bytes, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """The inverse of `planar`."""
    size = np.dtype(dtype).itemsize
    planes = np.frombuffer(data, np.uint8).reshape(shape[-1], size, -1).swapaxes(1, 2)
    planes = np.ascontiguousarray(planes).view(np.dtype(dtype).newbyteorder("<")).reshape(shape[-1], *shape[:-1])
    return np.moveaxis(planes, 0, -1).astype(dtype)


def encode_gradient(samples: np.ndarray) -> bytes:
    """Samples less W + N - NW, modulo their range, deflated."""
    return deflate(planar(np.diff(np.diff(samples, axis=0, prepend=0), axis=1, prepend=0).astype(samples.dtype)))


def decode_gradient(payload: bytes, shape: tuple[int, int, int], dtype: type) -> np.ndarray:
    rest = from_planar(inflate(payload, int(np.prod(shape)) * np.dtype(dtype).itemsize), shape, dtype)
    return np.add.accumulate(np.add.accumulate(rest, 0, dtype), 1, dtype)


def encode_palette(colours: np.ndarray, numbers: np.ndarray, samples: np.ndarray) -> bytes:
    """The palette, each colour less the one before, then the numbers of the colours."""
    palette = unpack(colours, samples.shape[2], samples.dtype.type)
    coder = Writer()
    if len(colours) > 1:
        drawings.walk(Wavefront(*numbers.shape), coder, drawings.Palette(len(colours)), numbers)
    return (
        write_varint(len(colours))
        + give(planar(np.diff(palette, axis=0, prepend=0).astype(palette.dtype)))
        + coder.payload()
    )


def decode_palette(payload: bytes, shape: tuple[int, int, int], dtype: type) -> np.ndarray:
    size, start = read_varint(payload, 0)
    if not 1 <= size <= MAX_PALETTE:
        raise Corrupt(f"a palette of {size} colours")
    data, words = take(payload[start:], size * shape[2] * np.dtype(dtype).itemsize)
    palette = np.add.accumulate(from_planar(data, (size, shape[2]), dtype), 0, dtype)
    reader = Reader(words)
    numbers = np.zeros(shape[:2], np.uint32)
    if size > 1:
        numbers = drawings.walk(Wavefront(*shape[:2]), reader, drawings.Palette(size))
    reader.finish()
    return palette[numbers]


def encode_components(packed: np.ndarray, channels: int) -> bytes:
    coder = Writer()
    drawings.walk(Wavefront(*packed.shape), coder, drawings.Components(channels), packed)
    return coder.payload()


def decode_components(payload: bytes, shape: tuple[int, int, int], dtype: type) -> np.ndarray:
    if dtype != np.uint8:
        raise Corrupt("a tile of components has more than 8 bits a sample")
    reader = Reader(payload)
    packed = drawings.walk(Wavefront(*shape[:2]), reader, drawings.Components(shape[2]))
    reader.finish()
    return unpack(packed, shape[2], dtype)


def encode_photograph(samples: np.ndarray, model: photographs.Model) -> bytes:
    """Low bits that are more than 8, deflated; which planes are constant, and their values; the others."""
    low = max(0, int(samples.max()).bit_length() - 8)
    header = give(planar(samples & samples.dtype.type((1 << low) - 1))) if low else b""
    planes, transform = best_planes((samples >> low).astype(np.int32), model)
    header = bytes([low, transform]) + header
    constant = [plane.min() == plane.max() for plane in planes]
    header += bytes([sum(flag << p for p, flag in enumerate(constant))])
    for plane, flag in zip(planes, constant, strict=True):
        header += np.array(plane[0, 0], "<i2").tobytes() if flag else b""
    coded = [plane for plane, flag in zip(planes, constant, strict=True) if not flag]
    if not coded:
        return header
    return header + photographs.encode(coded, looks(samples.shape[2], constant), model)


def decode_photograph(payload: bytes, shape: tuple[int, int, int], dtype: type, model: photographs.Model) -> np.ndarray:
    height, width, channels = shape
    if len(payload) < 2 or payload[0] > 8 * (np.dtype(dtype).itemsize - 1) or payload[1] >= len(TRANSFORMS):
        raise Corrupt("a tile has bits or a transform that there are not")
    low, transform, rest, payload = *payload[:2], b"", payload[2:]
    if low:
        rest, payload = take(payload, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    if not payload or payload[0] >> channels:
        raise Corrupt("a tile has constant planes that its picture has not")
    constant = [bool(payload[0] >> p & 1) for p in range(channels)]
    start = 1 + 2 * sum(constant)
    values = np.frombuffer(payload, "<i2", count=-1 if len(payload) < start else sum(constant), offset=1)
    if len(payload) < start or (all(constant) and len(payload) > start):
        raise Corrupt("a tile is shorter or longer than it says")
    limits = ranges(channels)
    coded = iter(())
    if not all(constant):
        chosen = [limit for limit, flag in zip(limits, constant, strict=True) if not flag]
        coded = iter(photographs.decode(payload[start:], height, width, chosen, looks(channels, constant), model))
    values = iter(values.tolist())
    planes = [np.full((height, width), next(values)) if flag else next(coded) for flag in constant]
    samples = joined(planes, transform)
    if samples.min() < 0 or samples.max() > 255:
        raise Corrupt("a sample of a tile is out of its range")
    samples = samples.astype(dtype) << dtype(low)
    return samples | from_planar(rest, shape, dtype) if low else samples


def best_planes(samples: np.ndarray, model: photographs.Model) -> tuple[list[np.ndarray], int]:
    """The planes by the transform under which they are predicted best, and its number."""
    if samples.shape[2] < 3:
        return split(samples, 0), 0
    choices = [split(samples, number) for number in range(len(TRANSFORMS))]
    costs = [photographs.estimate(planes[:3], looks(3, [False] * 3), model) for planes in choices]
    return choices[np.argmin(costs)], int(np.argmin(costs))


def split(samples: np.ndarray, transform: int) -> list[np.ndarray]:
    """The planes of samples (h, w, C) int32: of colour by a transform, then alpha."""
    planes = list(np.moveaxis(samples, 2, 0))
    return planes if len(planes) < 3 else [*TRANSFORMS[transform][0](*planes[:3]), *planes[3:]]


def joined(planes: list[np.ndarray], transform: int) -> np.ndarray:
    """The inverse of `split`."""
    colour = planes if len(planes) < 3 else [*TRANSFORMS[transform][1](*planes[:3]), *planes[3:]]
    return np.stack(colour, 2)


def to_ycocg(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> list[np.ndarray]:
    """The reversible YCoCg of Malvar and Sullivan (2003)."""
    orange = red - blue
    middle = blue + (orange >> 1)
    return [middle + ((green - middle) >> 1), orange, green - middle]


def from_ycocg(luma: np.ndarray, orange: np.ndarray, rest: np.ndarray) -> list[np.ndarray]:
    middle = luma - (rest >> 1)
    blue = middle - (orange >> 1)
    return [blue + orange, rest + middle, blue]


TRANSFORMS = (
    (
        lambda red, green, blue: [green, red - green, blue - green],
        lambda green, red, blue: [red + green, green, blue + green],
    ),
    (to_ycocg, from_ycocg),
    (
        lambda red, green, blue: [red, green - red, blue - green],
        lambda red, green, blue: [red, red + green, red + green + blue],
    ),
)


def ranges(channels: int) -> list[tuple[int, int]]:
    """Smallest and largest sample of each plane."""
    return [(0, 255)] * channels if channels < 3 else [(0, 255), (-255, 255), (-255, 255), (0, 255)][:channels]


def looks(channels: int, constant: list[bool]) -> list[list[int]]:
    """Of each plane that is not constant, the earlier ones of these that it looks at: of colour all, of alpha none."""
    coded = [p for p in range(channels) if not constant[p]]
    return [[coded.index(q) for q in coded if q < p < 3 <= channels] for p in coded]
