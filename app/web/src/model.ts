/** Models: fetched once, checked against their hash, proven exact on this machine, run by onnxruntime-web. */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import * as ort from "onnxruntime-web/wasm";
import { Tables } from "./entropy";
import { PixaError } from "./errors";
import { type NpyArray, readNpz } from "./npz";
import type { Backend } from "./types";

const SELF_TEST_LEVEL = 100;
const WARM_UP = 16; // latent positions a side

/** What passes know, by the names that the graphs give to their inputs and outputs. */
export type Memory = Map<string, ort.Tensor>;

interface Entry {
  name: string;
  tag: string;
  wire_id: number;
  hash: string;
  decoder: string[];
  synthesis_halo: number;
  coding?: string;
}

/** A run of channels, and for each position of a square of 2x2, row by row, whether a pass codes a channel there. */
export interface Pass {
  from: number;
  to: number;
  pattern: Uint8Array;
}

/**
 * A model's graphs, level vectors and tables.
 *
 * Probabilities hang on the scale graphs alone, whose sums are exact integers in float32; they are tried on a stored
 * vector first, so that a machine whose arithmetic differs is refused instead of decoding garbage (FORMAT.md, 4.2).
 */
export class Model {
  readonly tables: Tables;
  readonly passes: Pass[];
  readonly channels: number;
  private readonly synthesisers = new Map<Backend, Promise<ort.InferenceSession>>();

  private constructor(
    private readonly entry: Entry,
    private readonly base: string,
    private readonly files: Map<string, Uint8Array>,
    private readonly arrays: Map<string, NpyArray>,
    private readonly sessions: Map<string, ort.InferenceSession>,
  ) {
    this.tables = new Tables(this.array("limits").data as Uint16Array, this.array("frequencies").data as Uint32Array);
    this.channels = this.array("gain").shape[1];
    this.passes = readPasses(this.array("passes"));
  }

  /** @throws PixaError ModelMissing, Unreachable */
  static async load(entry: Entry, base: string): Promise<Model> {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", base) };
    const files = await fetchFiles(entry, base);
    const sessions = new Map<string, ort.InferenceSession>();
    for (const [name, data] of files) {
      const graph = name.match(/^((?:scale|mean)_[a-z])\.onnx$/)?.[1];
      if (graph) sessions.set(graph, await ort.InferenceSession.create(data, { executionProviders: ["wasm"] }));
    }
    const model = new Model(entry, base, files, await readNpz(files.get("tables.npz")!), sessions);
    await model.synthesiser("wasm");
    await model.selfTest();
    return model;
  }

  get name(): string {
    return `${this.entry.name}.${this.entry.tag}`;
  }

  /** Latent positions beyond a window that its pixels hang on. */
  get halo(): number {
    return this.entry.synthesis_halo;
  }

  /** The vector of a level, one value a channel. */
  vector(name: string, level: number): Float32Array {
    const { shape, data } = this.array(name);
    return Float32Array.from(data.subarray(level * shape[1], (level + 1) * shape[1]));
  }

  /** Table indexes of the channels of a pass, uint8. The first knows "z", the others "magnitude". */
  async scale(pass: number, memory: Memory, level: number): Promise<ort.Tensor> {
    const letter = letterOf(pass);
    const known: Memory = new Map(memory);
    const vectors = { index_bias: `index_bias_${letter}`, z_scale: "z_scale", feature_bias: "feature_bias" };
    for (const [input, name] of Object.entries(vectors)) {
      if (this.arrays.has(name)) known.set(input, tensor(this.vector(name, level), [1, -1, 1, 1]));
    }
    return this.recall(`scale_${letter}`, known, memory);
  }

  /** Means of the channels of a pass. All but the first know "y_hat". */
  mean(pass: number, memory: Memory): Promise<ort.Tensor> {
    return this.recall(`mean_${letterOf(pass)}`, memory, memory);
  }

  /** The synthesis, ready to run. */
  synthesiser(backend: Backend): Promise<ort.InferenceSession> {
    const create = async () => {
      const runtime = backend === "wasm" ? ort : await webgpu(this.base);
      return runtime.InferenceSession.create(this.files.get("synthesis.onnx")!, { executionProviders: [backend] });
    };
    if (!this.synthesisers.has(backend)) this.synthesisers.set(backend, create());
    return this.synthesisers.get(backend)!;
  }

  /** Paint nothing, so that the browser compiles for speed what the first picture would otherwise run slowly. */
  async warmUp(): Promise<void> {
    const latents = tensor(new Float32Array(this.channels * WARM_UP ** 2), [1, -1, WARM_UP, WARM_UP]);
    await this.synthesis(latents, SELF_TEST_LEVEL, "wasm");
  }

  /** Latents (1, M, h, w) to samples (1, 16h, 16w, 3), uint8. */
  async synthesis(latents: ort.Tensor, level: number, backend: Backend): Promise<Uint8Array> {
    const session = await this.synthesiser(backend);
    const vector = tensor(this.vector("vector", level), [1, -1, 1, 1]);
    const { picture } = await session.run({ y_hat: latents, vector });
    return picture.data as Uint8Array;
  }

  /** Run a graph and remember what it says; the last output is the answer and is not kept. */
  private async recall(graph: string, known: Memory, memory: Memory): Promise<ort.Tensor> {
    const session = this.sessions.get(graph)!;
    const outputs = await session.run(Object.fromEntries(session.inputNames.map((name) => [name, known.get(name)!])));
    const names = [...session.outputNames];
    const answer = names.pop()!;
    for (const name of names) memory.set(name, outputs[name]);
    return outputs[answer];
  }

  private array(name: string): NpyArray {
    return this.arrays.get(name)!;
  }

  private async selfTest(): Promise<void> {
    const digest = sha256.create();
    const test = (name: string) => {
      const { data, shape } = this.array(name);
      return tensor(Float32Array.from(data), shape);
    };
    const memory: Memory = new Map([["z", test("test_z")]]);
    const magnitude = test("test_magnitude");
    const plane = magnitude.dims[2] * magnitude.dims[3];
    for (const [p, { from, to }] of this.passes.entries()) {
      const index = await this.scale(p, memory, SELF_TEST_LEVEL);
      const kept = this.sessions.get(`scale_${letterOf(p)}`)!.outputNames.slice(0, -1);
      for (const name of kept) digest.update(Uint8Array.from(memory.get(name)!.data as Float32Array));
      digest.update(index.data as Uint8Array);
      const own = (magnitude.data as Float32Array).slice(from * plane, to * plane);
      memory.set("magnitude", tensor(own, [1, -1, ...magnitude.dims.slice(2)]));
    }
    if (bytesToHex(digest.digest()) !== bytesToHex(this.array("test_sha256").data as Uint8Array)) {
      throw new PixaError("ModelMissing", "the self-test of the model failed: this machine's arithmetic is not exact");
    }
  }
}

/** A float32 tensor; one side may be -1 and follows from the others. */
export function tensor(data: Float32Array, dims: number[]): ort.Tensor {
  const known = dims.reduce((product, side) => (side < 0 ? product : product * side), 1);
  return new ort.Tensor("float32", data, dims.map((side) => (side < 0 ? data.length / known : side)));
}

/** The models that a folder offers, none of which is loaded twice. */
export class Models {
  private manifest?: Promise<Entry[]>;
  private readonly loaded = new Map<number, Promise<Model>>();

  /** @param base address of the folder that holds `models/` and the runtime */
  constructor(private readonly base: string) {}

  /** @throws PixaError ModelMissing, Unreachable */
  async find(wireId: number, hash: string): Promise<Model> {
    const entry = (await this.entries()).find((entry) => entry.wire_id === wireId && entry.hash === hash);
    if (!entry) throw new PixaError("ModelMissing", `the model of this file (${wireId}, ${hash}) is not here`);
    return this.load(entry);
  }

  /** The model of most files: the newest of the first name. */
  async newest(): Promise<Model> {
    const entries = await this.entries();
    return this.load(entries.findLast((entry) => entry.name === entries[0].name)!);
  }

  private load(entry: Entry): Promise<Model> {
    const loaded = this.loaded.get(entry.wire_id) ?? Model.load(entry, this.base);
    this.loaded.set(entry.wire_id, loaded);
    loaded.catch(() => this.loaded.delete(entry.wire_id));
    return loaded;
  }

  private entries(): Promise<Entry[]> {
    this.manifest ??= fetchBytes(new URL("models/manifest.json", this.base), "no-cache").then(
      (data) => JSON.parse(new TextDecoder().decode(data)).models,
    );
    this.manifest.catch(() => (this.manifest = undefined));
    return this.manifest;
  }
}

const letterOf = (pass: number) => String.fromCharCode(97 + pass);

function readPasses({ shape: [passes, channels], data }: NpyArray): Pass[] {
  return Array.from({ length: passes }, (_, p) => {
    const stored = (_: unknown, i: number) => Number(data[4 * p * channels + i]);
    const pattern = Uint8Array.from({ length: 4 * channels }, stored);
    const from = pattern.findIndex(Boolean) >> 2;
    const to = (pattern.findLastIndex(Boolean) >> 2) + 1;
    return { from, to, pattern: pattern.subarray(4 * from, 4 * to) };
  });
}

/** A model's files never change, so a copy that the browser has is as good as a new one, if its hash is right. */
async function fetchFiles(entry: Entry, base: string): Promise<Map<string, Uint8Array>> {
  const folder = new URL(`models/${entry.name}.${entry.tag}/`, base);
  for (const cache of ["force-cache", "reload"] as const) {
    const files = await Promise.all(entry.decoder.map((name) => fetchBytes(new URL(name, folder), cache)));
    const digest = sha256.create();
    for (const file of files) digest.update(file);
    if (bytesToHex(digest.digest()).startsWith(entry.hash)) {
      return new Map(entry.decoder.map((name, i) => [name, files[i]]));
    }
  }
  const name = `${entry.name}.${entry.tag}`;
  throw new PixaError("ModelMissing", `the weights of ${name} are altered: their hash does not match`);
}

async function fetchBytes(address: URL, cache: RequestCache): Promise<Uint8Array> {
  const response = await fetch(address, { cache }).catch(() => undefined);
  if (!response?.ok) throw new PixaError("Unreachable", `a part of the decoder cannot be fetched: ${address.pathname}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** The runtime with WebGPU, for browsers that let wasm wait for promises. */
async function webgpu(base: string): Promise<typeof ort> {
  const runtime = await import("onnxruntime-web/jspi");
  runtime.env.wasm.numThreads = 1;
  runtime.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.jspi.wasm", base) };
  return runtime;
}
