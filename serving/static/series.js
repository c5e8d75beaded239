// Sends a table to v1/predict, and draws what has been and what is forecast. The chart is read with the mouse, a finger or
// the arrow keys; the same numbers are in a table.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const BACK = 6; // the chart shows at most so many times as many steps back as it shows ahead
const MOST = 1000; // lines of the table of numbers
const HEIGHT = 300;
const MARGIN = { left: 58, right: 14, top: 30, bottom: 26 };
const UNITS = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
let about = null; // of the served model: targets, lookback, ...
let example = null; // { text, truth }
let shown = null; // { target: the chosen one, answer, truth }
let asking = 0; // number of the latest question; late answers for earlier ones are dropped

function counted(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

// A number of steps in words: 24 steps of an hour are 24 hours.
function span(steps) {
  const { unit, count } = about.step;
  if (unit === "months") return counted(steps * count, "month");
  const [size, name] = UNITS.find(([seconds]) => count % seconds === 0);
  return counted((steps * count) / size, name);
}

// Five digits, or all before the point.
function number(value) {
  const size = Math.abs(value);
  if (size >= 1e15 || (size < 1e-4 && size > 0)) return value.toLocaleString("en", { notation: "scientific", maximumSignificantDigits: 5 });
  return value.toLocaleString("en", size >= 1e5 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 5 });
}

// 2026-03-02T03:00+01:00 -> 2026-03-02 03:00
function clock(time) {
  return time.slice(0, 16).replace("T", " ");
}

// a, b and c
function listed(names, most = 6) {
  const told = names.length > most ? [...names.slice(0, most - 1), `${names.length - most + 1} more`] : names;
  return told.length > 1 ? `${told.slice(0, -1).join(", ")} and ${told.at(-1)}` : told.join("");
}

async function showSeries(model) {
  about = model.series;
  const names = [about.time, ...about.targets, ...about.covariates];
  $("rows-words").textContent =
    `A table with commas between its columns: a line of names (${listed(names)}), then a line for every ${span(1).replace(/^1 /, "")}, ` +
    `the oldest first. The last ${counted(about.lookback, "line")} count. The column ${about.time} may be missing.`;
  $("go").textContent = `Forecast the next ${span(about.horizon)}`;
  const known = await ask("v1/known");
  example = known.example && { text: toText(known.example), truth: known.truth };
  if (example && !$("rows").value) $("rows").value = example.text;
  offerExample();
}

function offerExample() {
  $("example").hidden = !example || $("rows").value === example.text;
}

function quoted(text) {
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// { time, columns } -> CSV
function toText({ time, columns }) {
  const names = Object.keys(columns);
  const all = [...(time ? [[about.time, time]] : []), ...names.map((name) => [name, columns[name]])];
  const lines = all[0][1].map((_, row) => all.map(([, values]) => values[row]).join(","));
  return [all.map(([name]) => quoted(name)).join(","), ...lines].join("\n");
}

// The line of names and as many lines as count, so that a long file does not fill the box.
function cut(text) {
  const [head, ...lines] = text.replace(/^\uFEFF/, "").trimEnd().split(/\r\n|\n|\r/);
  return [head, ...lines.slice(-about.lookback)].join("\n");
}

async function forecast() {
  const number = ++asking;
  const text = cut($("rows").value);
  const truth = example && text === cut(example.text) ? example.truth : {};
  $("forecast").setAttribute("aria-busy", "true");
  try {
    const start = performance.now();
    const answer = await ask("v1/predict?view=true", { method: "POST", body: text, headers: { "Content-Type": "text/csv" } });
    if (number !== asking) return;
    const elapsed = performance.now() - start;
    showForecast(answer, truth);
    $("forecast-facts").textContent = `Answered in ${elapsed.toFixed(0)} ms by ${answer.model_name}, version ${answer.model_version}.`;
    await showAnswering(answer);
  } catch (error) {
    if (number === asking) await failAnswer(error);
  } finally {
    if (number === asking) $("forecast").setAttribute("aria-busy", "false");
  }
}

function showForecast(answer, truth) {
  const { targets } = answer;
  const target = targets.includes(shown?.target) ? shown.target : targets[0];
  shown = { target, answer, truth };
  $("which").hidden = targets.length === 1;
  $("target").replaceChildren(...targets.map((name) => new Option(name, name, false, name === target)));
  $("outcome").hidden = false;
  showTarget();
}

// What the chart and the table show: one target, from the first step that is drawn.
function drawn() {
  const { target, answer, truth } = shown;
  const [{ time, step, columns, view }] = answer.predictions;
  const ahead = columns[target];
  const from = Math.max(0, view.columns[target].length - BACK * ahead.length);
  const past = view.columns[target].slice(from);
  let times = time ? [...view.time.slice(from), ...time].map(clock) : [...past.map((_, index) => `step ${index - past.length + 1}`), ...step.map((each) => `step ${each}`)];
  if (times.every((each) => each.endsWith(" 00:00"))) times = times.map((each) => each.slice(0, 10));
  return { target, past, ahead, really: truth[target] || [], times };
}

function showTarget() {
  const { target, past, ahead, really, times } = drawn();
  const last = ahead.at(-1);
  $("forecast-message").className = "";
  $("forecast-message").textContent =
    `${target} goes from ${number(past.at(-1))} to ${number(last)} in ${span(ahead.length)}; ` +
    `its lowest is ${number(Math.min(...ahead))}, its highest ${number(Math.max(...ahead))}.`;
  const table = $("numbers").querySelector("table");
  const names = [times[0].startsWith("step") ? "Step" : "Time", "Forecast", ...(really.length ? ["What came"] : [])];
  const head = element("tr", "");
  head.append(...names.map((name) => Object.assign(element("th", "", name), { scope: "col" })));
  const lines = ahead.slice(0, MOST).map((value, index) => {
    const line = element("tr", "");
    line.append(Object.assign(element("th", "", times[past.length + index]), { scope: "row" }), element("td", "", number(value)));
    if (really.length) line.append(element("td", "", number(really[index])));
    return line;
  });
  table.replaceChildren(head, ...lines);
  $("cursor").max = times.length - 1;
  $("cursor").value = past.length; // the first step that is forecast
  draw();
}

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// Round numbers from low to high, about as many as ``count``.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step); tick * step <= high && found.length < 20; tick += 1) found.push(tick * step);
  return found;
}

function draw() {
  if (!shown || !$("chart").clientWidth) return;
  const { target, past, ahead, really, times } = drawn();
  const width = Math.max(280, $("chart").clientWidth);
  const values = [...past, ...ahead, ...really];
  let [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1), high + (Math.abs(high) || 1)];
  const right = width - MARGIN.right, bottom = HEIGHT - MARGIN.bottom;
  const x = (index) => MARGIN.left + ((right - MARGIN.left) * index) / Math.max(1, times.length - 1);
  const y = (value) => bottom - (bottom - MARGIN.top) * (value / (high - low) - low / (high - low));
  const path = (list, start) => list.map((value, index) => `${index ? "L" : "M"}${x(start + index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const svg = shape("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-labelledby": "forecast-message" });
  for (const tick of ticks(low, high, 5)) {
    svg.append(shape("path", { class: "grid", d: `M${MARGIN.left} ${y(tick)}H${right}` }));
    svg.append(shape("text", { x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" }, brief(tick, high - low)));
  }
  const labels = Math.max(2, Math.min(times.length, Math.floor((right - MARGIN.left) / 150)));
  for (let label = 0; label < labels; label += 1) {
    const index = Math.round(((times.length - 1) * label) / (labels - 1));
    const anchor = label === 0 ? "start" : label === labels - 1 ? "end" : "middle";
    svg.append(shape("text", { x: x(index), y: HEIGHT - 6, "text-anchor": anchor }, times[index]));
  }
  svg.append(shape("path", { class: "now", d: `M${x(past.length - 1)} ${MARGIN.top}V${bottom}` }));
  const lines = [["past", "So far", past, 0], ["ahead", "Forecast", [past.at(-1), ...ahead], past.length - 1]];
  if (really.length) lines.push(["really", "What came", [past.at(-1), ...really], past.length - 1]);
  let left = width < 420 ? 8 : MARGIN.left;
  for (const [name, words, list, start] of lines) {
    svg.append(shape("path", { class: `line ${name}`, d: path(list, start) }));
    svg.append(shape("path", { class: `line ${name}`, d: `M${left} 12h26` }), shape("text", { x: left + 32, y: 16 }, words));
    left += 48 + 7.5 * words.length;
  }
  svg.append(shape("path", { class: "mark", d: "" }), shape("circle", { class: "mark", r: 4 }));
  $("chart").replaceChildren(svg);
  $("chart").onpointermove = (event) => {
    const at = (event.clientX - svg.getBoundingClientRect().left - MARGIN.left) / (right - MARGIN.left);
    $("cursor").value = Math.round(at * (times.length - 1));
    read();
  };
  $("cursor").oninput = read;
  read();

  // Says and marks what is at the cursor.
  function read() {
    const index = Number($("cursor").value);
    const early = index < past.length;
    const value = early ? past[index] : ahead[index - past.length];
    const came = early ? undefined : really[index - past.length];
    const words = `${times[index]}: ${target} ${number(value)}${early ? "" : " forecast"}${came === undefined ? "" : `, ${number(came)} came`}`;
    $("reading").textContent = words;
    $("cursor").setAttribute("aria-valuetext", words);
    svg.querySelector("path.mark").setAttribute("d", `M${x(index)} ${MARGIN.top}V${bottom}`);
    svg.querySelector("circle.mark").setAttribute("cx", x(index));
    svg.querySelector("circle.mark").setAttribute("cy", y(value));
  }
}

// A tick of an axis, short enough for its place.
function brief(tick, range) {
  const large = Math.max(Math.abs(tick), range);
  if (large >= 1e6 || large < 1e-3) return tick.toLocaleString("en", { notation: large >= 1e6 && large < 1e13 ? "compact" : "scientific", maximumSignificantDigits: 3 });
  return tick.toLocaleString("en", { maximumSignificantDigits: 5 });
}

$("history").addEventListener("submit", async (event) => {
  event.preventDefault();
  await forecast();
  $("forecast").scrollIntoView(); // it is above the button
});
$("rows").addEventListener("input", offerExample);
$("csv").addEventListener("change", () => {
  if ($("csv").files.length) kinds.series.receive($("csv").files[0]);
  $("csv").value = ""; // so that the same file can be chosen again
});
$("example").addEventListener("click", () => {
  $("rows").value = example.text;
  offerExample();
  $("rows").focus(); // the button is gone
  forecast();
});
$("target").addEventListener("change", () => {
  shown.target = $("target").value;
  showTarget();
});
$("save").addEventListener("click", () => {
  const [{ time, step, columns }] = shown.answer.predictions;
  save(new Blob([toText({ time: time || step, columns })], { type: "text/csv" }), "forecast.csv");
});
new ResizeObserver(draw).observe($("chart"));

kinds.series = {
  section: "series",
  thing: "table",
  title: "What comes next?",
  cells: "The network goes through this cell once for every line of the table. Where two arrows meet, + adds and × multiplies.",
  words: ({ series: { targets, covariates } }) =>
    `This network forecasts ${listed(targets)} from ${targets.length > 1 ? "their" : "its"} past${covariates.length ? ` and that of ${listed(covariates)}` : ""}`,
  show: showSeries,
  async receive(file) {
    $("rows").value = cut(await file.text());
    offerExample();
    await forecast();
  },
  again() { if ($("rows").value) forecast(); },
  fail(sentence) {
    shown = null;
    $("outcome").hidden = true;
    $("forecast-message").className = "wrong";
    $("forecast-message").textContent = sentence;
  },
};
