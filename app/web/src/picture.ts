/** Whole pictures: tiles to latents, latents window by window to samples (FORMAT.md, sections 5 and 7). */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { type Container, type Head, parse } from "./container";
import { readAlpha, readMetadata } from "./inflate";
import { type Model, type Models, tensor } from "./model";
import { decodeTile, reconstruct } from "./tile";
import type { Backend, DecodeOptions, MetadataKind, Picture } from "./types";

const STRIDE = 16; // pixels a latent position
const WINDOW = 128; // latent positions a side
const WORTH_WEBGPU = 1 << 21; // pixels from which its larger download pays
const MAX_PIXELS = 1 << 26;

/**
 * Decode a file.
 *
 * @param goOn is awaited between parts of the work and throws to end it
 * @throws PixaError by name what is wrong with the file
 */
export async function decodePicture(
  data: Uint8Array, models: Models, options: DecodeOptions, goOn: () => Promise<void>,
): Promise<Picture> {
  const file = parse(data, options.maxPixels ?? MAX_PIXELS);
  const { head } = file;
  const { width, height, level } = head;
  const metadata: Picture["metadata"] = {};
  for (const [kind, payload] of Object.entries(file.metadata)) {
    metadata[kind as MetadataKind] = await readMetadata(payload);
  }
  const alpha = file.alpha && (await readAlpha(file.alpha, width, height));
  const watch = new Stopwatch();
  const model = await models.find(head.model, head.hash);
  const synthesis = options.synthesis ?? (await backendFor(width * height, model));
  watch.lap("model");
  const digest = options.symbols ? sha256.create() : undefined;
  const see = (symbols: Uint8Array) => digest?.update(symbols);
  const { latents, rows, columns } = await decodeLatents(file, model, watch, goOn, see);
  const samples = new Uint8ClampedArray(4 * width * height);
  for (const window of windows(rows, columns, model.halo)) {
    await goOn();
    const shape = [1, model.channels, window.outer.rows, window.outer.columns];
    const part = cut(latents, rows, columns, model.channels, window.outer);
    paint(samples, head, window, await model.synthesis(tensor(part, shape), level, synthesis));
  }
  for (let i = 0; i < width * height; i++) samples[4 * i + 3] = alpha ? alpha[i] : 255;
  watch.lap("samples");
  return {
    width, height, data: samples, quality: level / 2, model: model.name, metadata, synthesis,
    channels: (head.colour ? 3 : 1) + Number(head.alpha), tiles: file.tiles.length, bytes: data.length,
    bitsPerPixel: (8 * data.length) / (width * height), times: watch.times,
    symbolsSha256: digest && bytesToHex(digest.digest()),
  };
}

class Stopwatch {
  readonly times = { model: 0, symbols: 0, latents: 0, samples: 0 };
  private last = performance.now();

  lap(part: keyof Stopwatch["times"]): void {
    const now = performance.now();
    this.times[part] += now - this.last;
    this.last = now;
  }
}

async function decodeLatents(
  { head, tiles }: Container, model: Model, watch: Stopwatch, goOn: () => Promise<void>,
  see: (symbols: Uint8Array) => void,
): Promise<{ latents: Float32Array; rows: number; columns: number }> {
  const rows = Math.ceil(head.height / STRIDE);
  const columns = Math.ceil(head.width / STRIDE);
  const side = 2 ** head.tileLog2 / STRIDE;
  const latents = new Float32Array(model.channels * rows * columns);
  let number = 0;
  for (let top = 0; top < rows; top += side) {
    for (let left = 0; left < columns; left += side) {
      await goOn();
      const height = Math.min(side, rows - top);
      const width = Math.min(side, columns - left);
      const symbols = await decodeTile(tiles[number++], height, width, head.level, model);
      for (const { buffer } of [symbols.z, symbols.y]) see(new Uint8Array(buffer as ArrayBuffer));
      watch.lap("symbols");
      const tile = await reconstruct(symbols, head.level, model);
      for (let row = 0; row < model.channels * height; row++) {
        const to = (Math.floor(row / height) * rows + top + (row % height)) * columns + left;
        latents.set(tile.subarray(row * width, (row + 1) * width), to);
      }
      watch.lap("latents");
    }
  }
  return { latents, rows, columns };
}

interface Area {
  top: number;
  left: number;
  rows: number;
  columns: number;
}

interface Window {
  inner: Area;
  outer: Area;
}

/** The parts of a latent grid that are painted at once, each with the halo that makes it equal to the whole. */
function* windows(rows: number, columns: number, halo: number): Generator<Window> {
  for (let top = 0; top < rows; top += WINDOW) {
    for (let left = 0; left < columns; left += WINDOW) {
      const inner = { top, left, rows: Math.min(WINDOW, rows - top), columns: Math.min(WINDOW, columns - left) };
      const above = Math.min(halo, top);
      const before = Math.min(halo, left);
      const outer = {
        top: top - above,
        left: left - before,
        rows: Math.min(inner.rows + above + halo, rows - top + above),
        columns: Math.min(inner.columns + before + halo, columns - left + before),
      };
      yield { inner, outer };
    }
  }
}

function cut(planes: Float32Array, rows: number, columns: number, channels: number, area: Area): Float32Array {
  if (area.rows === rows && area.columns === columns) return planes;
  const part = new Float32Array(channels * area.rows * area.columns);
  for (let row = 0; row < channels * area.rows; row++) {
    const from = (Math.floor(row / area.rows) * rows + area.top + (row % area.rows)) * columns + area.left;
    part.set(planes.subarray(from, from + area.columns), row * area.columns);
  }
  return part;
}

/** Copy what a window shows, three samples a pixel, into the picture, four a pixel. */
function paint(samples: Uint8ClampedArray, head: Head, { inner, outer }: Window, shown: Uint8Array): void {
  const right = Math.min((inner.left + inner.columns) * STRIDE, head.width);
  const bottom = Math.min((inner.top + inner.rows) * STRIDE, head.height);
  for (let row = inner.top * STRIDE; row < bottom; row++) {
    let from = 3 * ((row - outer.top * STRIDE) * outer.columns + inner.left - outer.left) * STRIDE;
    let to = 4 * (row * head.width + inner.left * STRIDE);
    for (let column = inner.left * STRIDE; column < right; column++, from += 3, to += 4) {
      const grey = head.colour ? 0 : Math.round((shown[from] + shown[from + 1] + shown[from + 2]) / 3);
      samples[to] = head.colour ? shown[from] : grey;
      samples[to + 1] = head.colour ? shown[from + 1] : grey;
      samples[to + 2] = head.colour ? shown[from + 2] : grey;
    }
  }
}

/** The GPU for large pictures, where there is a real one, a wasm that can wait for it, and both get along. */
async function backendFor(pixels: number, model: Model): Promise<Backend> {
  const { gpu } = navigator as Navigator & { gpu?: { requestAdapter(): Promise<Adapter | null> } };
  if (pixels < WORTH_WEBGPU || !gpu || !("Suspending" in WebAssembly)) return "wasm";
  try {
    const adapter = await gpu.requestAdapter();
    if (!adapter || adapter.info?.isFallbackAdapter) return "wasm";
    await model.synthesiser("webgpu");
    return "webgpu";
  } catch {
    return "wasm";
  }
}

interface Adapter {
  info?: { isFallbackAdapter?: boolean };
}
