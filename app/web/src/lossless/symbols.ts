/** Symbols that each have frequencies of their own, integers that sum to 2^24 (FORMAT.md, annex B.1). */
import { Ans } from "../ans";
import { PixaError } from "../errors";

export const TOTAL = 1 << 24;

/** Reads the symbols of one payload, nothing but words, in order. */
export class SymbolReader {
  private readonly coder: Ans;

  /** @throws PixaError Corrupt */
  constructor(payload: Uint8Array) {
    if (!payload.length || payload.length % 4) throw new PixaError("Corrupt", "a tile is no row of words");
    this.coder = new Ans(payload);
  }

  /** A decision that is 1 with a chance in 1/65536. */
  decide(chance: number): number {
    const zeros = TOTAL - 256 * chance;
    const bit = Number(this.coder.quantile >= zeros);
    this.coder.advance(bit ? zeros : 0, bit ? 256 * chance : zeros);
    return bit;
  }

  /** A symbol whose frequencies are in proportion to integer weights; the first of the largest takes what is missing. */
  choose(weights: Int32Array): number {
    const symbols = weights.length;
    let sum = 0;
    for (const weight of weights) sum += weight;
    let [largest, most, missing] = [0, 0, TOTAL];
    const frequencies = new Int32Array(symbols);
    for (let symbol = 0; symbol < symbols; symbol++) {
      const frequency = 1 + Math.floor((weights[symbol] * (TOTAL - symbols)) / sum);
      if (frequency > most) [largest, most] = [symbol, frequency];
      frequencies[symbol] = frequency;
      missing -= frequency;
    }
    frequencies[largest] += missing;
    let [symbol, below] = [0, 0];
    while (below + frequencies[symbol] <= this.coder.quantile) below += frequencies[symbol++];
    this.coder.advance(below, frequencies[symbol]);
    return symbol;
  }

  /** @throws PixaError Corrupt: something is left */
  finish(): void {
    if (!this.coder.ended) throw new PixaError("Corrupt", "a tile holds more or less than its symbols");
  }
}
