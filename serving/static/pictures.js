// Sends a picture to v1/predict and shows what is in it.
"use strict";
const SHOWN = 5; // answers, until all are asked for
const LISTED = 12; // names of classes
let latest = 0; // number of the latest picture; late answers for earlier pictures are dropped
let chosen = null;

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

function best(probabilities) {
  return probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
}

function showBars(names, probabilities, all = false) {
  const order = best(probabilities);
  $("bars").replaceChildren(
    ...order.slice(0, all ? names.length : SHOWN).map((index) => {
      const percent = 100 * probabilities[index];
      const item = document.createElement("li");
      const bar = element("span", "bar");
      bar.style.width = `${percent}%`;
      item.append(bar, element("span", "name", names[index]), element("span", "value", `${percent.toFixed(1)} %`));
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
    await showAnswering(answer);
  } catch (error) {
    if (number !== latest) return;
    $("bars").replaceChildren();
    $("facts").textContent = "";
    $("more").hidden = $("swap").hidden = $("view").hidden = true;
    await failAnswer(error);
  } finally {
    if (number === latest) $("answer").setAttribute("aria-busy", "false");
  }
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

kinds.images = {
  section: "try",
  thing: "picture",
  title: "What is in the picture?",
  cells: "The network is a stack of these cells.",
  words(model) {
    const names = model.class_names.slice(0, LISTED).join(", ") + (model.class_names.length > LISTED ? ", …" : "");
    return `This network tells ${model.class_names.length} kinds of pictures apart: ${names}`;
  },
  async show(model) {
    const [height, width, channels] = model.image_shape;
    $("view-words").textContent = `What the network sees: ${width}\u00a0×\u00a0${height} pixels in ${channels === 1 ? "grey" : "colour"}`;
    await showPictures();
  },
  receive: (file) => classify(file),
  again() { if (chosen) classify(...chosen); },
  fail: (sentence) => say(sentence, { kind: "wrong" }),
};
