// Runs ONNX files with onnxruntime-web (WebAssembly, in node). Prints the same as _runtime_probe.py.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import * as ort from "onnxruntime-web";

const folder = process.argv[2];
ort.env.logLevel = "fatal";
ort.env.wasm.numThreads = 1;
const given = JSON.parse(readFileSync(join(folder, "expected.json")));
const images = new ort.Tensor("uint8", Uint8Array.from(given.images.flat(3)), given.shape);
const found = {};
for (const file of readdirSync(folder).filter((name) => name.endsWith(".onnx")).sort()) {
  const name = file.slice(0, -".onnx".length);
  try {
    const session = await ort.InferenceSession.create(readFileSync(join(folder, file)), { executionProviders: ["wasm"] });
    const { data } = (await session.run({ image: images })).probabilities;
    const expected = given.answers[name].flat();
    found[name] = Math.max(...expected.map((value, index) => Math.abs(value - data[index])));
  } catch (error) {
    found[name] = String(error).replace(/\s+/g, " ").slice(0, 300);
  }
}
console.log(JSON.stringify(found));
