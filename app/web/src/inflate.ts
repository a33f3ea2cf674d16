/** Deflated parts, whose size is known before they are inflated (FORMAT.md, sections 3.2 and 3.3). */
import { readVarint } from "./container";
import { PixaError } from "./errors";

const MAX_METADATA = 1 << 24;
const PIECE = 1 << 14; // what is inflated at a time: a bomb stops soon after its declared size

/**
 * Exactly `size` bytes of one stream with nothing behind it.
 *
 * @throws PixaError Corrupt
 */
export async function inflate(
  stream: Uint8Array, size: number, format: CompressionFormat = "deflate",
): Promise<Uint8Array> {
  let place = 0;
  const pieces = new ReadableStream<BufferSource>({
    pull(controller) {
      if (place >= stream.length) return controller.close();
      controller.enqueue(stream.slice(place, (place += PIECE)));
    },
  });
  const reader = pieces.pipeThrough(new DecompressionStream(format)).getReader();
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      length += part.value.length;
      if (length > size) break;
      parts.push(part.value);
    }
  } catch {
    throw new PixaError("Corrupt", "a deflated part does not inflate");
  }
  if (length !== size) {
    reader.cancel().catch(() => {});
    throw new PixaError("Corrupt", "a deflated part does not have its size");
  }
  const data = new Uint8Array(size);
  let end = 0;
  for (const part of parts) {
    data.set(part, end);
    end += part.length;
  }
  return data;
}

/** The content of an ICC, EXIF or XMP chunk. */
export function readMetadata(payload: Uint8Array): Promise<Uint8Array> {
  const [size, start] = readVarint(payload, 0);
  if (size > MAX_METADATA) {
    throw new PixaError("LimitExceeded", `${size} bytes of metadata are over the limit of ${MAX_METADATA}`);
  }
  return inflate(payload.subarray(start), size);
}

/** The alpha plane of an ALPHA chunk: each row is the difference to the one above. */
export async function readAlpha(payload: Uint8Array, width: number, height: number): Promise<Uint8Array> {
  const [length, start] = readVarint(payload, 0);
  if (start + length !== payload.length) throw new PixaError("Corrupt", "the alpha plane is not as long as it says");
  const plane = await inflate(payload.subarray(start), width * height);
  for (let i = width; i < plane.length; i++) plane[i] += plane[i - width];
  return plane;
}
