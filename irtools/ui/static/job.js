"use strict";
const log = document.getElementById("log");
const source = new EventSource(`/jobs/${log.dataset.job}/events`);

function show(job) {
  const state = document.getElementById("state");
  state.textContent = job.state;
  state.className = `state ${job.state}`;
  const step = job.state === "running" ? job.step : null;
  document.getElementById("step").textContent = step ? `${step.label}${step.total ? ` ${step.done}/${step.total}` : ""}` : `${job.seconds} s`;
  const bar = document.getElementById("bar");
  bar.hidden = !(step && step.total);
  if (step && step.total) { bar.max = step.total; bar.value = Math.min(step.done, step.total); }
  const over = !["waiting", "running"].includes(job.state);
  document.getElementById("cancel").disabled = over;
  if (job.state === "done" && job.output) {
    const file = job.output.endsWith(".onnx") ? job.output.replace(/\.onnx$/, ".report.json") : `${job.output}/report.json`;
    document.getElementById("open").href = `/report?path=${encodeURIComponent(file)}`;
    document.getElementById("result").hidden = false;
  }
}

source.addEventListener("message", (event) => {
  const found = JSON.parse(event.data);
  const low = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (found.lines.length) log.append(`${found.lines.join("\n")}\n`);
  if (low) log.scrollTop = log.scrollHeight;
  show(found.job);
});
source.addEventListener("end", (event) => { source.close(); show(JSON.parse(event.data)); });
