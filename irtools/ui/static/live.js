"use strict";
const byId = (id) => document.getElementById(id);
const setup = byId("setup");
let source = null, charts = null, names = [], load = null, axes = 0;

async function post(path, document_) {
  const answer = await fetch(path, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(document_)});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || "the server refused it");
  return found;
}

function fields() {
  const given = new FormData(setup);
  return {
    use: given.getAll("use"), mode: given.get("mode"), batch: given.get("batch"),
    sequence: given.get("sequence"), clients: given.get("clients"), seconds: given.get("seconds"),
  };
}

function card(name, number, keys) {
  const box = document.createElement("article");
  box.className = "card";
  box.style.borderLeftColor = colour(number);
  const title = document.createElement("h2");
  title.textContent = name;
  const list = document.createElement("dl");
  for (const key of keys) {
    const term = document.createElement("dt"), value = document.createElement("dd");
    term.textContent = key; value.dataset.key = key; value.textContent = "–";
    list.append(term, value);
  }
  box.append(title, list);
  return box;
}

function build(point) {
  names = Object.keys(point.contenders);
  const onGpu = point.gpus ? ["GPU memory"] : [];
  const keys = ["per second", "p50", "p95", "p99", "CPU", "memory", ...onGpu];
  byId("cards").replaceChildren(...names.map((name, number) => card(name, number, keys)));
  const parent = byId("charts");
  parent.replaceChildren();
  const lines = names.map((label, number) => ({label, colour: number}));
  const quantiles = ["p50", "p95", "p99"].flatMap((key, dash) =>
    names.map((name, number) => ({label: `${key} ${name}`, colour: number, dash})));
  charts = {
    throughput: new Chart(parent, "Throughput, samples per second", lines),
    latency: new Chart(parent, "Latency, ms: p50 drawn through, p95 dashed, p99 dotted", quantiles),
    cpu: new Chart(parent, "CPU of each model while it is asked, cores", lines),
    cores: new Chart(parent, "Load of each core, %", point.cores.map((_, number) => ({label: `core ${number}`}))),
    memory: new Chart(parent, "Resident memory, MB", lines),
  };
  if (point.gpus) {
    const gpus = point.gpus.map((one, number) => ({label: `${number} ${one.name}`}));
    charts.gpuLoad = new Chart(parent, "Load of each GPU, %", gpus);
    charts.gpuMemory = new Chart(parent, "Memory of each GPU, MB", gpus);
    charts.gpuPower = new Chart(parent, "Power of each GPU, W", gpus);
  }
  load = new Map();
  axes = new Set();
}

const shown = (value, unit) => value == null ? "–" : `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${unit}`;

function take(point) {
  if (!charts) build(point);
  const all = names.map((name) => point.contenders[name]);
  const column = (key, factor = 1) => all.map((one) => one[key] == null ? null : one[key] * factor);
  charts.throughput.add(point.t, column("throughput"));
  charts.latency.add(point.t, ["p50", "p95", "p99"].flatMap((key) => column(key)));
  charts.cpu.add(point.t, column("cpu"));
  charts.cores.add(point.t, point.cores);
  charts.memory.add(point.t, column("rss", 1e-6));
  if (point.gpus) {
    charts.gpuLoad.add(point.t, point.gpus.map((one) => one.load));
    charts.gpuMemory.add(point.t, point.gpus.map((one) => one.memory == null ? null : one.memory / 1e6));
    charts.gpuPower.add(point.t, point.gpus.map((one) => one.power));
  }
  [...byId("cards").children].forEach((box, number) => {
    const one = all[number], values = {
      "per second": shown(one.throughput, ""), p50: shown(one.p50, "ms"), p95: shown(one.p95, "ms"),
      p99: shown(one.p99, "ms"), CPU: shown(one.cpu, "cores"), memory: shown(one.rss / 1e6, "MB"),
      "GPU memory": shown(one.gpu_memory == null ? null : one.gpu_memory / 1e6, "MB"),
    };
    for (const cell of box.querySelectorAll("dd")) cell.textContent = values[cell.dataset.key];
  });
  const one = point.contenders[point.active];
  if (one && one.throughput != null) load.set(`${point.clients} ${point.active}`, [one.throughput, one.p95]);
  axes.add(point.clients);
  byId("state").textContent = `${point.t.toFixed(0)} s, ${point.clients} ${point.clients === 1 ? "client" : "clients"}`;
}

function draw() {
  if (!charts) return;
  for (const [key, chart] of Object.entries(charts)) if (key !== "load") chart.draw();
  if (axes.size > 1) drawLoad();
}

function drawLoad() {
  // One column of throughputs for all, in order; a model has a value at its own ones.
  charts.load ||= new Chart(byId("charts"), "p95 over throughput, a point per number of clients",
    names.map((label, number) => ({label, colour: number})), {x: "samples per second", alone: true, points: true});
  const points = [...load].map(([key, value]) => ({name: key.slice(key.indexOf(" ") + 1), x: value[0], y: value[1]}));
  points.sort((a, b) => a.x - b.x);
  charts.load.set([points.map((p) => p.x), ...names.map((name) => points.map((p) => p.name === name ? p.y : null))]);
}

function running(on) {
  byId("start").disabled = on;
  byId("stop").disabled = !on;
  setup.dataset.running = on ? "yes" : "no";
}

function follow() {
  charts = null;
  running(true);
  byId("save").hidden = true;
  source = new EventSource("/live/events");
  let drawn = false;
  source.addEventListener("message", (event) => {
    const found = JSON.parse(event.data);
    if (found.contenders) take(found);
    else if (found.state) byId("state").textContent = found.text;
    else if (found.bench) byId("save").hidden = false;
    if (!drawn) { drawn = true; requestAnimationFrame(() => { drawn = false; draw(); }); }
  });
  source.addEventListener("end", (event) => {
    source.close();
    running(false);
    const found = JSON.parse(event.data);
    byId("problem").textContent = found.error;
    if (found.outcome === "done") byId("state").textContent += ", ended";
  });
}

setup.addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("problem").textContent = "";
  byId("saved").textContent = "";
  try { await post("/live/start", fields()); follow(); } catch (error) { byId("problem").textContent = error.message; }
});
byId("stop").addEventListener("click", () => post("/live/stop", {}).catch((error) => { byId("problem").textContent = error.message; }));
byId("save").addEventListener("submit", async (event) => {
  event.preventDefault();
  try { byId("saved").textContent = `saved ${(await post("/live/save", {name: byId("name").value})).path}`; }
  catch (error) { byId("saved").textContent = error.message; }
});
if (setup.dataset.running === "yes") follow();
