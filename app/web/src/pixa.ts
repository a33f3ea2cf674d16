/** Decodes pixa pictures in a browser: `decode`, and the element `<pixa-img>`, which importing this defines. */
export { type Source, decode, preload } from "./decoder";
export { PixaImage } from "./element";
export { PixaError, type ErrorName } from "./errors";
export { encodePng } from "./png";
export type { Backend, DecodeOptions, MetadataKind, Picture } from "./types";
