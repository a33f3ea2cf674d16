/** The demo page: a `.pixa` file that is dropped, chosen, pasted or named is shown, with what is known of it. */
import { type Picture, type PixaImage, encodePng, preload } from "../src/pixa";

const find = <E extends HTMLElement>(id: string) => document.getElementById(id) as E;
const stage = find("stage");
const picture = find<PixaImage>("picture");
const message = find("message");
const facts = find("facts");

let name = "";
let asked = 0;

function show(address: string, title: string): void {
  if (picture.src.startsWith("blob:")) URL.revokeObjectURL(picture.src);
  name = title;
  asked = performance.now();
  picture.alt = title;
  picture.src = address;
  tell(`Decoding ${title} ...`);
}

function tell(text: string, failed = false): void {
  message.textContent = text;
  message.classList.toggle("error", failed);
}

function showFile(file?: File): void {
  if (file) show(URL.createObjectURL(file), file.name);
}

function describe(shown: Picture, milliseconds: number): [string, string][] {
  const { times, metadata } = shown;
  const kind = { 1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGB and alpha" }[shown.channels]!;
  const whole = (value: number) => Math.round(value).toLocaleString("en");
  return [
    ["File", name],
    ["Picture", `${shown.width} x ${shown.height}, ${kind}`],
    ["Size", `${whole(shown.bytes)} bytes`],
    ["Bits per pixel", shown.bitsPerPixel.toFixed(3)],
    ["Quality", String(shown.quality)],
    ["Model", `${shown.model}, synthesis on ${shown.synthesis === "webgpu" ? "the GPU" : "the CPU"}`],
    ["Metadata", Object.keys(metadata).map((key) => key.toUpperCase()).join(", ") || "none"],
    ["Shown after", `${whole(milliseconds)} ms`],
    ["Symbols, latents, samples", [times.symbols, times.latents, times.samples].map(whole).join(" + ") + " ms"],
  ];
}

picture.addEventListener("load", () => {
  const items = describe(picture.picture!, performance.now() - asked).flatMap(([term, value]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = term;
    dd.textContent = value;
    const pair = document.createElement("div");
    pair.append(dt, dd);
    return pair;
  });
  facts.querySelector("dl")!.replaceChildren(...items);
  tell("");
  reveal(true);
});

picture.addEventListener("error", (event) => {
  tell(`${name}: ${event.message}`, true);
  reveal(false);
});

function reveal(shown: boolean): void {
  picture.hidden = facts.hidden = !shown;
  find("hint").hidden = shown;
  stage.classList.toggle("filled", shown);
}

picture.addEventListener("click", () => picture.classList.toggle("full"));

find("save").addEventListener("click", async () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await encodePng(picture.picture!));
  link.download = name.replace(/^.*\/|\.pixa$/g, "") + ".png";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});

const chosen = find<HTMLInputElement>("file");
chosen.addEventListener("change", () => showFile(chosen.files![0]));

find<HTMLFormElement>("open").addEventListener("submit", (event) => {
  event.preventDefault();
  const address = find<HTMLInputElement>("address").value.trim();
  if (address) show(address, address);
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
document.addEventListener("dragleave", () => stage.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  showFile(event.dataTransfer?.files[0]);
});
document.addEventListener("paste", (event) => showFile(event.clipboardData?.files[0]));

const address = new URLSearchParams(location.search).get("src");
if (address) show(address, address);
else preload().catch((error) => tell(`The decoder cannot be loaded: ${error.message}`, true));
