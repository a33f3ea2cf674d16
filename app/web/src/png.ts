/** PNG, so that a browser's own machinery shows colour profiles and stores pictures without loss. */
import { crc32 } from "./crc32";
import type { Picture } from "./types";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const RGBA = 6;

/** A picture as a PNG file, lossless, with its colour profile. */
export async function encodePng(picture: Pick<Picture, "width" | "height" | "data" | "metadata">): Promise<Blob> {
  const { width, height, data, metadata } = picture;
  const rows = new Uint8Array(height * (1 + 4 * width)); // each behind a 0: not filtered
  for (let row = 0; row < height; row++) {
    rows.set(data.subarray(4 * row * width, 4 * (row + 1) * width), row * (1 + 4 * width) + 1);
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, RGBA], 8);
  const parts = [Uint8Array.from(SIGNATURE), chunk("IHDR", header)];
  if (metadata.icc) {
    parts.push(chunk("iCCP", joined([Uint8Array.from([0x69, 0x63, 0x63, 0, 0]), await deflate(metadata.icc)])));
  }
  parts.push(chunk("IDAT", await deflate(rows)), chunk("IEND", new Uint8Array()));
  return new Blob(parts, { type: "image/png" });
}

async function deflate(data: Uint8Array): Promise<Uint8Array> {
  const stream = new Blob([data as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function chunk(type: string, content: Uint8Array): Uint8Array<ArrayBuffer> {
  const body = joined([new TextEncoder().encode(type), content]);
  const whole = new Uint8Array(body.length + 8);
  const view = new DataView(whole.buffer);
  view.setUint32(0, content.length);
  whole.set(body, 4);
  view.setUint32(body.length + 4, crc32(body));
  return whole;
}

function joined([first, second]: [Uint8Array, Uint8Array]): Uint8Array<ArrayBuffer> {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
