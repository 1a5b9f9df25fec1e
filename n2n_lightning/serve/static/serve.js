"use strict";
// The page: which picture, how it is denoised, where results go.

const $ = (id) => document.getElementById(id);
const viewer = new Viewer($("view"), $("canvas"));
const tab = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16)).join("");
let arrays = [], number = 0, place = [], running = null, timer = 0, changedAt = 0, shownKey = "";

history.replaceState(null, "", "/");  // without the token

async function ask(address, body, method) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(address, method ? { ...options, method } : options);
  const content = await answer.json().catch(() => ({ error: answer.status + " " + answer.statusText }));
  return { ok: answer.ok, status: answer.status, content };
}
function said(text) { $("error").textContent = text; $("error").hidden = !text; }
function fill(select, pairs) {
  const before = select.value;
  select.replaceChildren(...pairs.map(([value, name]) => new Option(name, value)));
  if (pairs.some(([value]) => value === before)) select.value = before;
}

// Pictures

async function list(chosen) {
  const { ok, content } = await ask("/api/library");
  if (!ok) return said(content.error);
  fill($("picture"), content.pictures.map(({ key, name }) => [key, name]));
  fill($("checkpoint"), content.checkpoints.map(({ key, name }) => [key, name]));
  fill($("outliers"), content.outliers.map((name) => [name, { auto: "keep their values", replace: "replace", keep: "treat as any pixel" }[name] || name]));
  fill($("dtype"), content.dtypes.map((name) => [name, name === "auto" ? "as it suits" : name]));
  $("out-root").textContent = content.out + "/";
  $("empty").hidden = content.pictures.length > 0;
  for (const id of ["picture", "previous", "next", "save"]) $(id).disabled = !content.pictures.length;
  if (chosen) $("picture").value = chosen;
  if ($("picture").value !== shownKey) await open();
}
async function open() {
  const key = shownKey = $("picture").value;
  if (!key) return;
  said("");
  $("check").open = false; $("findings").textContent = "...";
  const query = new URLSearchParams({ key, axes: $("axes").value.toUpperCase() });
  const { ok, content } = await ask("/api/picture?" + query);
  if (key !== $("picture").value) return;
  if (!ok) { arrays = []; viewer.size = viewer.part = null; viewer.draw(); $("about").textContent = ""; $("sliders").replaceChildren(); return said(content.error); }
  arrays = content.arrays; number = 0;
  choose(0);
}
function choose(index) {  // one of the arrays of a file
  number = index;
  const array = arrays[number];
  place = array.shape.map(() => 0);
  const sliders = array.sliders.map(({ axis, name, length }) => slider(name, length, (value) => { place[axis] = value; }));
  if (arrays.length > 1) sliders.unshift(slider("array", arrays.length, (value) => choose(value), number));
  $("sliders").replaceChildren(...sliders);
  $("about").textContent = array.shape.join(" x ") + ", " + array.dtype + ", axes " + array.axes + (array.remark ? "; " + array.remark : "") + ".";
  viewer.open(array.height, array.width);
  if (array.in_pieces) viewer.zoom = 1;
  $("zoom").value = String(viewer.zoom);
  change(0); tellCommand();
}
function slider(name, length, moved, value = 0) {
  const label = document.createElement("label"), input = document.createElement("input"), output = document.createElement("output");
  Object.assign(input, { type: "range", min: 0, max: length - 1, value });
  input.setAttribute("aria-label", name);
  const tell = () => { output.textContent = name + " " + (+input.value + 1) + " of " + length; };
  input.oninput = () => { tell(); moved(+input.value); change(60); };
  tell(); label.append(input, output);
  return label;
}
async function upload(files) {
  let key = "";
  for (const file of files) {
    said("");
    $("stage").textContent = "copying " + file.name;
    const answer = await fetch("/upload/" + encodeURIComponent(file.name), { method: "PUT", body: file }).catch((error) => error);
    const content = answer.json ? await answer.json().catch(() => ({ error: answer.status })) : { error: String(answer) };
    if (content.key) key = content.key; else said(file.name + ": " + content.error);
  }
  $("stage").textContent = "";
  if (key) await list(key);
}

// Previews

function chosenOptions() {
  const options = { strength: +$("strength").value, outliers: $("outliers").value, dtype: $("dtype").value, axes: $("axes").value.toUpperCase() };
  for (const id of ["fast", "tta", "uneven"]) options[id] = $(id).checked;
  return options;
}
function change(wait = 0) {  // what is seen is out of date
  clearTimeout(timer);
  changedAt = performance.now();
  timer = setTimeout(preview, wait);
}
async function preview() {
  if (!arrays.length || !viewer.size) return;
  running?.abort();
  const mine = running = new AbortController(), { borders, step } = viewer.visible(), started = changedAt;
  const body = { tab, key: shownKey, array: number, place, borders, step, checkpoint: $("checkpoint").value, options: chosenOptions() };
  document.body.dataset.state = "working";
  try {
    const answer = await fetch("/api/preview", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: mine.signal });
    if (!answer.ok) { viewer.same(); return said((await answer.json()).error); }
    said("");
    $("stage").textContent = "preview ...";
    for await (const [head, pixels] of messages(answer.body.getReader())) {
      if (mine !== running) return;
      show(head, pixels, started);
    }
  } catch (error) {
    if (error.name !== "AbortError") said("The server does not answer: " + error.message);
  }
}
function show(head, pixels, started) {
  if (head.kind === "before") viewer.begin(head, pixels);
  if (head.kind === "notes") $("notes").textContent = head.lines.join("; ");
  if (head.kind === "error") { said(head.text); $("stage").textContent = "no preview"; }
  if (head.kind === "copied") { viewer.same(); $("stage").textContent = "copied as it is"; }
  if (head.kind === "progress") {
    $("tiles").hidden = head.done === head.total; $("tiles").value = head.done / head.total;
    $("stage").textContent = "preview, tile " + head.done + " of " + head.total;
  }
  if (head.kind === "after") {
    viewer.add(head, pixels);
    if (!document.body.dataset.latency || document.body.dataset.since !== String(started)) {
      document.body.dataset.since = started; document.body.dataset.latency = performance.now() - started;
    }
    if (head.stage === "middle") $("stage").textContent = "preview of the middle";
    if (head.stage === "complete") $("stage").textContent = "as it will be saved";
  }
  if (["error", "copied", "end"].includes(head.kind)) { $("tiles").hidden = true; document.body.dataset.state = "ready"; }
}
async function* messages(reader) {  // see messages.packed
  let rest = new Uint8Array(0);
  const kinds = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const joined = new Uint8Array(rest.length + value.length);
    joined.set(rest); joined.set(value, rest.length); rest = joined;
    while (rest.length >= 8) {
      const lengths = new DataView(rest.buffer, rest.byteOffset, 8), head = lengths.getUint32(0, true), body = lengths.getUint32(4, true);
      if (rest.length < 8 + head + body) break;
      const content = JSON.parse(new TextDecoder().decode(rest.subarray(8, 8 + head)));
      const bytes = rest.slice(8 + head, 8 + head + body);
      rest = rest.subarray(8 + head + body);
      yield [content, body ? new kinds[content.dtype](bytes.buffer) : null];
    }
  }
}

// Results

function wanted() {
  const options = { ...chosenOptions(), errors: $("errors").checked, page: $("page").checked };
  return { key: shownKey, scope: $("scope").value, out: $("out").value.trim(), checkpoint: $("checkpoint").value, options };
}
async function tellCommand() {
  if (!shownKey) return;
  const { ok, content } = await ask("/api/command", wanted());
  $("command").textContent = ok ? content.command : "";
  if (!ok) said(content.error);
}
async function save(overwrite) {
  const body = wanted();
  if (overwrite !== undefined) body.overwrite = overwrite;
  const { ok, status, content } = await ask("/api/save", body);
  if (ok) return watch();
  if (status !== 409 || !content.existing) { $("saved").textContent = content.error; return; }
  const more = content.count > content.existing.length ? " and " + (content.count - content.existing.length) + " more" : "";
  $("question").textContent = "There already: " + content.existing.join(", ") + more + ".";
  $("ask").showModal();
}
async function watch() {
  const { ok, content } = await ask("/api/job");
  if (!ok || content.state === "none") return;
  const busy = content.state === "running";
  $("saving").hidden = $("stop").hidden = !busy; $("save").disabled = busy;
  $("saving").value = content.share;
  const many = content.done + " of " + content.count;
  $("saved").textContent = { running: "writing, " + many, done: "written: " + content.results.length + " of " + content.count, failed: "failed; what was printed is below", stopped: "stopped" }[content.state];
  $("results").replaceChildren(...(busy ? [] : content.results.slice(0, 20)).map(({ name, key }) => {
    const item = document.createElement("li"), link = document.createElement("a");
    link.href = "/files/" + key.split("/").map(encodeURIComponent).join("/"); link.textContent = name; link.download = name;
    item.append(link); return item;
  }));
  $("log").textContent = content.lines.join("\n"); $("log").hidden = !content.lines.length;
  document.body.dataset.job = content.state;
  if (busy) setTimeout(watch, 400);
}

// What is pressed

$("picture").oninput = open;
const step = (by) => { const { selectedIndex, length } = $("picture").options; $("picture").selectedIndex = Math.min(length - 1, Math.max(0, selectedIndex + by)); open(); };
$("previous").onclick = () => step(-1);
$("next").onclick = () => step(1);
$("files").onchange = async () => { await upload($("files").files); $("files").value = ""; };
$("zoom").oninput = () => viewer.zoomTo(+$("zoom").value);
$("contrast").oninput = () => { const value = $("contrast").value; viewer.percent = value === "type" ? value : +value; viewer.render(); };
$("show").oninput = () => { viewer.show = $("show").value; viewer.render(); };
$("split").oninput = () => { viewer.split = +$("split").value / 1000; viewer.draw(); };
$("strength").oninput = () => { $("strength-said").textContent = $("strength").value; };
viewer.slid = () => { $("split").value = 1000 * viewer.split; };
viewer.moved = () => { if (viewer.size && viewer.root.clientWidth) change(120); };
for (const id of ["strength", "checkpoint", "outliers", "fast", "tta", "uneven", "dtype"]) $(id).addEventListener("input", () => { viewer.forget(); change(id === "strength" ? 40 : 0); tellCommand(); });
$("axes").onchange = () => { tellCommand(); open(); };
for (const id of ["scope", "out", "errors", "page"]) $(id).oninput = tellCommand;
$("options").onsubmit = (event) => { event.preventDefault(); save(); };
$("stop").onclick = () => ask("/api/stop", {}).then(watch);
$("copy").onclick = () => navigator.clipboard.writeText($("command").textContent).then(() => { $("copy").textContent = "Copied"; setTimeout(() => { $("copy").textContent = "Copy"; }, 1500); });
for (const button of document.querySelectorAll("#ask button")) button.onclick = () => { $("ask").close(); if (button.value !== "cancel") save(button.value === "replace"); };
$("check").ontoggle = async () => {
  if (!$("check").open || !shownKey) return;
  const key = shownKey, { content } = await ask("/api/check?" + new URLSearchParams({ key, axes: $("axes").value.toUpperCase() }));
  if (key === shownKey) $("findings").textContent = content.lines ? content.lines.join("\n") : content.error;
};
$("view").onkeydown = (event) => {
  const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!viewer.size || event.ctrlKey || event.metaKey || event.altKey) return;
  if (move && (event.shiftKey || move[0])) viewer.pan(60 * move[0], 60 * move[1]);
  else if (move) { viewer.split = Math.min(1, Math.max(0, viewer.split + 0.02 * move[1])); viewer.slid(); viewer.draw(); }
  else if (event.key === "+" || event.key === "=") viewer.zoomBy(2);
  else if (event.key === "-") viewer.zoomBy(0.5);
  else if (event.key === "0") { $("zoom").value = "0"; viewer.zoomTo(0); }
  else if (event.key === "r") { $("show").value = viewer.show = viewer.show === "residual" ? "both" : "residual"; viewer.render(); }
  else return;
  event.preventDefault();
};
let entered = 0;
document.addEventListener("dragenter", (event) => { event.preventDefault(); entered++; $("drop").hidden = false; });
document.addEventListener("dragleave", () => { if (--entered <= 0) $("drop").hidden = true; });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); entered = 0; $("drop").hidden = true; upload(event.dataTransfer.files); });
window.addEventListener("focus", () => list());
list(); watch();
