/** The worker: decodes one file after the other, away from the page. */
import { PixaError } from "./errors";
import { Models } from "./model";
import { decodePicture } from "./picture";
import type { DecodeOptions, Picture } from "./types";

/** What the page asks for. */
export type Request =
  | { kind: "decode"; id: number; data: Uint8Array; options: DecodeOptions }
  | { kind: "cancel"; id: number }
  | { kind: "preload"; id: number };

/** What the worker answers; after an error that is not `known` it must not be used again. */
export type Reply =
  | { id: number; picture?: Picture }
  | { id: number; error: { name: PixaError["name"]; message: string }; known: boolean };

const models = new Models(import.meta.url);
const waiting = new Set<number>();
let queue: Promise<void> = Promise.resolve();

self.addEventListener("message", ({ data: request }: MessageEvent<Request>) => {
  if (request.kind === "cancel") {
    waiting.delete(request.id);
  } else {
    waiting.add(request.id);
    queue = queue.then(() => answer(request));
  }
});

async function answer(request: Exclude<Request, { kind: "cancel" }>): Promise<void> {
  const { id } = request;
  try {
    const picture = request.kind === "decode" ? await decode(request) : await preload();
    reply(picture ? { id, picture } : { id }, picture ? [picture.data.buffer] : []);
  } catch (error) {
    const reason = described(error);
    if (waiting.has(id) || !reason.known) reply({ id, ...reason });
  } finally {
    waiting.delete(id);
  }
}

async function decode({ id, data, options }: Request & { kind: "decode" }): Promise<Picture> {
  const goOn = async () => {
    await new Promise((next) => setTimeout(next)); // lets a "cancel" come in
    if (!waiting.has(id)) throw new PixaError("DecodingFailed", "the picture is no longer wanted");
  };
  await goOn();
  return decodePicture(data, models, options, goOn);
}

async function preload(): Promise<undefined> {
  const model = await models.newest();
  if (waiting.size === 1) await model.warmUp();
}

function described(error: unknown) {
  if (error instanceof PixaError) return { error: { name: error.name, message: error.message }, known: true };
  const message = `the picture could not be decoded (${error instanceof Error ? error.message : error})`;
  return { error: { name: "DecodingFailed" as const, message }, known: false };
}

function reply(message: Reply, transfer: Transferable[] = []): void {
  self.postMessage(message, { transfer });
}
