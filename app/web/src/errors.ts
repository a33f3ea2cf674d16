/** What went wrong, by the names of FORMAT.md section 8, and what a browser adds to them. */
export type ErrorName =
  | "NotPixa"
  | "UnsupportedVersion"
  | "UnsupportedInput"
  | "Corrupt"
  | "ModelMissing"
  | "LimitExceeded"
  | "Unreachable"
  | "DecodingFailed";

/** Anything that the decoder refuses or cannot do; the message is one plain sentence. */
export class PixaError extends Error {
  override readonly name: ErrorName;

  constructor(name: ErrorName, message: string) {
    super(message);
    this.name = name;
  }
}
