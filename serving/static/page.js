// Sends a picture to /v1/predict and shows the answer. Needs no library and no other address.
"use strict";
const $ = (id) => document.getElementById(id);
const SHOWN = 5; // answers, until all are asked for
const LISTED = 12; // names of classes
// What a visitor reads instead of the sentence for programmers.
const PLAIN = {
  408: "The picture took too long to arrive. Try again.",
  413: "This picture is too large for this server.",
  503: "Many people are asking at the moment. Try again in a few seconds.",
};
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
  if (!response.ok) throw new Error(PLAIN[response.status] || (content.detail || "The server has failed.").replace("Image 1", "The picture"));
  $("key-form").hidden = true;
  return content;
}

async function showModel() {
  const model = await ask("v1/model");
  const [height, width, channels] = model.image_shape;
  const names = model.class_names.slice(0, LISTED).join(", ") + (model.class_names.length > LISTED ? ", …" : "");
  $("try").hidden = model.image_shape.length === 0; // a network of another task
  if ($("try").hidden) $("model").textContent = "This network takes no pictures.";
  else $("model").textContent = `This network tells ${model.class_names.length} kinds of pictures apart: ${names}`;
  $("view-words").textContent = `What the network sees: ${width}\u00a0×\u00a0${height} pixels in ${channels === 1 ? "grey" : "colour"}`;
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
  await showPictures();
}

function blob(base64, type) {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
}

// Buttons with pictures to try. Their names do not give the answer away.
async function showPictures() {
  const { pictures } = await ask("v1/known");
  $("pictures").hidden = pictures.length === 0;
  $("pictures").querySelector("ul").replaceChildren(
    ...pictures.map(({ class_name, media_type, content }, index) => {
      const [item, button, image] = ["li", "button", "img"].map((name) => document.createElement(name));
      const file = blob(content, media_type);
      image.src = URL.createObjectURL(file);
      image.alt = `Picture ${index + 1} to try`;
      image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 128));
      button.type = "button";
      button.addEventListener("click", () => classify(file, class_name));
      button.append(image);
      item.append(button);
      return item;
    }),
  );
}

function span(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

function best(probabilities) {
  return probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
}

function showBars(names, probabilities, all = false) {
  const order = best(probabilities);
  $("bars").replaceChildren(
    ...order.slice(0, all ? names.length : SHOWN).map((index) => {
      const percent = 100 * probabilities[index];
      const item = document.createElement("li");
      const bar = span("bar", "");
      bar.style.width = `${percent}%`;
      item.append(bar, span("name", names[index]), span("value", `${percent.toFixed(1)} %`));
      return item;
    }),
  );
  // The button stays where it is, and keeps the focus.
  $("more").hidden = SHOWN >= names.length;
  $("more").textContent = all ? `Show the best ${SHOWN}` : `Show all ${names.length}`;
  $("more").setAttribute("aria-expanded", all);
  $("more").onclick = () => showBars(names, probabilities, !all);
}

function say(headline, { lead = "", note = "", kind = "" } = {}) {
  $("lead").textContent = lead;
  $("message").textContent = headline;
  $("note").textContent = note;
  $("message").className = kind;
}

// The headline is the answer, unless the network should not be relied on for this picture.
function sayAnswer(names, { probabilities, sure, warning }, truth) {
  const [first, second] = best(probabilities).map((index) => names[index]);
  const right = truth === null ? "" : ` The right answer is ${truth}.`;
  if (warning) say("Not sure", { note: `${warning} The best guess is ${first}.${right}`, kind: "unsure" });
  else if (sure === false) say("Not sure", { note: `It may be ${first}${second ? ` or ${second}` : ""}.${right}`, kind: "unsure" });
  else say(first, { lead: "It looks like", note: right, kind: "answer" });
  $("swap").hidden = !warning;
}

function show(image, file) {
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  image.hidden = false;
}

// ``truth``: the right answer, where the picture is one of the test's.
async function classify(file, truth = null) {
  const number = ++latest;
  chosen = [file, truth];
  show($("picture"), file);
  $("shown").hidden = false;
  $("hint").textContent = "Choose, drop or paste another picture";
  $("answer").setAttribute("aria-busy", "true");
  const form = new FormData();
  form.append("images", file);
  try {
    const start = performance.now();
    const answer = await ask("v1/predict?view=true", { method: "POST", body: form });
    if (number !== latest) return;
    const elapsed = performance.now() - start;
    const [prediction] = answer.predictions;
    sayAnswer(answer.class_names, prediction, truth);
    show($("view"), blob(prediction.view, "image/png"));
    showBars(answer.class_names, prediction.probabilities);
    $("facts").textContent = `Answered in ${elapsed.toFixed(0)} ms by ${answer.model_name}, version ${answer.model_version}.`;
    if (shownModel !== `${answer.model_name} ${answer.model_version}`) await showModel();
  } catch (error) {
    if (number !== latest) return;
    $("bars").replaceChildren();
    $("facts").textContent = "";
    $("more").hidden = $("swap").hidden = $("view").hidden = true;
    fail(error);
  } finally {
    if (number === latest) $("answer").setAttribute("aria-busy", "false");
  }
}

function fail(error) {
  say(error instanceof TypeError ? "The server cannot be reached." : error.message, { kind: "wrong" });
}

// The picture with light and dark swapped: its difference from white.
function swapped(image) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.globalCompositeOperation = "difference";
  context.drawImage(image, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

for (const image of [$("picture"), $("view")]) {
  image.addEventListener("load", () => image.classList.toggle("small", image.naturalWidth < 128));
}
$("picture").addEventListener("error", () => { $("shown").hidden = true; });
$("swap").addEventListener("click", async () => classify(await swapped($("picture")), chosen[1]));
for (const input of [$("file"), $("camera")]) {
  input.addEventListener("change", () => {
    if (input.files.length) classify(input.files[0]);
    input.value = ""; // so that the same picture can be chosen again
  });
}
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
  if (!response.ok) return say((await response.json()).detail, { kind: "wrong" });
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
    .then(() => { if (chosen) classify(...chosen); })
    .catch(fail);
}
start();
