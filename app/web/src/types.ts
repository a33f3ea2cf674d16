/** What users of the package see. */

/** Where the synthesis runs. */
export type Backend = "wasm" | "webgpu";

export type MetadataKind = "icc" | "exif" | "xmp";

export interface DecodeOptions {
  /** Larger pictures are refused before memory is taken for them; 2^26 by default. */
  maxPixels?: number;
  /** Where the synthesis runs; by default on a GPU where there is one and the picture is large. */
  synthesis?: Backend;
  /** Also compute the SHA-256 of every symbol, which is equal on every machine. */
  symbols?: boolean;
}

export interface Picture {
  width: number;
  height: number;
  /** 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha. */
  channels: number;
  /** Samples in the order R, G, B, A, a row after the other; alpha is not premultiplied. */
  data: Uint8ClampedArray<ArrayBuffer>;
  /** 0 to 100. */
  quality: number;
  /** Name and tag of the model. */
  model: string;
  tiles: number;
  /** Bytes of the file. */
  bytes: number;
  bitsPerPixel: number;
  metadata: Partial<Record<MetadataKind, Uint8Array>>;
  synthesis: Backend;
  /** Milliseconds: waiting for the model, symbols, latents, samples. */
  times: Record<"model" | "symbols" | "latents" | "samples", number>;
  symbolsSha256?: string;
}
