/**
 * Entropy coding: rANS with a 64-bit state, 32-bit words and integer tables (FORMAT.md, sections 6.1 to 6.4).
 *
 * The state is kept as two halves of 32 bits. No product below exceeds 2^45, so plain numbers are exact.
 */
import { readVarint } from "./container";
import { PixaError } from "./errors";

const TOTAL = 1 << 24;
const WORD = 2 ** 32;
const MAX_SYMBOL = 32767;

/** Cumulative frequencies of the tables 1, 2, ..., one behind the other, each ending in 2^24. */
export class Tables {
  readonly starts: Uint32Array;
  readonly cumulative: Uint32Array;

  /** @param limits largest magnitude of each table, 0 for table 0 @param frequencies of the tables from 1 on */
  constructor(readonly limits: Uint16Array, frequencies: Uint32Array) {
    this.starts = new Uint32Array(limits.length);
    this.cumulative = new Uint32Array(frequencies.length + limits.length);
    for (let table = 1, from = 0, to = 0; table < limits.length; table++) {
      this.starts[table] = to;
      let sum = 0;
      for (let left = 2 * limits[table] + 2; left > 0; left--) {
        this.cumulative[to++] = sum;
        sum += frequencies[from++];
      }
      this.cumulative[to++] = TOTAL;
    }
  }
}

/** Reads the groups of one payload in order; `finish` proves that nothing is left. */
export class EntropyDecoder {
  private readonly words: Uint32Array;
  private next: number;
  private high: number;
  private low: number;
  private escapes: number;

  /** @throws PixaError Corrupt, here and in the methods, when the payload contradicts itself */
  constructor(private readonly payload: Uint8Array, private readonly tables: Tables) {
    const [count, start] = readVarint(payload, 0);
    this.escapes = start + 4 * count;
    if (this.escapes > payload.length) throw new PixaError("Corrupt", "a tile is shorter than it says");
    this.words = new Uint32Array(payload.slice(start, this.escapes).buffer);
    if (count === 0 || this.words[count - 1] === 0) {
      throw new PixaError("Corrupt", "a tile does not end in a word other than zero");
    }
    this.next = count - 1;
    this.high = count > 1 ? this.words[this.next--] : 0;
    this.low = this.words[this.next--];
  }

  /** The symbols of the next group, whose tables are `indexes`; a position with table 0 has the symbol 0. */
  decode(indexes: Uint8Array): Int32Array {
    const { words, tables: { limits, starts, cumulative } } = this;
    const symbols = new Int32Array(indexes.length);
    const order = byTable(indexes, limits.length);
    let { high, low, next } = this;
    for (let i = 0; i < order.length; i++) {
      const place = order[i];
      const table = indexes[place];
      const limit = limits[table];
      const quantile = low & (TOTAL - 1);
      let entry = starts[table];
      for (let above = entry + 2 * limit + 2; above - entry > 1; ) {
        const middle = (entry + above) >>> 1;
        if (cumulative[middle] <= quantile) entry = middle;
        else above = middle;
      }
      const below = cumulative[entry];
      const frequency = cumulative[entry + 1] - below;
      // floor(state / 2^24) has 40 bits: 20 of them times the frequency, then the other 20
      const upper = (high >>> 12) * frequency;
      const lower = (((high & 0xfff) << 8) | (low >>> 24)) * frequency + quantile - below;
      const carried = Math.floor(upper / 4096);
      const sum = (upper - carried * 4096) * 1048576 + lower;
      high = carried + Math.floor(sum / WORD);
      low = sum >>> 0;
      if (high === 0 && next >= 0) {
        high = low;
        low = words[next--];
      }
      const symbol = entry - starts[table] - limit;
      symbols[place] = symbol > limit ? this.escape(limit) : symbol;
    }
    Object.assign(this, { high, low, next });
    return symbols;
  }

  private escape(limit: number): number {
    const [value, end] = readVarint(this.payload, this.escapes);
    this.escapes = end;
    const magnitude = Math.floor(value / 2);
    if (magnitude <= limit || magnitude > MAX_SYMBOL) {
      throw new PixaError("Corrupt", "an escaped value is out of range");
    }
    return value % 2 ? -magnitude : magnitude;
  }

  finish(): void {
    if (this.high !== 0 || this.low !== 1 || this.next >= 0 || this.escapes !== this.payload.length) {
      throw new PixaError("Corrupt", "a tile holds more or less than its symbols, or was made with other tables");
    }
  }
}

/** The positions of all indexes but 0, table by table, in order within a table. */
function byTable(indexes: Uint8Array, tables: number): Uint32Array {
  const places = new Uint32Array(tables + 1);
  for (let i = 0; i < indexes.length; i++) if (indexes[i]) places[indexes[i] + 1]++;
  for (let table = 1; table <= tables; table++) places[table] += places[table - 1];
  const order = new Uint32Array(places[tables]);
  for (let i = 0; i < indexes.length; i++) if (indexes[i]) order[places[indexes[i]]++] = i;
  return order;
}
