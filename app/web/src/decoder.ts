/** The page's side of the worker, which all callers on a page share: weights and runtime are fetched once. */
import { PixaError } from "./errors";
import type { DecodeOptions, Picture } from "./types";
import type { Reply, Request } from "./worker";

/** An address, or the bytes of a file. */
export type Source = string | URL | Blob | ArrayBuffer | Uint8Array;

const MAX_BYTES = 1 << 28;

interface Job {
  done: (picture?: Picture) => void;
  failed: (error: unknown) => void;
}

let worker: Worker | undefined;
let number = 0;
const jobs = new Map<number, Job>();

/**
 * Decode a picture.
 *
 * @throws PixaError by name what is wrong with the file; a DOMException AbortError when `signal` says so
 */
export async function decode(source: Source, options: DecodeOptions & { signal?: AbortSignal } = {}): Promise<Picture> {
  const { signal, ...rest } = options;
  const data = await bytesOf(source, signal);
  const picture = await ask({ kind: "decode", id: ++number, data, options: rest }, signal);
  return picture!;
}

/** Fetch runtime and weights and make them ready, before a picture asks for it. */
export async function preload(): Promise<void> {
  await ask({ kind: "preload", id: ++number });
}

function ask(request: Exclude<Request, { kind: "cancel" }>, signal?: AbortSignal): Promise<Picture | undefined> {
  const { id } = request;
  return new Promise<Picture | undefined>((done, failed) => {
    signal?.throwIfAborted();
    const cancel = () => {
      jobs.delete(id);
      worker?.postMessage({ kind: "cancel", id } satisfies Request);
      failed(signal!.reason);
    };
    const end = <T>(settle: (value: T) => void) => (value: T) => {
      signal?.removeEventListener("abort", cancel);
      settle(value);
    };
    signal?.addEventListener("abort", cancel);
    jobs.set(id, { done: end(done), failed: end(failed) });
    worker ??= start();
    worker.postMessage(request, request.kind === "decode" ? [request.data.buffer] : []);
  });
}

function start(): Worker {
  const started = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "pixa" });
  started.addEventListener("message", ({ data: reply }: MessageEvent<Reply>) => {
    const job = jobs.get(reply.id);
    jobs.delete(reply.id);
    if (!("error" in reply)) return job?.done(reply.picture);
    job?.failed(new PixaError(reply.error.name, reply.error.message));
    if (!reply.known) stop(started, reply.error.message);
  });
  started.addEventListener("error", (event) => stop(started, event.message || "the decoder could not be started"));
  return started;
}

/** End a worker whose state is unknown, for example out of memory; the next picture starts another. */
function stop(broken: Worker, message: string): void {
  broken.terminate();
  if (worker !== broken) return;
  worker = undefined;
  const left = [...jobs.values()];
  jobs.clear();
  for (const job of left) job.failed(new PixaError("DecodingFailed", message));
}

/** The bytes of a source, in memory of their own. */
async function bytesOf(source: Source, signal?: AbortSignal): Promise<Uint8Array> {
  if (source instanceof ArrayBuffer) return new Uint8Array(source.slice(0));
  if (source instanceof Uint8Array) return source.slice();
  if (source instanceof Blob) {
    checkSize(source.size);
    return new Uint8Array(await source.arrayBuffer());
  }
  try {
    return await fetched(new URL(source, document.baseURI), signal);
  } catch (error) {
    if (signal?.aborted || error instanceof PixaError) throw error;
    throw new PixaError("Unreachable", `${source} cannot be fetched (${(error as Error).message})`);
  }
}

async function fetched(address: URL, signal?: AbortSignal): Promise<Uint8Array> {
  const response = await fetch(address, { signal });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const reader = response.body!.getReader();
  for (let size = 0, part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    size += part.value.length;
    if (size > MAX_BYTES) await reader.cancel();
    checkSize(size);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function checkSize(bytes: number): void {
  if (bytes > MAX_BYTES) throw new PixaError("LimitExceeded", `the file is over the limit of ${MAX_BYTES} bytes`);
}
