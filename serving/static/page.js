// What the page does for networks of every kind: the key, the model, its cells, files that are dropped. Needs no library and no
// other address. pictures.js and series.js add what one kind needs to `kinds`.
"use strict";
const $ = (id) => document.getElementById(id);
// Name of a kind of network -> { section, thing, title, cells, words(model), show(model), receive(file), again(), fail(sentence) }.
const kinds = {};
let key = sessionStorage.getItem("key") || "";
let kind = null; // of the served network, one of `kinds`
let shownModel = "";

// What a visitor reads instead of the sentence for programmers.
function plain(status) {
  const thing = kind?.thing || "file";
  return {
    408: `The ${thing} took too long to arrive. Try again.`,
    413: `This ${thing} is too large for this server.`,
    503: "Many people are asking at the moment. Try again in a few seconds.",
  }[status];
}

function send(path, options = {}) {
  return fetch(path, { ...options, headers: { ...options.headers, ...(key ? { "X-API-Key": key } : {}) } });
}

async function ask(path, options = {}) {
  const response = await send(path, options);
  if (response.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(plain(response.status) || (content.detail || "The server has failed.").replace("Image 1", "The picture"));
  $("key-form").hidden = true;
  return content;
}

async function showModel() {
  const model = await ask("v1/model");
  kind = kinds[model.kind] || null;
  for (const [name, each] of Object.entries(kinds)) $(each.section).hidden = name !== model.kind;
  document.title = `MS-DARTS: ${kind ? kind.title.toLowerCase() : "a network"}`;
  $("title").textContent = kind ? kind.title : "A network for programs";
  $("model").textContent = kind ? kind.words(model) : "This network takes neither pictures nor tables.";
  $("report").hidden = !model.report;
  shownModel = `${model.name} ${model.version}`;
  showCells(model.cells, kind?.cells || "");
  problem("");
  await kind?.show(model);
}

// Shows the model anew if another version has answered.
async function showAnswering({ model_name, model_version }) {
  if (shownModel !== `${model_name} ${model_version}`) await showModel();
}

function showCells(cells, words) {
  $("cells-words").textContent = words;
  $("cells-section").hidden = Object.keys(cells).length === 0;
  $("cells").replaceChildren(
    ...Object.entries(cells).map(([name, drawing]) => {
      const figure = element("figure", "");
      const svg = new DOMParser().parseFromString(drawing, "image/svg+xml").documentElement;
      figure.append(element("figcaption", "", name), svg);
      return figure;
    }),
  );
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function problem(sentence) {
  $("problem").textContent = sentence;
  $("problem").hidden = !sentence;
}

function fail(error) {
  const sentence = error instanceof TypeError ? "The server cannot be reached." : error.message;
  if (kind) kind.fail(sentence);
  else problem(sentence);
}

// After a question that failed: another kind of network may have taken the place of the one that the page is for.
async function failAnswer(error) {
  fail(error);
  const model = await ask("v1/model").catch(() => null);
  if (model && (kinds[model.kind] || null) !== kind) await showModel().catch(fail);
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// The whole window accepts drops; otherwise, the browser would open a file that is dropped beside the box.
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (kind && event.dataTransfer.files.length) kind.receive(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => { if (kind && event.clipboardData.files.length) kind.receive(event.clipboardData.files[0]); });
// A link cannot send the key. If there is a key, the report is fetched with it and saved.
$("report").addEventListener("click", async (event) => {
  if (!key) return;
  event.preventDefault();
  const response = await send("report");
  if (!response.ok) return problem((await response.json()).detail);
  save(await response.blob(), "report.html");
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value;
  sessionStorage.setItem("key", key);
  start();
});

function start() {
  showModel()
    .then(() => kind?.again())
    .catch(fail);
}
addEventListener("DOMContentLoaded", start); // after pictures.js and series.js
