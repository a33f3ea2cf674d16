/** Drawn tiles: guesses at the colour of a pixel, predicted by context mixing (FORMAT.md, annex B.3 and B.4). */
import { SymbolReader } from "./symbols";
import { Wavefront } from "./wavefront";

const NEIGHBOURS = [ // nearest first, (rows down, columns to the right)
  [0, -1], [-1, 0], [-1, -1], [-1, 1], [0, -2], [-2, 0], [-2, -1], [-2, 1], [-1, -2], [-2, -2], [-2, 2], [0, -3],
  [-3, 0], [-1, -3], [-3, -1], [-3, 1], [-2, -3], [-3, 2], [-3, -2], [-2, 3], [0, -4], [-4, 0], [-3, 3], [-3, -3],
];
const CONTEXTS = [1, 2, 4, 6, 8, 12, 18, 24]; // how many neighbours each context sees
const MEMORIES = [6, 5, 3, 2]; // contexts whose last colour is a guess, before the neighbours W, N, NW, NE
const GUESSES = MEMORIES.length + 4;
const MODELS = CONTEXTS.length + 2;
const LEFT = [0, 1, 0, 2, 1, 4, 5, 3];
const RIGHT = [2, 2, 1, 3, 3, 0, 1, 7]; // neighbours whose equality with those of LEFT shows edges

const BITS = 18; // of a slot's number
const SEEN_MAX = 255;
const BUCKETS = 8;
const RATES = Int32Array.from({ length: SEEN_MAX + 1 }, (_, n) => Math.floor((1 << 17) / (2 * n + 3)));
const BUCKET = Uint8Array.from({ length: SEEN_MAX + 1 }, (_, n) => Math.min(32 - Math.clz32(n), BUCKETS - 1));
const START = [0, 14000, 18000, 22000, 26000, 28000, 30000, 30000];
const LOGIT_MAX = 2816;
const [NONE, RARE, GUESS] = [0, 0x01c35aa5, 0x2545f491];
const PRIMES = Int32Array.from({ length: NEIGHBOURS.length }, (_, i) => Math.imul(0x9e3779b1, 2 * i + 1));

/** Hashes of 32-bit numbers, no two the same. */
function scatter(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

/** The inverse of `scatter`. */
function gather(x: number): number {
  x = Math.imul(x ^ (x >>> 16), inverse(0x846ca68b));
  x = Math.imul(x ^ (x >>> 15) ^ (x >>> 30), inverse(0x7feb352d));
  return (x ^ (x >>> 16)) >>> 0;
}

/** The number whose product with an odd one is 1 modulo 2^32, by Newton's iteration. */
function inverse(odd: number): number {
  let x = odd;
  for (let bits = 3; bits < 32; bits *= 2) x = Math.imul(x, 2 - Math.imul(odd, x));
  return x;
}

const hashed = (colour: number) => scatter(colour ^ RARE);
const unhashed = (hash: number) => (gather(hash) ^ RARE) >>> 0;

/** Chances of the logits -LOGIT_MAX..LOGIT_MAX; nothing is so near to a half that a last bit could turn it. */
const SQUASH = Int32Array.from({ length: 2 * LOGIT_MAX + 1 }, (_, i) =>
  Math.min(Math.max(Math.round(65536 / (1 + Math.exp((LOGIT_MAX - i) / 256))), 2), 65534));
const STRETCH = Int32Array.from({ length: 4096 }, (_, p) => Math.round(256 * Math.log((2 * p + 1) / (8191 - 2 * p))));

/** Adaptive probabilities and how often they were seen, by slot; weights by set, model and bucket of sightings. */
class Mixer {
  private readonly probabilities = new Int32Array(MODELS << BITS).fill(1 << 21);
  private readonly seen = new Uint8Array(MODELS << BITS);
  private readonly weights: Float64Array; // whole numbers

  constructor(sets: number) {
    this.weights = Float64Array.from({ length: sets * MODELS * BUCKETS }, (_, i) => START[i % BUCKETS]);
  }

  /** What is seen of a decision by the hashes of its models. */
  predict(hashes: Uint32Array, set: number): Decision {
    const slots = Int32Array.from(hashes, (hash, model) => (hash >>> (32 - BITS)) + (model << BITS));
    const old = slots.map((slot) => this.probabilities[slot]);
    const times = slots.map((slot) => this.seen[slot]);
    const logits = old.map((probability) => STRETCH[probability >> 10]);
    const used = times.map((count, model) => (set * MODELS + model) * BUCKETS + BUCKET[count]);
    let total = 0;
    for (let model = 0; model < MODELS; model++) total += this.weights[used[model]] * logits[model];
    const logit = Math.min(Math.max(Math.floor(total / 65536), -LOGIT_MAX), LOGIT_MAX);
    return { slots, old, times, logits, used, chance: SQUASH[logit + LOGIT_MAX] };
  }

  /** Take in what a decision was. */
  learn({ slots, old, times, logits, used, chance }: Decision, bit: number): void {
    const error = (bit << 16) - chance;
    for (let model = 0; model < MODELS; model++) {
      this.weights[used[model]] += Math.floor((logits[model] * error) / 65536);
      const change = ((bit << 22) - old[model]) * RATES[times[model]];
      this.probabilities[slots[model]] = old[model] + Math.floor(change / 65536);
      this.seen[slots[model]] = Math.min(times[model], SEEN_MAX - 1) + 1;
    }
  }
}

interface Decision {
  slots: Int32Array;
  old: Int32Array;
  times: Int32Array;
  logits: Int32Array;
  used: Int32Array;
  chance: number;
}

/** Reads colours of one step that no guess met, by their neighbours. */
export interface Others {
  read(reader: SymbolReader, around: Uint32Array[]): number[];
}

/** Colours that are numbers below `size`: by how often each was coded. */
export class Palette implements Others {
  private readonly counts: Int32Array;

  constructor(size: number) {
    this.counts = new Int32Array(size).fill(1);
  }

  read(reader: SymbolReader, around: Uint32Array[]): number[] {
    const colours = around.map(() => reader.choose(this.counts));
    for (const colour of colours) this.counts[colour] += 12;
    return colours;
  }
}

/** Colours of several samples of 8 bits: differences to a median, less that of the sample before. */
export class Components implements Others {
  private readonly counts: Int32Array[];
  private heavy = new Set<number>(); // rows halved last time

  constructor(private readonly channels: number) {
    const start = Int32Array.from({ length: 256 }, (_, d) => 2 + Math.floor(1024 / (1 + Math.min(d, 256 - d) ** 2)));
    this.counts = Array.from({ length: 64 * channels }, () => start.slice());
  }

  read(reader: SymbolReader, around: Uint32Array[]): number[] {
    const found = around.map(() => 0);
    const last = around.map(() => 0);
    const split = (colour: number) => Array.from({ length: this.channels }, (_, c) => (colour >>> (8 * c)) & 255);
    const near = around.map(([west, north, corner]) => [split(west), split(north), split(corner)]);
    const rough = near.map(([west, north, corner]) => {
      let sum = 0;
      for (let c = 0; c < this.channels; c++) sum += Math.abs(west[c] - corner[c]) + Math.abs(north[c] - corner[c]);
      return rank(sum, [1, 4, 10, 24, 60, 130, 250]);
    });
    for (let channel = 0; channel < this.channels; channel++) {
      const rows = last.map((size, i) => channel * 64 + rough[i] * 8 + rank(Math.abs(size), [1, 2, 4, 8, 16, 32, 64]));
      const differences = rows.map((row) => reader.choose(this.counts[row]));
      rows.forEach((row, i) => (this.counts[row][differences[i]] += 48));
      const isHeavy = (row: number) => this.counts[row].reduce((sum, count) => sum + count) > 1 << 14;
      this.heavy = new Set([...this.heavy, ...rows].filter(isHeavy));
      for (const row of this.heavy) this.counts[row] = this.counts[row].map((count) => (count >> 1) + 1);
      differences.forEach((difference, i) => {
        const [west, north, corner] = near[i].map((samples) => samples[channel]);
        const [low, high] = west < north ? [west, north] : [north, west];
        const median = Math.min(Math.max(west + north - corner, low), high);
        const sample = (median + last[i] + difference) & 255;
        last[i] = sample - median;
        found[i] = (found[i] | (sample << (8 * channel))) >>> 0;
      });
    }
    return found;
  }
}

/** How many of the rising limits a value has reached. */
function rank(value: number, limits: number[]): number {
  let count = 0;
  while (count < limits.length && limits[count] <= value) count++;
  return count;
}

/** Read the colours (height, width) of a tile. @throws PixaError Corrupt */
export function walk(wave: Wavefront, reader: SymbolReader, others: Others): Uint32Array {
  const plane = new Uint32Array(wave.size).fill(hashed(0));
  const offsets = wave.offsets(NEIGHBOURS);
  const mixer = new Mixer(GUESSES * 16);
  const memory = new Uint32Array(MEMORIES.length << BITS);
  for (let step = 0; step < wave.steps; step++) {
    const [first, stop] = wave.rows(step);
    const pixels: Pixel[] = [];
    for (let row = first; row < stop; row++) {
      const place = wave.place(step, row);
      const around = Uint32Array.from(offsets, (offset) => plane[place + offset]);
      const contexts = new Uint32Array(CONTEXTS.length);
      for (let seen = 0, sum = 0, c = 0; c < CONTEXTS.length; c++) {
        for (; seen < CONTEXTS[c]; seen++) sum = (sum + Math.imul(around[seen], PRIMES[seen])) | 0;
        contexts[c] = sum;
      }
      const slots = MEMORIES.map((c, i) => (scatter(contexts[c]) >>> (32 - BITS)) + (i << BITS));
      const guesses = [...slots.map((slot) => memory[slot]), ...around.subarray(0, 4)];
      pixels.push({ place, around, contexts, slots, guesses, found: NONE });
    }
    guess(reader, mixer, pixels);
    const missed = pixels.filter(({ found }) => found === NONE);
    const colours = missed.length ? others.read(reader, missed.map(({ around }) => around.map(unhashed))) : [];
    missed.forEach((pixel, i) => (pixel.found = hashed(colours[i])));
    for (const { place, slots, found } of pixels) {
      plane[place] = found;
      for (const slot of slots) memory[slot] = found;
    }
    wave.fill(plane, step);
  }
  return wave.straighten(plane).map(unhashed);
}

interface Pixel {
  place: number;
  around: Uint32Array;
  contexts: Uint32Array;
  slots: number[];
  guesses: number[];
  found: number;
}

/** Find the colours of a step's pixels by guesses; NONE where no guess is right. */
function guess(reader: SymbolReader, mixer: Mixer, pixels: Pixel[]): void {
  for (let number = 0; number < GUESSES; number++) {
    const tried = pixels.filter(({ guesses, found }) =>
      found === NONE && guesses[number] !== NONE && guesses.indexOf(guesses[number]) === number);
    const decisions = tried.map(({ guesses, around, contexts }) => {
      const colour = guesses[number];
      let [equal, edges] = [0, 0];
      for (let i = 0; i < 12; i++) equal |= Number(around[i] === colour) << i;
      for (let i = 0; i < 8; i++) edges |= Number(around[LEFT[i]] === around[RIGHT[i]]) << i;
      const keys = new Uint32Array(MODELS);
      for (let c = 0; c < CONTEXTS.length; c++) keys[c] = contexts[c] + Math.imul(colour, GUESS);
      keys[MODELS - 2] = equal + (number << 12);
      keys[MODELS - 1] = (equal & 15) + (edges << 4) + (number << 12) + (1 << 20);
      return mixer.predict(keys.map(scatter), number * 16 + (equal & 15));
    });
    const bits = decisions.map(({ chance }) => reader.decide(chance));
    decisions.forEach((decision, i) => mixer.learn(decision, bits[i]));
    tried.forEach((pixel, i) => bits[i] && (pixel.found = pixel.guesses[number]));
  }
}
