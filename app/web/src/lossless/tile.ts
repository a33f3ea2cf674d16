/** One lossless tile: its kind, and the samples of that kind (FORMAT.md, annex B.1). */
import { readVarint } from "../container";
import { PixaError } from "../errors";
import { inflate } from "../inflate";
import { Components, Palette, walk } from "./drawings";
import { decodePlanes, type LosslessModel } from "./photographs";
import { SymbolReader } from "./symbols";
import { Wavefront } from "./wavefront";

const MAX_PALETTE = 4096;
const TRANSFORMS = 3;

/** Size and samples of a tile. */
export interface Shape {
  height: number;
  width: number;
  channels: number;
  bits: 8 | 16;
}

type Samples = Uint16Array<ArrayBuffer>;

/** The samples of a tile, pixel by pixel. @throws PixaError Corrupt */
export async function decodeLosslessTile(payload: Uint8Array, shape: Shape, model: LosslessModel): Promise<Samples> {
  const rest = payload.subarray(1);
  switch (payload[0]) {
    case 0: return decodeGradient(rest, shape);
    case 1: return decodePalette(rest, shape);
    case 2: return decodeComponents(rest, shape);
    case 3: return decodePhotograph(rest, shape, model);
    case 4: return decodeNear(rest, shape, model);
    default: throw new PixaError("Corrupt", "a tile is of no known kind");
  }
}

/** Samples less W + N - NW, modulo their range. */
async function decodeGradient(payload: Uint8Array, shape: Shape): Promise<Samples> {
  const { height, width, channels, bits } = shape;
  const samples = fromPlanar(await inflate(payload, (height * width * channels * bits) / 8), channels, bits);
  const mask = 2 ** bits - 1;
  const row = width * channels;
  for (let i = row; i < samples.length; i++) samples[i] = (samples[i] + samples[i - row]) & mask;
  for (let i = 0; i < samples.length; i++) {
    if (i % row >= channels) samples[i] = (samples[i] + samples[i - channels]) & mask;
  }
  return samples;
}

/** The palette, each colour less the one before, then the numbers of the colours. */
async function decodePalette(payload: Uint8Array, { height, width, channels, bits }: Shape): Promise<Samples> {
  const [size, start] = readVarint(payload, 0);
  if (size < 1 || size > MAX_PALETTE) throw new PixaError("Corrupt", `a palette of ${size} colours`);
  const [data, words] = await take(payload.subarray(start), (size * channels * bits) / 8);
  const palette = fromPlanar(data, channels, bits);
  const mask = 2 ** bits - 1;
  for (let i = channels; i < palette.length; i++) palette[i] = (palette[i] + palette[i - channels]) & mask;
  const reader = new SymbolReader(words);
  const wave = new Wavefront(height, width);
  const numbers = size > 1 ? walk(wave, reader, new Palette(size)) : new Uint32Array(height * width);
  reader.finish();
  const samples = new Uint16Array(height * width * channels);
  numbers.forEach((n, i) => samples.set(palette.subarray(n * channels, (n + 1) * channels), i * channels));
  return samples;
}

function decodeComponents(payload: Uint8Array, { height, width, channels, bits }: Shape): Samples {
  if (bits !== 8) throw new PixaError("Corrupt", "a tile of components has more than 8 bits a sample");
  const reader = new SymbolReader(payload);
  const packed = walk(new Wavefront(height, width), reader, new Components(channels));
  reader.finish();
  const samples = new Uint16Array(height * width * channels);
  for (let i = 0; i < samples.length; i++) samples[i] = (packed[Math.floor(i / channels)] >>> (8 * (i % channels))) & 255;
  return samples;
}

/** Low bits that are more than 8, deflated; which planes are constant, and their values; the others. */
async function decodePhotograph(payload: Uint8Array, shape: Shape, model: LosslessModel): Promise<Samples> {
  const { height, width, channels, bits } = shape;
  const [low, transform] = payload;
  if (payload.length < 2 || low > bits - 8 || transform >= TRANSFORMS) {
    throw new PixaError("Corrupt", "a tile has bits or a transform that there are not");
  }
  let rest = payload.subarray(2);
  let lowBits: Samples | undefined;
  if (low) {
    const [data, behind] = await take(rest, (height * width * channels * bits) / 8);
    [lowBits, rest] = [fromPlanar(data, channels, bits), behind];
  }
  if (!rest.length || rest[0] >> channels) {
    throw new PixaError("Corrupt", "a tile has constant planes that its picture has not");
  }
  const constant = Array.from({ length: channels }, (_, p) => !!((rest[0] >> p) & 1));
  const start = 1 + 2 * constant.filter(Boolean).length;
  const none = constant.every(Boolean);
  if (rest.length < start || (none && rest.length > start)) {
    throw new PixaError("Corrupt", "a tile is shorter or longer than it says");
  }
  const view = new DataView(rest.buffer, rest.byteOffset, rest.byteLength);
  const coded = constant.flatMap((flag, p) => (flag ? [] : [p]));
  const difference = (p: number) => channels > 2 && (p === 1 || p === 2);
  const limits = coded.map((p) => [difference(p) ? -255 : 0, 255]);
  const looks = coded.map((p) => coded.flatMap((q, i) => (q < p && p < 3 && channels > 2 ? [i] : [])));
  const found = none ? [] : decodePlanes(rest.subarray(start), height, width, limits, looks, model);
  let place = -1;
  const planes = constant.map((flag) =>
    flag ? new Int32Array(height * width).fill(view.getInt16((place += 2), true)) : found.shift()!);
  const samples = new Uint16Array(height * width * channels);
  for (let i = 0; i < height * width; i++) {
    const pixel = planes.map((plane) => plane[i]);
    if (channels > 2) pixel.splice(0, 3, ...colourOf(transform, pixel));
    for (const [p, sample] of pixel.entries()) {
      if (sample < 0 || sample > 255) throw new PixaError("Corrupt", "a sample of a tile is out of its range");
      const at = i * channels + p;
      samples[at] = (sample << low) | (lowBits ? lowBits[at] : 0);
    }
  }
  return samples;
}

/** A step, then a tile of another kind whose samples count such steps. */
async function decodeNear(payload: Uint8Array, shape: Shape, model: LosslessModel): Promise<Samples> {
  const [step, start] = readVarint(payload, 0);
  const most = 2 ** shape.bits - 1;
  if (step < 3 || step > most || step % 2 === 0 || payload[start] === 4) {
    throw new PixaError("Corrupt", "a tile has a step that there is not");
  }
  const counts = await decodeLosslessTile(payload.subarray(start), shape, model);
  return counts.map((count) => Math.min(count * step, most));
}

/** Red, green and blue of the planes of a transform. */
function colourOf(transform: number, [a, b, c]: number[]): number[] {
  if (transform === 0) return [b + a, a, c + a];
  if (transform === 2) return [a, a + b, a + b + c];
  const middle = a - (c >> 1);
  const blue = middle - (b >> 1);
  return [blue + b, c + middle, blue];
}

/** A zlib stream of `size` bytes behind its length, inflated, and what follows it. */
async function take(payload: Uint8Array, size: number): Promise<[Uint8Array, Uint8Array]> {
  const [length, start] = readVarint(payload, 0);
  if (start + length > payload.length) throw new PixaError("Corrupt", "a tile is shorter than it says");
  return [await inflate(payload.subarray(start, start + length), size), payload.subarray(start + length)];
}

/** Samples pixel by pixel, of bytes plane by plane, of 16 bits all low ones of a plane before its high ones. */
function fromPlanar(data: Uint8Array, channels: number, bits: number): Samples {
  const pixels = (8 * data.length) / bits / channels;
  const samples = new Uint16Array(pixels * channels);
  const bytes = bits / 8;
  for (let i = 0; i < data.length; i++) {
    const part = Math.floor(i / pixels);
    samples[(i % pixels) * channels + Math.floor(part / bytes)] |= data[i] << (8 * (part % bytes));
  }
  return samples;
}
