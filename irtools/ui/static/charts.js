"use strict";
// Charts on one time axis: a column of times, and a column of values for every series.
const COLOURS = ["#1f77b4", "#d55e00", "#2a9d5c", "#b5529c", "#8c6d1f", "#0aa3a3", "#7a5cd6", "#808080"];
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]];
const KEPT = 2400;

function colour(number) { return COLOURS[number % COLOURS.length]; }

// A canvas knows no light-dark(): the browser resolves it as the colour of an element.
function styled(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

class Chart {
  constructor(parent, title, series, options = {}) {
    this.box = document.createElement("div");
    this.box.className = "chart";
    const heading = document.createElement("h2");
    heading.textContent = title;
    this.box.append(heading);
    parent.append(this.box);
    this.data = [[], ...series.map(() => [])];
    const axis = {stroke: styled("--quiet"), grid: {stroke: styled("--line"), width: 1}, ticks: {stroke: styled("--line")}};
    this.plot = new uPlot({
      width: this.width(), height: 220,
      cursor: options.alone ? {} : {sync: {key: "live"}},
      scales: {x: {time: false}, y: {range: (u, low, high) => [0, (high || 1) * 1.05]}},
      axes: [{...axis, size: 32, label: options.x || "seconds", labelSize: 20, labelFont: "12px sans-serif"}, {...axis, size: 64}],
      series: [{label: options.x || "seconds"}, ...series.map((one, number) => ({
        label: one.label, stroke: colour(one.colour ?? number), width: 2,
        dash: DASHES[one.dash || 0], spanGaps: Boolean(options.alone), points: {show: Boolean(options.points)},
        value: (u, value) => value == null ? "" : value.toPrecision(4),
      }))],
    }, this.data, this.box);
    new ResizeObserver(() => this.plot.setSize({width: this.width(), height: 220})).observe(parent);
  }
  width() { return Math.max(240, Math.floor(this.box.parentElement.clientWidth)); }
  add(time, values) {
    this.data[0].push(time);
    values.forEach((value, number) => this.data[number + 1].push(value));
    if (this.data[0].length > KEPT) for (const column of this.data) column.shift();
  }
  draw() { this.plot.setData(this.data); }
  set(data) { this.data = data; this.draw(); }
}
