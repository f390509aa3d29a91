"use strict";
// Draws one chart as an SVG. What is shown is a `view`, see page.js; numbers come from the page's
// JSON, see launch/reports/charts.py.

const SVG = "http://www.w3.org/2000/svg";
const COLORS = 8;
const MARKS = { rate: "M-4,-4H4L0,3Z", trouble: "M-3.5,-3.5L3.5,3.5M-3.5,3.5L3.5,-3.5",
  process: "M0,-3.5A3.5,3.5 0 1 1 -.01,-3.5Z", other: "M0,-4L4,0L0,4L-4,0Z" };
const KINDS = { train: "training", eval: "evaluation", plan: "planned", "": "" };

function add(parent, name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}

const color = (run) => `var(--c${run % COLORS})`;
const dashes = (run) => ["none", "7 4", "2 3"][Math.floor(run / COLORS) % 3];

// The place of the element of an ascending list that is nearest to x.
function nearest(list, x) {
  let low = 0, high = list.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] < x) low = middle; else high = middle;
  }
  return Math.abs(list[low] - x) <= Math.abs(list[high] - x) ? low : high;
}

// The value at x on the way through ascending points; NaN outside of them.
function along(from, to, x) {
  if (!from.length || x < from[0] || x > from[from.length - 1]) return NaN;
  const near = nearest(from, x);
  const left = from[near] <= x ? near : near - 1;
  if (from[left] === x || left + 1 >= from.length) return to[left] ?? NaN;
  const share = (x - from[left]) / (from[left + 1] - from[left]);
  return (to[left] ?? NaN) + share * ((to[left + 1] ?? NaN) - (to[left] ?? NaN));
}

// The x of a step of a run on an axis: step, epoch or time.
function place(run, step, axis) {
  if (axis === "step") return step;
  const clock = run.clock, to = axis === "epoch" ? clock.e : clock.t;
  // The clock begins with the first row; a run begins at 0.
  if (clock.s.length && step < clock.s[0]) return clock.s[0] ? (to[0] * step) / clock.s[0] : to[0];
  return along(clock.s, to, step);
}

function abscissae(line, run, axis) {
  line.x ??= {};
  line.x[axis] ??= axis === "epoch" && line.e ? line.e : line.s.map((step) => place(run, step, axis));
  return line.x[axis];
}

// An exponential mean over the points, without the bias of its beginning; gaps stay.
function smoothed(values, share) {
  let sum = 0, weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = share * sum + (1 - share) * value;
    weight = share * weight + (1 - share);
    return sum / weight;
  });
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return found;
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), found = [];
  const every = Math.max(1, Math.ceil((last - first) / 6));
  const within = last - first > 2 ? [1] : [1, 2, 5];
  for (let n = first; n <= last; n += every) {
    for (const m of within) if (m * 10 ** n >= low && m * 10 ** n <= high) found.push(m * 10 ** n);
  }
  return found.length > 1 ? found : ticks(low, high, 4);
}

function number(value, percent, digits = 5) {
  if (value === null || Number.isNaN(value)) return "not finite";
  if (percent) return `${+(100 * value).toPrecision(digits)} %`;
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e6)) return value.toExponential(Math.max(0, digits - 2)).replace(/\.?0+e/, "e");
  const short = +value.toPrecision(digits);
  return size >= 1e4 ? short.toLocaleString("en-GB", { maximumFractionDigits: 0 }) : String(short);
}

function clockText(seconds) {
  if (seconds < 100) return `${+seconds.toPrecision(3)} s`;
  if (seconds < 6000) return `${+(seconds / 60).toPrecision(3)} min`;
  return `${+(seconds / 3600).toPrecision(3)} h`;
}

const xText = (x, axis) => (axis === "time" ? clockText(x) : number(x, false, 6));

// What of a chart is shown: its lines with their points, its ranges, and how they are scaled.
function layout(chart, view, data, width) {
  const height = width < 440 ? 215 : 260;
  const box = { left: 56, right: width - 14, top: 24, bottom: height - 24, width, height };
  const lines = chart.lines
    .filter((line) => !view.hidden.has(line.run) && !(line.kind === "plan" && view.axis === "time"))
    .map((line) => {
      const smooth = view.smooth && line.kind !== "eval" && line.kind !== "plan";
      return { ...line, x: abscissae(line, data.runs[line.run], view.axis),
        y: smooth ? smoothed(line.v, view.smooth) : line.v, raw: smooth ? line.v : null };
    });
  let [x0, x1] = view.zoom ?? view.range;
  if (chart.plan && !view.zoom) {
    for (const line of lines) if (line.kind === "plan") x1 = Math.max(x1, line.x[line.x.length - 1]);
  }
  if (!(x1 > x0)) x1 = x0 + 1;
  let y0 = Infinity, y1 = -Infinity;
  const log = chart.log && lines.some((line) => line.y.some((y) => y > 0));
  for (const line of lines) {
    line.y.forEach((y, n) => {
      if (y === null || line.x[n] < x0 || line.x[n] > x1 || (log && y <= 0)) return;
      y0 = Math.min(y0, y); y1 = Math.max(y1, y);
    });
  }
  if (y0 > y1) [y0, y1] = log ? [0.1, 1] : [0, 1];
  if (y0 === y1) [y0, y1] = log ? [y0 / 2, y1 * 2] : [y0 - (Math.abs(y0) || 1) / 2, y1 + (Math.abs(y1) || 1) / 2];
  const scale = log ? Math.log10 : (y) => y;
  const pad = 0.05 * (scale(y1) - scale(y0));
  const [s0, s1] = [scale(y0) - pad, scale(y1) + pad];
  return { box, lines, log, x0, x1, y0: log ? 10 ** s0 : s0, y1: log ? 10 ** s1 : s1,
    px: (x) => box.left + ((x - x0) / (x1 - x0)) * (box.right - box.left),
    py: (y) => box.bottom - ((scale(y) - s0) / (s1 - s0)) * (box.bottom - box.top) };
}

function path(line, values, at) {
  let text = "", pen = "M";
  values.forEach((y, n) => {
    if (y === null || Number.isNaN(line.x[n]) || (at.log && y <= 0)) { pen = "M"; return; }
    text += `${pen}${at.px(line.x[n]).toFixed(1)},${at.py(y).toFixed(1)}`;
    pen = "L";
  });
  return text;
}

function drawAxes(svg, at, chart, axis) {
  const { box } = at;
  const ys = at.log ? logTicks(at.y0, at.y1) : ticks(at.y0, at.y1, 5);
  for (const y of ys) {
    add(svg, "line", { class: "grid", x1: box.left, x2: box.right, y1: at.py(y), y2: at.py(y) });
    add(svg, "text", { x: box.left - 7, y: at.py(y) + 4, "text-anchor": "end" }, number(y, chart.percent, 3));
  }
  for (const x of ticks(at.x0, at.x1, Math.max(2, Math.floor(box.width / 85)))) {
    const anchor = at.px(x) > box.right - 20 ? "end" : "middle";
    add(svg, "text", { x: at.px(x), y: box.bottom + 17, "text-anchor": anchor }, xText(x, axis));
  }
}

// The phases of the learning rate, by step.
function drawBands(svg, at, run) {
  run.phases.forEach((phase, n) => {
    const [left, right] = [phase.a - 1, phase.b].map((step) => at.px(Math.min(at.x1, Math.max(at.x0, step))));
    if (!(right > left)) return;
    if (n % 2 === 0) add(svg, "rect", { class: "band", x: left, y: at.box.top, width: right - left, height: at.box.bottom - at.box.top });
    if (right - left > 7 * phase.n.length) add(svg, "text", { x: (left + right) / 2, y: at.box.top - 9, "text-anchor": "middle" }, phase.n);
  });
}

function drawEvents(svg, at, view, data) {
  data.runs.forEach((run, number) => {
    if (view.hidden.has(number)) return;
    for (const event of run.events) {
      const x = place(run, event.s, view.axis);
      if (!(x >= at.x0 && x <= at.x1)) continue;
      const stroke = event.k === "trouble" ? "var(--bad)" : color(number), left = at.px(x);
      add(svg, "line", { class: "event", x1: left, x2: left, y1: at.box.top, y2: at.box.bottom, style: `stroke:${stroke}` });
      add(svg, "path", { d: MARKS[event.k], transform: `translate(${left},${at.box.top})`, style: `stroke:${stroke};fill:${stroke}` });
    }
  });
}

function drawLine(svg, line, at) {
  const look = `stroke:${color(line.run)}`;
  const dash = line.kind === "plan" ? "" : `;stroke-dasharray:${dashes(line.run)}`;
  if (line.raw) add(svg, "path", { class: "curve raw", d: path(line, line.raw, at), style: look });
  add(svg, "path", { class: `curve ${line.kind}`, d: path(line, line.y, at), style: look + dash });
  const shown = line.x.filter((x) => x >= at.x0 && x <= at.x1).length;
  const dots = (line.kind === "eval" && shown <= 80) || (shown <= 2 && line.kind !== "plan");
  line.y.forEach((y, n) => {
    const x = line.x[n];
    if (!(x >= at.x0 && x <= at.x1)) return;
    if (y === null) add(svg, "line", { class: "lost", x1: at.px(x), x2: at.px(x), y1: at.box.bottom - 8, y2: at.box.bottom });
    else if (dots && !(at.log && y <= 0)) add(svg, "circle", { cx: at.px(x), cy: at.py(y), r: 2.6, style: `fill:${color(line.run)}` });
  });
}

// Draws the chart into its element and gives back what a pointer needs to find its way about.
function draw(element, chart, view, data) {
  const width = Math.max(240, Math.round(element.clientWidth)), at = layout(chart, view, data, width);
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${at.box.width} ${at.box.height}`);
  svg.setAttribute("aria-hidden", "true");
  const clip = add(add(svg, "defs", {}), "clipPath", { id: `clip-${chart.id}` });
  add(clip, "rect", { x: at.box.left - 3, y: at.box.top - 5, width: at.box.right - at.box.left + 6, height: at.box.bottom - at.box.top + 9 });
  const there = data.runs.filter((run, number) => !view.hidden.has(number));
  if (chart.plan && there.length === 1 && view.axis === "step") drawBands(svg, at, there[0]);
  drawAxes(svg, at, chart, view.axis);
  const inside = add(svg, "g", { "clip-path": `url(#clip-${chart.id})` });
  if (view.events) drawEvents(inside, at, view, data);
  for (const line of at.lines) drawLine(inside, line, at);
  at.cross = add(svg, "line", { class: "cross", y1: at.box.top, y2: at.box.bottom, visibility: "hidden" });
  at.area = add(svg, "rect", { class: "zoom", y: at.box.top, height: at.box.bottom - at.box.top, visibility: "hidden" });
  element.replaceChildren(svg);
  at.svg = svg;
  return at;
}
