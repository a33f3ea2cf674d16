/** NumPy archives: a ZIP of `.npy` arrays, none of them pickled. */
import { inflate } from "./inflate";

const TYPES = {
  "|u1": Uint8Array, "|i1": Int8Array, "<u2": Uint16Array, "<i2": Int16Array,
  "<u4": Uint32Array, "<i4": Int32Array, "<f4": Float32Array,
} as const;

export interface NpyArray {
  shape: number[];
  data: InstanceType<(typeof TYPES)[keyof typeof TYPES]>;
}

/** The arrays of an archive by name. */
export async function readNpz(archive: Uint8Array): Promise<Map<string, NpyArray>> {
  const view = new DataView(archive.buffer, archive.byteOffset, archive.byteLength);
  const end = archive.length - 22; // the end record, without a comment
  if (end < 0 || view.getUint32(end, true) !== 0x06054b50) throw new Error("this is no ZIP archive");
  const names = new TextDecoder();
  const entries: Promise<[string, NpyArray]>[] = [];
  let place = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const [nameSize, extraSize, commentSize] = [28, 30, 32].map((field) => view.getUint16(place + field, true));
    const name = names.decode(archive.subarray(place + 46, place + 46 + nameSize));
    const [method, packed, size, local] = [
      view.getUint16(place + 10, true), view.getUint32(place + 20, true),
      view.getUint32(place + 24, true), view.getUint32(place + 42, true),
    ];
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const content = archive.subarray(start, start + packed);
    const read = async (): Promise<[string, NpyArray]> => [
      name.replace(/\.npy$/, ""),
      readNpy(method ? await inflate(content, size, "deflate-raw") : content),
    ];
    entries.push(read());
    place += 46 + nameSize + extraSize + commentSize;
  }
  return new Map(await Promise.all(entries));
}

function readNpy(file: Uint8Array): NpyArray {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const [start, size] = file[6] === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  const header = new TextDecoder("latin1").decode(file.subarray(start, start + size));
  const type = header.match(/'descr':\s*'([^']+)'/)?.[1] as keyof typeof TYPES;
  const shape = header.match(/'shape':\s*\(([^)]*)\)/)?.[1].match(/\d+/g)?.map(Number) ?? [];
  if (!(type in TYPES) || !header.includes("'fortran_order': False")) throw new Error(`an array of type ${type}`);
  return { shape, data: new TYPES[type](file.slice(start + size).buffer) };
}
