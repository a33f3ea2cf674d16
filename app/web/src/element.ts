/** `<pixa-img src="photo.pixa" alt="..." width="..." height="...">`: used as `<img>` is. */
import { decode } from "./decoder";
import { PixaError } from "./errors";
import { encodePng } from "./png";
import type { Picture } from "./types";

const STYLE = `
  :host { display: inline-block; }
  :host([hidden]) { display: none; }
  canvas { display: block; max-width: 100%; height: auto; }
  canvas[hidden], slot[hidden] { display: none; }
`;

/**
 * A pixa picture in a page.
 *
 * It sends `load` when the picture is drawn, and `error`, an ErrorEvent with `message` and `error`, when it cannot be.
 * What stands inside the element is shown where the picture cannot be, by default its `alt`.
 */
export class PixaImage extends HTMLElement {
  static readonly observedAttributes = ["src", "alt", "width", "height"];

  /** The picture that is shown. */
  picture?: Picture;

  private readonly canvas = document.createElement("canvas");
  private readonly instead = document.createElement("slot");
  private loading?: AbortController;

  constructor() {
    super();
    const style = document.createElement("style");
    style.textContent = STYLE;
    this.canvas.width = this.canvas.height = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("part", "canvas");
    this.instead.hidden = true;
    this.attachShadow({ mode: "open" }).append(style, this.canvas, this.instead);
  }

  get src(): string {
    return this.getAttribute("src") ?? "";
  }
  set src(value: string) {
    this.setAttribute("src", value);
  }

  get alt(): string {
    return this.getAttribute("alt") ?? "";
  }
  set alt(value: string) {
    this.setAttribute("alt", value);
  }

  get width(): number {
    return Number(this.getAttribute("width")) || this.canvas.clientWidth;
  }
  set width(value: number) {
    this.setAttribute("width", String(value));
  }

  get height(): number {
    return Number(this.getAttribute("height")) || this.canvas.clientHeight;
  }
  set height(value: number) {
    this.setAttribute("height", String(value));
  }

  get naturalWidth(): number {
    return this.picture?.width ?? 0;
  }

  get naturalHeight(): number {
    return this.picture?.height ?? 0;
  }

  /** Whether nothing is being loaded. */
  get complete(): boolean {
    return !this.loading;
  }

  connectedCallback(): void {
    if (this.src && !this.picture && !this.loading) void this.load();
  }

  disconnectedCallback(): void {
    this.loading?.abort();
    this.loading = undefined;
  }

  attributeChangedCallback(name: string, _before: string | null, value: string | null): void {
    if (name === "src") {
      this.loading?.abort();
      this.loading = this.picture = undefined;
      if (value && this.isConnected) void this.load();
    } else if (name === "alt") {
      this.canvas.setAttribute("aria-label", this.alt);
      this.instead.textContent = value;
    } else {
      this.canvas.style.setProperty(name, value && /^\d+$/.test(value) ? `${value}px` : "");
    }
  }

  private async load(): Promise<void> {
    const loading = (this.loading = new AbortController());
    try {
      const picture = await decode(this.src, { signal: loading.signal });
      await draw(picture, this.canvas, loading.signal);
      this.picture = picture;
      this.settle(loading, true);
      this.dispatchEvent(new Event("load"));
    } catch (error) {
      if (loading.signal.aborted) return;
      this.settle(loading, false);
      const message = error instanceof PixaError ? error.message : String(error);
      this.dispatchEvent(new ErrorEvent("error", { message, error }));
    }
  }

  private settle(loading: AbortController, drawn: boolean): void {
    if (this.loading === loading) this.loading = undefined;
    this.canvas.hidden = !drawn;
    this.instead.hidden = drawn;
  }
}

/** Draw a picture; the browser brings the colours of a profile to those of the canvas. */
async function draw(picture: Picture, canvas: HTMLCanvasElement, signal: AbortSignal): Promise<void> {
  const { width, height, data, metadata } = picture;
  const converted = metadata.icc && (await createImageBitmap(await encodePng(picture)));
  signal.throwIfAborted();
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d")!;
  if (converted) context.drawImage(converted, 0, 0);
  else context.putImageData(new ImageData(data, width, height), 0, 0);
}

declare global {
  interface HTMLElementTagNameMap {
    "pixa-img": PixaImage;
  }
}

customElements.define("pixa-img", PixaImage);
