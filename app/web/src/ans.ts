/**
 * rANS with a 64-bit state and 32-bit words (FORMAT.md, section 6.3).
 *
 * The state is kept as two halves of 32 bits. No product below exceeds 2^45, so plain numbers are exact.
 */
import { PixaError } from "./errors";

const TOTAL = 1 << 24;
const WORD = 2 ** 32;

export class Ans {
  private readonly words: Uint32Array;
  private next: number;
  private high: number;
  private low: number;

  /** @throws PixaError Corrupt: the words cannot be those of an encoder */
  constructor(bytes: Uint8Array) {
    this.words = new Uint32Array(bytes.slice().buffer);
    const count = this.words.length;
    if (count === 0 || this.words[count - 1] === 0) {
      throw new PixaError("Corrupt", "a tile does not end in a word other than zero");
    }
    this.next = count - 1;
    this.high = count > 1 ? this.words[this.next--] : 0;
    this.low = this.words[this.next--];
  }

  /** Where in [0, 2^24) the next symbol is. */
  get quantile(): number {
    return this.low & (TOTAL - 1);
  }

  /** Take the symbol whose frequency begins `below` and holds the quantile. */
  advance(below: number, frequency: number): void {
    // floor(state / 2^24) has 40 bits: 20 of them times the frequency, then the other 20
    const upper = (this.high >>> 12) * frequency;
    const lower = (((this.high & 0xfff) << 8) | (this.low >>> 24)) * frequency + this.quantile - below;
    const carried = Math.floor(upper / 4096);
    const sum = (upper - carried * 4096) * 1048576 + lower;
    this.high = carried + Math.floor(sum / WORD);
    this.low = sum >>> 0;
    if (this.high === 0 && this.next >= 0) {
      this.high = this.low;
      this.low = this.words[this.next--];
    }
  }

  /** Whether nothing is left. */
  get ended(): boolean {
    return this.high === 0 && this.low === 1 && this.next < 0;
  }
}
