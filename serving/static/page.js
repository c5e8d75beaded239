// Sends a picture to /v1/predict and shows the answer as bars. Needs no library and no other address.
"use strict";
const $ = (id) => document.getElementById(id);
const SHOWN = 5;
let key = sessionStorage.getItem("key") || "";
let shownModel = "";
let latest = 0; // number of the latest picture; late answers for earlier pictures are dropped
let chosen = null;

function send(path, options = {}) {
  return fetch(path, { ...options, headers: key ? { "X-API-Key": key } : {} });
}

async function ask(path, options = {}) {
  const response = await send(path, options);
  if (response.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.detail || `The server answered ${response.status}.`);
  $("key-form").hidden = true;
  return content;
}

async function showModel() {
  const model = await ask("v1/model");
  const [height, width, channels] = model.image_shape;
  const colour = channels === 1 ? "grey" : "colour";
  $("model").textContent =
    `${model.name}, version ${model.version}: ${model.class_names.length} classes, sees ${width}\u00a0×\u00a0${height} pixels in ${colour}` +
    (model.precision === "float32" ? "" : `, computes in ${model.precision}`);
  $("report").hidden = !model.report;
  shownModel = `${model.name} ${model.version}`;
  const cells = Object.entries(model.cells);
  $("cells-section").hidden = cells.length === 0;
  $("cells").replaceChildren(
    ...cells.map(([name, drawing]) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.textContent = name;
      figure.append(caption, new DOMParser().parseFromString(drawing, "image/svg+xml").documentElement);
      return figure;
    }),
  );
}

function span(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

function showBars(names, probabilities, count) {
  const order = probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
  $("bars").replaceChildren(
    ...order.slice(0, count).map((index) => {
      const percent = 100 * probabilities[index];
      const item = document.createElement("li");
      const bar = span("bar", "");
      bar.style.width = `${percent}%`;
      item.append(bar, span("name", names[index]), span("value", `${percent.toFixed(1)} %`));
      return item;
    }),
  );
  $("more").hidden = count >= names.length;
  $("more").textContent = `Show all ${names.length} classes`;
  $("more").onclick = () => showBars(names, probabilities, names.length);
}

function say(sentence, wrong = false) {
  $("message").textContent = sentence;
  $("message").classList.toggle("wrong", wrong);
}

async function classify(file) {
  const number = ++latest;
  chosen = file;
  URL.revokeObjectURL($("picture").src);
  $("picture").src = URL.createObjectURL(file);
  $("picture").hidden = false;
  $("hint").textContent = "Choose, drop or paste another picture";
  $("answer").setAttribute("aria-busy", "true");
  const form = new FormData();
  form.append("images", file);
  try {
    const start = performance.now();
    const answer = await ask("v1/predict", { method: "POST", body: form });
    if (number !== latest) return;
    const elapsed = performance.now() - start;
    const [prediction] = answer.predictions;
    say(`It looks like: ${prediction.class_name}`);
    showBars(answer.class_names, prediction.probabilities, SHOWN);
    $("facts").textContent =
      `${elapsed.toFixed(0)} ms, of which ${answer.milliseconds.toFixed(0)} ms in the server · ` +
      `${answer.model_name}, version ${answer.model_version}`;
    if (shownModel !== `${answer.model_name} ${answer.model_version}`) await showModel();
  } catch (error) {
    if (number !== latest) return;
    $("bars").replaceChildren();
    $("facts").textContent = "";
    $("more").hidden = true;
    say(error instanceof TypeError ? "The server cannot be reached." : error.message, true);
  } finally {
    if (number === latest) $("answer").setAttribute("aria-busy", "false");
  }
}

$("picture").addEventListener("load", () => $("picture").classList.toggle("small", $("picture").naturalWidth < 128));
$("picture").addEventListener("error", () => { $("picture").hidden = true; });
$("file").addEventListener("change", () => {
  if ($("file").files.length) classify($("file").files[0]);
  $("file").value = ""; // so that the same picture can be chosen again
});
// The whole window accepts drops; otherwise, the browser would open a picture that is dropped beside the box.
addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => { if (event.clipboardData.files.length) classify(event.clipboardData.files[0]); });
// A link cannot send the key. If there is a key, the report is fetched with it and saved.
$("report").addEventListener("click", async (event) => {
  if (!key) return;
  event.preventDefault();
  const response = await send("report");
  if (!response.ok) return say((await response.json()).detail, true);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = "report.html";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value;
  sessionStorage.setItem("key", key);
  start();
});

function start() {
  showModel()
    .then(() => { if (chosen) classify(chosen); })
    .catch((error) => say(error instanceof TypeError ? "The server cannot be reached." : error.message, true));
}
start();
