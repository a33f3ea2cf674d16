/** Samples that are coded themselves: lossless pictures, and the patches of others (FORMAT.md, 3.10 and annex B). */
import { type Container, readVarint } from "../container";
import { PixaError } from "../errors";
import type { Models } from "../model";
import type { LosslessModel } from "./photographs";
import { decodeLosslessTile } from "./tile";

const AREA = 1024; // pixels a side, of what one patch belongs to
const BLOCK = 64; // and of what it is made of
const MODEL = 6; // bytes of wire id and hash

type See = (symbols: ArrayBufferView) => void;

/** Paint a lossless picture, four samples a pixel; `see` gets all samples as 16-bit integers. */
export async function paintLossless(
  target: Uint8ClampedArray, { head, tiles }: Container, model: LosslessModel, goOn: () => Promise<void>, see: See,
): Promise<void> {
  const { width, bits } = head;
  const channels = (head.colour ? 3 : 1) + Number(head.alpha);
  const whole = new Uint16Array(head.height * width * channels);
  const side = 2 ** head.tileLog2;
  let number = 0;
  for (let top = 0; top < head.height; top += side) {
    for (let left = 0; left < width; left += side) {
      await goOn();
      const size = { height: Math.min(side, head.height - top), width: Math.min(side, width - left) };
      const samples = await decodeLosslessTile(tiles[number++], { ...size, channels, bits }, model);
      const row = size.width * channels;
      for (let r = 0; r < size.height; r++) {
        whole.set(samples.subarray(r * row, (r + 1) * row), ((top + r) * width + left) * channels);
      }
    }
  }
  see(whole);
  for (let i = 0; i < head.height * width; i++) {
    const pixel = whole.subarray(i * channels, (i + 1) * channels);
    put(target, 4 * i, pixel, head.colour, bits - 8);
    if (head.alpha) target[4 * i + 3] = pixel[channels - 1] >> (bits - 8);
  }
}

/** Lay patches over a picture, four samples a pixel. @throws PixaError Corrupt, ModelMissing, Unreachable */
export async function paintPatches(
  target: Uint8ClampedArray, { head, patches }: Container, models: Models, goOn: () => Promise<void>, see: See,
): Promise<void> {
  const across = Math.ceil(head.width / AREA);
  let last = -1;
  for (const payload of patches) {
    await goOn();
    const [area, start] = readVarint(payload, 0);
    if (area <= last || area >= across * Math.ceil(head.height / AREA)) {
      throw new PixaError("Corrupt", "a patch is out of order or outside the picture");
    }
    last = area;
    const [top, left] = [AREA * Math.floor(area / across), AREA * (area % across)];
    const [height, width] = [Math.min(AREA, head.height - top), Math.min(AREA, head.width - left)];
    const columns = Math.ceil(width / BLOCK);
    const blocks = columns * Math.ceil(height / BLOCK);
    const end = start + MODEL + Math.ceil(blocks / 8);
    if (payload.length < end) throw new PixaError("Corrupt", "a patch is shorter than its header");
    const bits = Array.from({ length: 8 * Math.ceil(blocks / 8) }, (_, i) =>
      !!((payload[start + MODEL + (i >> 3)] >> (7 - (i & 7))) & 1));
    if (!bits.includes(true) || bits.lastIndexOf(true) >= blocks) {
      throw new PixaError("Corrupt", "a patch has no blocks, or some that its area has not");
    }
    const view = new DataView(payload.buffer, payload.byteOffset + start, MODEL);
    const hash = view.getUint32(2, true).toString(16).padStart(8, "0");
    const model = await models.findLossless(view.getUint16(0, true), hash);
    const patched = (row: number, column: number) => bits[Math.floor(row / BLOCK) * columns + Math.floor(column / BLOCK)];
    const numbers = (size: number) => Array.from({ length: size }, (_, i) => i);
    const starts = (size: number) => numbers(Math.ceil(size / BLOCK)).map((block) => block * BLOCK);
    const rows = numbers(height).filter((row) => starts(width).some((column) => patched(row, column)));
    const kept = numbers(width).filter((column) => starts(height).some((row) => patched(row, column)));
    const channels = head.colour ? 3 : 1;
    const shape = { height: rows.length, width: kept.length, channels, bits: 8 } as const;
    const samples = await decodeLosslessTile(payload.subarray(end), shape, model);
    const whole = new Int16Array(height * width * channels);
    let place = 0;
    for (const row of rows) {
      for (const column of kept) {
        const pixel = samples.subarray(place, (place += channels));
        whole.set(pixel, (row * width + column) * channels);
        if (patched(row, column)) put(target, 4 * ((top + row) * head.width + left + column), pixel, head.colour, 0);
      }
    }
    see(whole);
  }
}

/** The colour of a pixel, without its lowest bits. */
function put(target: Uint8ClampedArray, place: number, pixel: Uint16Array, colour: boolean, shift: number): void {
  for (let c = 0; c < 3; c++) target[place + c] = pixel[colour ? c : 0] >> shift;
}
