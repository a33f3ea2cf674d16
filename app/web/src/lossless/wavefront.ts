/** The order in which the pixels of a tile are coded: skewed rows (FORMAT.md, annex B.2). */

const MARGIN = 8;
const MARGIN_STEPS = 3 * MARGIN;

export type Plane = Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>;

/** The steps over a tile; a plane is an array of (step, row), margins included, where neighbours are at constant distances. */
export class Wavefront {
  readonly steps: number;
  readonly side: number; // of a step of a plane
  readonly size: number; // of a plane

  constructor(readonly height: number, readonly width: number) {
    this.steps = width + 2 * (height - 1);
    this.side = height + 2 * MARGIN;
    this.size = (this.steps + 2 * MARGIN_STEPS) * this.side;
  }

  /** Distances of neighbours at (rows down, columns to the right). */
  offsets(neighbours: number[][]): Int32Array {
    return Int32Array.from(neighbours, ([row, column]) => (column + 2 * row) * this.side + row);
  }

  /** The first row that a step codes and the one behind its last. */
  rows(step: number): [first: number, stop: number] {
    const first = Math.max(0, Math.floor((step - this.width + 2) / 2));
    return [first, Math.max(first, Math.min(this.height, (step >> 1) + 1))];
  }

  /** Where the pixel of a row is in a plane. */
  place(step: number, row: number): number {
    return (step + MARGIN_STEPS) * this.side + MARGIN + row;
  }

  /** Complete a step whose pixels are known. */
  fill(plane: Plane, step: number): void {
    const [first, stop] = this.rows(step);
    const begin = this.place(step, -MARGIN);
    const start = begin + MARGIN;
    const before = begin - this.side;
    if (first === stop) {
      plane.copyWithin(begin, before, begin);
      return;
    }
    plane.fill(plane[start + stop - 1], start + stop, begin + this.side);
    if (first) plane.copyWithin(begin, before, before + MARGIN + first);
    else plane.fill(plane[start], begin, start);
  }

  /** Complete the margin of steps behind the last. */
  fillBehind(plane: Plane): void {
    const last = this.size - MARGIN_STEPS * this.side;
    for (let place = last; place < this.size; place += this.side) plane.copyWithin(place, last - this.side, last);
  }

  /** The samples (height, width) of a plane. */
  straighten<P extends Plane>(plane: P): P {
    const samples = new (plane.constructor as new (size: number) => P)(this.height * this.width);
    for (let row = 0, to = 0; row < this.height; row++) {
      for (let column = 0; column < this.width; column++) samples[to++] = plane[this.place(column + 2 * row, row)];
    }
    return samples;
  }
}
