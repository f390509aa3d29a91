// The page around the charts: what is shown, the pointer, the keyboard, and tables that sort.

const data = JSON.parse(document.getElementById("data").textContent);
const view = { axis: "step", smooth: 0, events: true, hidden: new Set(), zoom: null, range: [0, 1] };
const figures = [...document.querySelectorAll("figure[data-chart]")].map((figure) => ({
  figure, plot: figure.querySelector(".plot"), tip: figure.querySelector(".tip"),
  chart: data.charts[Number(figure.dataset.chart)], at: null,
}));
const MOST_ROWS = 12;

// From 0 to the end of the longest run that is shown.
function wholeRange() {
  const ends = data.runs.map((run, number) => {
    const last = run.clock.s[run.clock.s.length - 1] ?? 0;
    return view.hidden.has(number) ? 0 : place(run, last, view.axis);
  });
  return [0, Math.max(...ends.filter(Number.isFinite), 0) || 1];
}

function drawAll() {
  view.range = wholeRange();
  for (const one of figures) {
    one.at = draw(one.plot, one.chart, view, data);
    one.tip.hidden = true;
  }
  const reset = document.getElementById("reset");
  if (reset) reset.disabled = !view.zoom;
}

function row(tip, run, text) {
  const line = document.createElement("div"), swatch = document.createElement("span");
  swatch.className = `swatch dash${Math.floor(run / COLORS) % 3}`;
  swatch.style.color = color(run);
  line.append(swatch, text);
  tip.append(line);
}

// The rows of the tip at x: of each run that is shown its values there, then the events there.
function fillTip(one, x) {
  const { tip, at, chart } = one, several = data.runs.length > 1, values = new Map();
  let step = null;
  for (const line of at.lines) {
    if (!line.x.length) continue;
    const n = nearest(line.x, x);
    const reach = (at.x1 - at.x0) / 12;
    if (Math.abs(line.x[n] - x) > reach && (x < line.x[0] || x > line.x[line.x.length - 1])) continue;
    if (line.kind !== "plan") step ??= { run: line.run, at: line.s[n] };
    const text = `${KINDS[line.kind]} ${number(line.y[n], chart.percent, 4)}`.trim();
    values.set(line.run, [...(values.get(line.run) ?? []), text]);
  }
  const title = document.createElement("b");
  title.textContent = several || !step ? `${view.axis} ${xText(view.axis === "step" ? Math.round(x) : x, view.axis)}` : stepText(step);
  tip.replaceChildren(title);
  [...values].slice(0, MOST_ROWS).forEach(([run, texts]) => {
    row(tip, run, `${several ? `${data.runs[run].name}: ` : ""}${texts.reverse().join(", ")}`);
  });
  if (values.size > MOST_ROWS) tip.append(`… ${values.size - MOST_ROWS} more runs`);
  if (view.events) eventsAt(at, x).forEach(([run, event]) => row(tip, run, `step ${number(event.s, false, 9)}: ${event.x}`));
}

function stepText({ run, at }) {
  const [epoch, time] = ["epoch", "time"].map((axis) => place(data.runs[run], at, axis));
  return [`step ${number(at, false, 9)}`, ...(Number.isFinite(epoch) ? [`epoch ${number(epoch, false, 4)}`] : []),
    ...(Number.isFinite(time) ? [clockText(time)] : [])].join(" · ");
}

function eventsAt(at, x) {
  const found = [];
  data.runs.forEach((run, number) => {
    if (view.hidden.has(number)) return;
    for (const event of run.events) {
      const away = Math.abs(at.px(place(run, event.s, view.axis)) - at.px(x));
      if (away < 7) found.push([number, event]);
    }
  });
  return found.slice(0, 4);
}

function pointAt(one, x) {
  for (const other of figures) {
    const { at } = other, inside = x >= at.x0 && x <= at.x1;
    at.cross.setAttribute("visibility", inside ? "visible" : "hidden");
    if (inside) for (const end of ["x1", "x2"]) at.cross.setAttribute(end, at.px(x));
    if (other !== one) other.tip.hidden = true;
  }
  fillTip(one, x);
  one.x = x;
  one.tip.hidden = false;
  const { plot, tip, figure, at } = one, scale = plot.clientWidth / at.box.width;
  const left = plot.offsetLeft + at.px(x) * scale, width = tip.offsetWidth;
  const beside = left + 14 + width > figure.clientWidth - 4 ? left - 14 - width : left + 14;
  tip.style.left = `${Math.max(4, Math.min(beside, figure.clientWidth - width - 4))}px`;
  tip.style.top = `${plot.offsetTop + 22}px`;
}

function leave() {
  for (const { at, tip } of figures) {
    at.cross.setAttribute("visibility", "hidden");
    tip.hidden = true;
  }
}

function zoomTo(range) {
  view.zoom = range;
  drawAll();
}

function listen(one) {
  const { plot } = one;
  let from = null;
  const xOf = (event) => {
    const { left, width } = plot.getBoundingClientRect(), { at } = one;
    const px = ((event.clientX - left) / width) * at.box.width;
    const share = (px - at.box.left) / (at.box.right - at.box.left);
    return at.x0 + Math.min(1, Math.max(0, share)) * (at.x1 - at.x0);
  };
  plot.addEventListener("pointerdown", (event) => {
    pointAt(one, xOf(event));
    if (event.pointerType === "touch" || event.button) return;
    from = xOf(event);
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    const x = xOf(event);
    pointAt(one, x);
    if (from === null) return;
    const [a, b] = [from, x].map(one.at.px).sort((p, q) => p - q);
    one.at.area.setAttribute("x", a);
    one.at.area.setAttribute("width", b - a);
    one.at.area.setAttribute("visibility", "visible");
  });
  plot.addEventListener("pointerup", (event) => {
    const ends = [from, xOf(event)].sort((a, b) => a - b);
    const far = from !== null && one.at.px(ends[1]) - one.at.px(ends[0]) > 8;
    from = null;
    one.at.area.setAttribute("visibility", "hidden");
    if (far) zoomTo(ends);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("blur", leave);
  plot.addEventListener("dblclick", () => zoomTo(null));
  plot.addEventListener("keydown", (event) => {
    const { x0, x1 } = one.at, by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") leave();
    if (!by) return;
    event.preventDefault();
    pointAt(one, Math.min(x1, Math.max(x0, (one.x ?? x0) + (by * (x1 - x0)) / 50)));
  });
  one.figure.querySelector(".log")?.addEventListener("click", ({ currentTarget }) => {
    one.chart.log = !one.chart.log;
    currentTarget.setAttribute("aria-pressed", String(one.chart.log));
    drawAll();
  });
}

function listenToTools() {
  const on = (id, kind, change) => document.getElementById(id)?.addEventListener(kind, ({ currentTarget }) => {
    change(currentTarget);
    drawAll();
  });
  on("axis", "change", (select) => { view.axis = select.value; view.zoom = null; });
  on("smooth", "input", (range) => { view.smooth = Number(range.value); });
  on("events", "change", (box) => { view.events = box.checked; });
  on("reset", "click", () => { view.zoom = null; });
  for (const box of document.querySelectorAll(".chips input")) {
    box.addEventListener("change", () => {
      if (box.checked) view.hidden.delete(Number(box.value)); else view.hidden.add(Number(box.value));
      drawAll();
    });
  }
}

// Sorts a table by the column of a button in its head: up, then down; what is unknown comes last.
function sortBy(button) {
  const head = button.closest("th"), table = head.closest("table"), column = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
  const key = (tr) => tr.cells[column].dataset.sort ?? "";
  const compare = (a, b) => {
    const [p, q] = [key(a), key(b)];
    if (p === "" || q === "") return (p === "") - (q === "");
    const order = head.dataset.numeric ? p - q : p.localeCompare(q, "en", { numeric: true });
    return down ? -order : order;
  };
  const rows = [...body.rows].sort(compare);
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
}

figures.forEach(listen);
listenToTools();
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sortBy(button));
// A chart that is folded up has no width to be drawn in.
for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", drawAll);
let width = 0;
new ResizeObserver(() => {
  if (width !== document.documentElement.clientWidth) { width = document.documentElement.clientWidth; drawAll(); }
}).observe(document.documentElement);
drawAll();
// What is folded up would not be printed.
addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details")) details.open = true; });
