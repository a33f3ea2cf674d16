/** Makes dist/: the library, its worker, the demo page, the runtime and the weights. `node build.mjs [FOLDER]` */
import { cp, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.resolve(process.argv[2] ?? path.join(here, "dist"));
const weights = path.join(here, "..", "..", "weights");
const runtime = path.dirname(createRequire(import.meta.url).resolve("onnxruntime-web/wasm"));

await rm(out, { recursive: true, force: true });
for (const entryPoints of [{ pixa: "src/pixa.ts", demo: "demo/demo.ts" }, { worker: "src/worker.ts" }]) {
  await build({
    absWorkingDir: here,
    entryPoints,
    outdir: out,
    bundle: true,
    splitting: true,
    format: "esm",
    target: "es2022",
    minify: true,
    logLevel: "warning",
  });
}
for (const name of ["ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.jspi.wasm"]) {
  await cp(path.join(runtime, name), path.join(out, name));
}
for (const name of ["index.html", "demo.css"]) await cp(path.join(here, "demo", name), path.join(out, name));

const pictures = ({ can }) => can.includes("bundle");
const { models } = JSON.parse(await readFile(path.join(weights, "manifest.json"), "utf8"));
const offered = models.filter(pictures);
for (const { name, tag, decoder } of offered) {
  const folder = `${name}.${tag}`;
  await mkdir(path.join(out, "models", folder), { recursive: true });
  for (const file of decoder) await cp(path.join(weights, folder, file), path.join(out, "models", folder, file));
}
await writeFile(path.join(out, "models", "manifest.json"), JSON.stringify({ models: offered }, null, 1));
