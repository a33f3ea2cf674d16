/** Tiles of photographs: predictions and tables by exact integers (FORMAT.md, annex B.5). */
import { EntropyDecoder, Tables } from "../entropy";
import { readVarint } from "../container";
import { PixaError } from "../errors";
import type { NpyArray } from "../npz";
import { Wavefront } from "./wavefront";

const CAUSAL = [ // neighbours of the first prediction but the left one
  [-1, 0], [-1, -1], [-1, 1], [-2, 0], [0, -2], [-2, -1], [-2, 1], [-1, -2], [-2, -2], [-2, 2], [-3, 0],
  [0, -3], [-3, -1], [-3, 1], [-1, -3], [-3, -2], [-3, 2], [-2, -3], [-2, 3], [-4, 0], [0, -4],
];
const AROUND = [[0, 0], [-1, 0], [0, 1], [1, 0], [-1, -1], [-1, 1], [1, -1], [1, 1]]; // the same in earlier planes
const SAMPLES = [
  [0, -1], [-1, 0], [-1, -1], [-1, 1], [0, -2], [-2, 0], [-1, -2], [-2, -1], [-2, 1], [-2, 2], [-2, -2], [0, -3],
  [-3, 0], [-3, 1],
];
const ERRORS = [[0, -1], [-1, 0], [-1, -1], [-1, 1], [0, -2], [-2, 0], [-1, -2], [-2, -1], [-2, 1], [-2, 2]];
const EARLIER_ERRORS = [[0, 0], [0, 1], [1, 0], [0, -1], [-1, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]];
const EARLIER_SAMPLES = [[0, 1], [1, 0], [0, -1], [-1, 0]];
const UNIT = 16; // predictions and errors are in 1/16 of a sample
const HIDDEN = 64;
const SCALES = 47;
const FRACTIONS = 5;
const MAX_SUM = 1 << 14;

/** The trained part: default coefficients, networks and tables. */
export class LosslessModel {
  readonly tables: Tables;

  constructor(private readonly arrays: Map<string, NpyArray>) {
    this.tables = new Tables(Uint16Array.from(this.array("limits")), Uint32Array.from(this.array("frequencies")));
  }

  array(name: string): NpyArray["data"] {
    return this.arrays.get(name)!.data;
  }
}

/** The network of planes that see `kind` earlier ones: whole numbers, no sum of which exceeds 2^24. */
class Network {
  private readonly layers: Float32Array[];
  private readonly first = new Float32Array(HIDDEN);
  private readonly second = new Float32Array(HIDDEN);

  constructor(model: LosslessModel, kind: number) {
    const names = ["w1", "b1", "w2", "b2", "w3", "skip", "b3"];
    this.layers = names.map((name) => Float32Array.from(model.array(`${name}_${kind}`)));
  }

  /** Shift of the prediction and logarithm of the scale, in 1/4096. */
  run(x: Float32Array): [shift: number, scale: number] {
    const [w1, b1, w2, b2, w3, skip, b3] = this.layers;
    layer(x, w1, b1, this.first);
    layer(this.first, w2, b2, this.second);
    const [shift, scale] = [0, 1].map((i) => b3[i] + dot(w3, i, this.second) + dot(skip, i, x));
    return [shift, scale];
  }
}

function layer(x: Float32Array, weights: Float32Array, biases: Float32Array, out: Float32Array): void {
  for (let i = 0; i < out.length; i++) {
    out[i] = Math.min(Math.max(Math.floor((biases[i] + dot(weights, i, x)) / 128 + 0.5), 0), 255);
  }
}

function dot(weights: Float32Array, row: number, x: Float32Array): number {
  let sum = 0;
  for (let i = 0, place = row * x.length; i < x.length; i++, place++) sum += weights[place] * x[i];
  return sum;
}

interface Expected {
  first: number;
  nearest: number;
  mirrored: boolean;
  table: number;
}

/** One plane of a tile: samples and errors of the first prediction, skewed. */
class Plane {
  readonly samples: Int32Array<ArrayBuffer>;
  readonly errors: Int32Array<ArrayBuffer>;
  private readonly network: Network;
  private readonly x: Float32Array;
  private readonly offsets: Record<"causal" | "around" | "samples" | "errors" | "others" | "otherErrors", Int32Array>;

  constructor(
    private readonly wave: Wavefront, model: LosslessModel, private readonly earlier: Plane[],
    private readonly coefficients: Float64Array,
  ) {
    this.samples = new Int32Array(wave.size);
    this.errors = new Int32Array(wave.size);
    this.network = new Network(model, earlier.length);
    const perEarlier = EARLIER_ERRORS.length + EARLIER_SAMPLES.length;
    this.x = new Float32Array(SAMPLES.length + ERRORS.length + earlier.length * perEarlier + 1);
    this.offsets = {
      causal: wave.offsets(CAUSAL), around: wave.offsets(AROUND), samples: wave.offsets(SAMPLES),
      errors: wave.offsets(ERRORS), others: wave.offsets(EARLIER_SAMPLES), otherErrors: wave.offsets(EARLIER_ERRORS),
    };
  }

  /** What is expected of the sample at a place. */
  expect(place: number): Expected {
    const first = this.predict(place);
    const k = this.see(place, first);
    let [shift, scale] = this.network.run(this.x);
    shift = Math.min(Math.max(shift, -(1 << 15)), 1 << 15);
    const mean = first + (((shift << k) + 2048) >> 12);
    const nearest = (mean + 8) >> 4;
    const beyond = mean - UNIT * nearest;
    scale = Math.min(Math.max(4 * k + ((scale + 512) >> 10), -4), SCALES - 5) + 4;
    return { first, nearest, mirrored: beyond < 0, table: 1 + scale * FRACTIONS + (Math.abs(beyond) >> 1) };
  }

  /** The first prediction, in 1/16. */
  private predict(place: number): number {
    const { coefficients, offsets: { causal, around } } = this;
    const left = this.samples[place - this.wave.side];
    let [total, c] = [0, 0];
    for (const offset of causal) total += coefficients[c++] * (this.samples[place + offset] - left);
    for (const { samples } of this.earlier) {
      const theirs = samples[place - this.wave.side];
      for (const offset of around) total += coefficients[c++] * (samples[place + offset] - theirs);
    }
    return ((total + 8) >> 4) + UNIT * left;
  }

  /** Fill the inputs of the network; returns k, the magnitude of what is around. */
  private see(place: number, first: number): number {
    const { x, offsets } = this;
    let [end, activity] = [0, 0];
    for (const offset of offsets.samples) {
      const near = UNIT * this.samples[place + offset] - first;
      if (end < 4) activity += Math.abs(near);
      x[end++] = near;
    }
    for (let i = 0; i < offsets.errors.length; i++) {
      const error = this.errors[place + offsets.errors[i]];
      if (i < 8) activity += Math.abs(error);
      x[end++] = error;
    }
    for (const { samples, errors } of this.earlier) {
      for (let i = 0; i < offsets.otherErrors.length; i++) {
        const error = errors[place + offsets.otherErrors[i]];
        if (i < 3) activity += 2 * Math.abs(error);
        x[end++] = error;
      }
      for (const offset of offsets.others) x[end++] = UNIT * (samples[place + offset] - samples[place]);
    }
    const unit = 12 + 6 * this.earlier.length;
    let k = 0;
    while (k < 12 && unit * 2 ** k <= activity) k++;
    const scale = 32 / 2 ** k;
    for (let i = 0; i < end; i++) x[i] = Math.min(Math.max(Math.floor(x[i] * scale + 0.5), -127), 127);
    x[end] = UNIT * (k - 4);
    return k;
  }
}

/**
 * The planes of a payload, whose samples are to lie within their limits.
 *
 * @param looks of each plane the earlier ones that it sees
 * @throws PixaError Corrupt
 */
export function decodePlanes(
  payload: Uint8Array, height: number, width: number, limits: number[][], looks: number[][], model: LosslessModel,
): Int32Array[] {
  const wave = new Wavefront(height, width);
  let start = 0;
  const coefficients = looks.map(({ length }) => {
    const chosen = Float64Array.from(model.array(`coefficients_${length}`), (value) => {
      const [code, end] = readVarint(payload, start);
      start = end;
      return value + (code % 2 ? -Math.floor(code / 2) : code / 2);
    });
    if (chosen.reduce((sum, value) => sum + Math.abs(value), 0) > MAX_SUM) {
      throw new PixaError("Corrupt", "coefficients of a tile are too large");
    }
    return chosen;
  });
  const decoder = new EntropyDecoder(payload.subarray(start), model.tables);
  const done: Plane[] = [];
  for (const [p, [low, high]] of limits.entries()) {
    const plane = new Plane(wave, model, looks[p].map((q) => done[q]), coefficients[p]);
    for (let step = 0; step < wave.steps; step++) {
      const [first, stop] = wave.rows(step);
      const expected: Expected[] = [];
      for (let row = first; row < stop; row++) expected.push(plane.expect(wave.place(step, row)));
      const residuals = decoder.decode(Uint8Array.from(expected, ({ table }) => table));
      expected.forEach(({ first: prediction, nearest, mirrored }, i) => {
        const sample = nearest + (mirrored ? -residuals[i] : residuals[i]);
        if (sample < low || sample > high) throw new PixaError("Corrupt", "a sample of a tile is out of its range");
        const place = wave.place(step, first + i);
        plane.samples[place] = sample;
        plane.errors[place] = UNIT * sample - prediction;
      });
      wave.fill(plane.samples, step);
      wave.fill(plane.errors, step);
    }
    wave.fillBehind(plane.samples);
    wave.fillBehind(plane.errors);
    done.push(plane);
  }
  decoder.finish();
  return done.map(({ samples }) => wave.straighten(samples));
}
