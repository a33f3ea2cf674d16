/** One entropy tile: its integers, decoded without a float, and the latents made of them (FORMAT.md, section 6). */
import type * as ort from "onnxruntime-web/wasm";
import { EntropyDecoder } from "./entropy";
import { type Memory, type Model, type Pass, tensor } from "./model";

const HYPER = 4; // latent positions a hyper-latent position
const Z_MAX = 127;
const CONTEXT_MAX = 15;

/** The integers of a tile, and what decoding them made known. */
export interface TileSymbols {
  z: Int16Array;
  y: Int16Array;
  height: number;
  width: number;
  memory: Memory;
}

/**
 * Decode the payload of a TILE for (height, width) latents.
 *
 * @throws PixaError Corrupt
 */
export async function decodeTile(
  payload: Uint8Array, height: number, width: number, level: number, model: Model,
): Promise<TileSymbols> {
  const decoder = new EntropyDecoder(payload, model.tables);
  const rows = Math.ceil(height / HYPER);
  const columns = Math.ceil(width / HYPER);
  const zTables = model.vector("z_index", level);
  const zIndexes = new Uint8Array(zTables.length * rows * columns);
  zTables.forEach((table, channel) => zIndexes.fill(table, channel * rows * columns, (channel + 1) * rows * columns));
  const z = Int16Array.from(decoder.decode(zIndexes), (symbol) => Math.min(Math.max(symbol, -Z_MAX), Z_MAX));
  const memory: Memory = new Map([["z", tensor(Float32Array.from(z), [1, -1, rows, columns])]]);
  const y = new Int16Array(model.channels * height * width);
  for (const [p, pass] of model.passes.entries()) {
    let index = await model.scale(p, memory, level);
    if (p === 0) {
      index = crop(index, height, width);
      for (const [name, value] of memory) if (name !== "z") memory.set(name, crop(value, height, width));
    }
    const indexes = index.data as Uint8Array;
    atPositions(pass, height, width, (_, coded, i) => coded || (indexes[i] = 0));
    const symbols = decoder.decode(indexes);
    const own = y.subarray(pass.from * height * width);
    const magnitude = new Float32Array(symbols.length);
    for (let i = 0; i < symbols.length; i++) {
      own[i] += symbols[i];
      magnitude[i] = Math.min(Math.abs(symbols[i]), CONTEXT_MAX);
    }
    memory.set("magnitude", tensor(magnitude, [1, -1, height, width]));
  }
  decoder.finish();
  return { z, y, height, width, memory };
}

/** The latents y_hat (M, h, w) of a tile. */
export async function reconstruct(symbols: TileSymbols, level: number, model: Model): Promise<Float32Array> {
  const { y, height, width } = symbols;
  const memory: Memory = new Map(symbols.memory);
  const step = model.vector("step", level);
  const latents = new Float32Array(y.length);
  for (const [p, pass] of model.passes.entries()) {
    const mean = (await model.mean(p, memory)).data as Float32Array;
    const first = pass.from * height * width;
    const coded = new Float32Array(mean.length);
    atPositions(pass, height, width, (channel, own, i) => {
      if (own) latents[first + i] = coded[i] = y[first + i] * step[channel] + mean[i];
    });
    memory.set("y_hat", tensor(coded, [1, -1, height, width]));
  }
  return latents;
}

/** Visit (channel, whether the pass codes it here, place among the channels of the pass) in raster order. */
function atPositions(
  { from, to, pattern }: Pass, height: number, width: number,
  visit: (channel: number, coded: boolean, place: number) => void,
): void {
  let place = 0;
  for (let channel = from; channel < to; channel++) {
    const coded = [0, 1, 2, 3].map((position) => !!pattern[4 * (channel - from) + position]);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) visit(channel, coded[2 * (row & 1) + (column & 1)], place++);
    }
  }
}

/** The first rows and columns of every channel. */
function crop(whole: ort.Tensor, height: number, width: number): ort.Tensor {
  const [, channels, rows, columns] = whole.dims;
  if (rows === height && columns === width) return whole;
  const data = whole.data as Float32Array | Uint8Array;
  const part = new (data.constructor as typeof Float32Array)(channels * height * width);
  for (let row = 0, to = 0; row < channels * height; row++, to += width) {
    const from = (Math.floor(row / height) * rows + (row % height)) * columns;
    part.set(data.subarray(from, from + width), to);
  }
  return new (whole.constructor as typeof ort.Tensor)(whole.type, part, [1, channels, height, width]) as ort.Tensor;
}
