"use strict";
const form = document.getElementById("trial");
const problem = document.getElementById("problem");
const results = document.getElementById("results");
let sides = [];

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

form.addEventListener("change", () => {
  const kind = form.elements.kind.value;
  for (const part of form.querySelectorAll("[data-kind]")) part.hidden = part.dataset.kind !== kind;
});

async function begin(model) {
  const kind = form.elements.kind.value;
  let answer;
  if (kind === "image") {
    const file = form.elements.image.files[0];
    if (!file) throw new Error("choose an image");
    answer = await fetch(`/try/image?model=${encodeURIComponent(model)}`, {method: "POST", body: file});
  } else {
    answer = await fetch("/try/start", {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({
      model, kind, text: form.elements.text.value, pair: form.elements.pair.value,
      arrays: form.elements.arrays.value, new_tokens: form.elements.new_tokens.value,
    })});
  }
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found.trial;
}

function classes(list) {
  return list.map((one) => {
    const line = element("div", "", "share");
    const bar = document.createElement("meter");
    bar.max = 1; bar.value = one.share; bar.setAttribute("aria-label", one.name);
    line.append(element("span", one.name), bar, element("span", `${(100 * one.share).toFixed(2)} %`, "number"));
    return line;
  });
}

function values(output) {
  const first = output.values.slice(0, 8).map((v) => typeof v === "number" ? v.toPrecision(4) : String(v)).join(", ");
  return element("p", `[${first}${output.values.length > 8 ? ", …" : ""}]`, "values");
}

function show(side, found) {
  if (found.token !== undefined) {
    side.tokens.push(found.token);
    side.texts.push(found.text);
    side.stream.textContent = found.text;
    side.time.textContent = `${side.tokens.length} tokens, ${(1e3 * side.tokens.length / found.ms).toFixed(1)} per second`;
  } else if (found.tokens_per_second) {
    side.time.textContent = `first token after ${found.first_ms.toFixed(1)} ms, ${found.tokens_per_second.toFixed(1)} tokens per second`;
  } else {
    side.outputs = found.outputs;
    side.time.textContent = `${found.ms.toPrecision(3)} ms (first run ${found.first_ms.toPrecision(3)} ms)`;
    for (const output of found.outputs) {
      side.box.append(element("h3", `${output.name} [${output.shape.join(", ")}] ${output.dtype}`));
      side.box.append(...(output.classes ? classes(output.classes) : [values(output)]));
    }
  }
  side.stream.hidden = side.tokens.length === 0;
}

function cosine(a, b) {
  let dot = 0, aa = 0, bb = 0;
  a.forEach((x, i) => { dot += x * b[i]; aa += x * x; bb += b[i] * b[i]; });
  return dot / Math.sqrt(aa * bb);
}

// The token at a place of a stream stands out.
function mark(side, at) {
  const before = at ? side.texts[at - 1] : "", after = side.texts.at(-1);
  if (at >= side.texts.length || !after.startsWith(before)) return;
  const end = Math.max(side.texts[at].length, before.length);
  side.stream.replaceChildren(before, element("mark", after.slice(before.length, end)), after.slice(end));
}

function against() {
  const [first, second] = sides, line = document.getElementById("against");
  if (!second) return;
  if (first.tokens.length && second.tokens.length) {
    const at = first.tokens.findIndex((token, i) => token !== second.tokens[i]);
    line.textContent = at < 0 ? "Both wrote the same tokens." : `The first token that differs is number ${at + 1}.`;
    if (at >= 0) for (const side of sides) mark(side, at);
  } else if (first.outputs && second.outputs) {
    line.textContent = first.outputs.map((one) => {
      const other = second.outputs.find((o) => o.name === one.name);
      if (!other || other.values.length !== one.values.length || typeof one.values[0] !== "number") return `${one.name}: not comparable`;
      return `${one.name}: cosine ${cosine(one.values, other.values).toFixed(5)}`;
    }).join("; ");
  }
}

function run(model) {
  const box = element("article", "", "side");
  const side = {box, tokens: [], texts: [], outputs: null, time: element("p", "loading", "quiet"), stream: element("p", "", "stream")};
  side.stream.hidden = true;
  box.append(element("h2", model), side.time, side.stream);
  results.append(box);
  sides.push(side);
  return new Promise((resolve) => {
    begin(model).then((number) => {
      const source = new EventSource(`/try/${number}/events`);
      source.addEventListener("message", (event) => show(side, JSON.parse(event.data)));
      source.addEventListener("end", (event) => {
        source.close();
        const found = JSON.parse(event.data);
        if (found.error) { side.time.textContent = found.error; side.time.className = "problem"; }
        resolve();
      });
    }, (error) => { side.time.textContent = error.message; side.time.className = "problem"; resolve(); });
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  problem.textContent = "";
  results.replaceChildren();
  document.getElementById("against").textContent = "";
  sides = [];
  const chosen = [form.elements.first.value, form.elements.second.value].filter(Boolean);
  if (!chosen.length) { problem.textContent = "there is no model to run"; return; }
  // One after the other: two at a time would disturb each other's times.
  for (const model of chosen) await run(model);
  against();
});
