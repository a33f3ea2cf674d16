/**
 * The container: magic, version, then chunks that each carry their length and checksum (FORMAT.md, sections 2 and 3).
 * Payloads are views into the file; nothing is taken that the file does not hold.
 */
import { crc32 } from "./crc32";
import { PixaError } from "./errors";
import type { MetadataKind } from "./types";

const MAGIC = [0x9d, 0x50, 0x58, 0x41];
const VERSION = 1;
const ANCILLARY = 0x80;
const HEAD_SIZE = 14;

export const ChunkType = {
  HEAD: 0x01, MODEL: 0x02, ALPHA: 0x03, TILE: 0x04, PATCH: 0x05, VIDEO: 0x10, PACKET: 0x11,
  ICC: 0x81, EXIF: 0x82, XMP: 0x83, TAGS: 0x85, THUMBNAIL: 0x86, INDEX: 0x90, AUDIO: 0x91,
} as const;

const CRITICAL: ReadonlySet<number> = new Set(Object.values(ChunkType).filter((type) => !(type & ANCILLARY)));
const METADATA: Record<MetadataKind, number> = { icc: ChunkType.ICC, exif: ChunkType.EXIF, xmp: ChunkType.XMP };

export interface Chunk {
  type: number;
  payload: Uint8Array;
}

/** The HEAD chunk of a picture; `level` is twice the quality, `hash` eight hexadecimal digits. */
export interface Head {
  width: number;
  height: number;
  colour: boolean;
  alpha: boolean;
  level: number;
  model: number;
  hash: string;
  tileLog2: number;
}

/** A file whose chunks are whole, in order and as many as its header announces. */
export interface Container {
  head: Head;
  tiles: Uint8Array[];
  alpha?: Uint8Array;
  metadata: Partial<Record<MetadataKind, Uint8Array>>;
}

/** The value of the varint at `offset` and the offset behind it. */
export function readVarint(data: Uint8Array, offset: number): [value: number, end: number] {
  let value = 0;
  for (let digit = 0; digit < 5 && offset < data.length; digit++) {
    const byte = data[offset++];
    value += (byte & 0x7f) * 2 ** (7 * digit);
    if (byte < 0x80) {
      if ((byte === 0 && digit > 0) || value >= 2 ** 32) {
        throw new PixaError("Corrupt", "a length is not in its shortest form");
      }
      return [value, offset];
    }
  }
  throw new PixaError("Corrupt", "a length is cut short");
}

/**
 * Parse a file and check everything that can be checked without a model.
 *
 * @throws PixaError NotPixa, UnsupportedVersion, UnsupportedInput (a video), Corrupt, LimitExceeded
 */
export function parse(data: Uint8Array, maxPixels: number): Container {
  let head: Head | undefined;
  const chunks: Chunk[] = [];
  for (const chunk of readChunks(data)) {
    head ??= readHead(chunk, maxPixels);
    chunks.push(chunk);
  }
  if (!head) throw new PixaError("Corrupt", "the file ends before its header");
  if (chunks.some(({ type }) => type === ChunkType.PATCH)) {
    throw new PixaError("UnsupportedVersion", "the picture has patches, which this decoder does not know");
  }
  checkOrder(head, chunks);
  const payload = (type: number) => chunks.find((chunk) => chunk.type === type)?.payload;
  const metadata: Container["metadata"] = {};
  for (const [kind, type] of Object.entries(METADATA)) {
    const found = payload(type);
    if (found) metadata[kind as MetadataKind] = found;
  }
  const tiles = chunks.filter((chunk) => chunk.type === ChunkType.TILE).map((chunk) => chunk.payload);
  return { head, tiles, alpha: payload(ChunkType.ALPHA), metadata };
}

function* readChunks(data: Uint8Array): Generator<Chunk> {
  if (MAGIC.some((byte, i) => data[i] !== byte)) throw new PixaError("NotPixa", "this is not a pixa file");
  if (data.length === MAGIC.length) throw new PixaError("Corrupt", "the file ends before its version");
  if (data[4] !== VERSION) {
    throw new PixaError("UnsupportedVersion", `format version ${data[4]}: this decoder reads version ${VERSION}`);
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let offset = MAGIC.length + 1; offset < data.length; ) {
    const type = data[offset];
    const [length, start] = readVarint(data, offset + 1);
    const end = start + length;
    if (end + 4 > data.length) {
      throw new PixaError("Corrupt", `the file is cut: a chunk of ${length} bytes runs past its end`);
    }
    if (crc32(data.subarray(offset, end)) !== view.getUint32(end, true)) {
      throw new PixaError("Corrupt", "a checksum does not match: the file is damaged");
    }
    if (!(type & ANCILLARY) && !CRITICAL.has(type)) {
      throw new PixaError("UnsupportedVersion", `critical chunk ${type} is unknown: a newer pixa wrote this file`);
    }
    yield { type, payload: data.subarray(start, end) };
    offset = end + 4;
  }
}

function readHead({ type, payload }: Chunk, maxPixels: number): Head {
  if (type !== ChunkType.HEAD) throw new PixaError("Corrupt", "the file does not begin with its header");
  if (payload.length !== HEAD_SIZE) {
    throw new PixaError("Corrupt", `a header of ${payload.length} bytes instead of ${HEAD_SIZE}`);
  }
  const view = new DataView(payload.buffer, payload.byteOffset, HEAD_SIZE);
  const within = (name: string, value: number, low: number, high: number, newer = false) => {
    if (value >= low && value <= high) return value;
    const message = `header field ${name} = ${value} is not known to this version`;
    throw new PixaError(newer ? "UnsupportedVersion" : "Corrupt", message);
  };
  const kind = within("kind", view.getUint8(0), 0, 1, true);
  const width = within("width", view.getUint16(1, true), 1, 65535);
  const height = within("height", view.getUint16(3, true), 1, 65535);
  const flags = within("flags", view.getUint8(5), 0, 3, true);
  const level = within("level", view.getUint8(6), 0, 200);
  const model = within("model", view.getUint16(7, true), 1, 65535);
  const hash = view.getUint32(9, true).toString(16).padStart(8, "0");
  const tileLog2 = within("tile_log2", view.getUint8(13), 8, 12);
  if (kind) throw new PixaError("UnsupportedInput", "this is a video: this decoder shows pictures");
  if (width * height > maxPixels) {
    throw new PixaError("LimitExceeded", `${width}x${height} is over the limit of ${maxPixels} pixels`);
  }
  return { width, height, colour: !!(flags & 1), alpha: !!(flags & 2), level, model, hash, tileLog2 };
}

function checkOrder(head: Head, chunks: Chunk[]): void {
  const side = 2 ** head.tileLog2;
  const tiles = Math.ceil(head.width / side) * Math.ceil(head.height / side);
  const counts = new Map<number, number>();
  let last = 0;
  let ordered = true;
  for (const { type } of chunks) {
    counts.set(type, (counts.get(type) ?? 0) + 1);
    if (type & ANCILLARY) continue;
    ordered &&= type >= last;
    last = type;
  }
  const count = (type: number) => counts.get(type) ?? 0;
  if (count(ChunkType.TILE) < tiles) {
    throw new PixaError("Corrupt", `the file is cut: ${count(ChunkType.TILE)} of ${tiles} tiles are there`);
  }
  const expected: Record<number, number> = {
    [ChunkType.HEAD]: 1,
    [ChunkType.ALPHA]: Number(head.alpha),
    [ChunkType.TILE]: tiles,
  };
  if ([...CRITICAL].some((type) => count(type) !== (expected[type] ?? 0))) {
    throw new PixaError("Corrupt", "the file has parts that its header does not announce");
  }
  if ([...Object.values(METADATA), ChunkType.THUMBNAIL].some((type) => count(type) > 1)) {
    throw new PixaError("Corrupt", "a kind of metadata stands twice in the file");
  }
  if (!ordered) throw new PixaError("Corrupt", "the parts of the file are out of order");
}
