"use strict";
const byId = (id) => document.getElementById(id);
const documentOf = (id) => JSON.parse(byId(id).textContent);
const { figures, themes } = documentOf("figures");
const MOST_ROWS = 500;

const once = (work) => { let made; return () => (made ??= work()); };
const charts = once(() => documentOf("charts").charts); // for tables of numbers only

const say = (words) => { byId("spoken").textContent = words; };

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Copying: the clipboard where the browser allows it, else the selection.
async function copy(text, source, button) {
  const word = button.textContent;
  const done = (said) => { button.textContent = said; say(said); setTimeout(() => { button.textContent = word; }, 1600); };
  try { await navigator.clipboard.writeText(text); return done("Copied"); } catch (refused) { /* no permission */ }
  const range = document.createRange();
  range.selectNodeContents(source);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  done(document.execCommand("copy") ? "Copied" : "Press Ctrl+C");
}
for (const button of document.querySelectorAll("button[data-copy]")) {
  const source = byId(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", () => copy(source.textContent, source, button));
}

// Light and dark: as the system has it until somebody chooses.
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;
const mode = () => chosen ?? (dark.matches ? "dark" : "light");
const themeButton = byId("theme");
function applyTheme() {
  document.documentElement.dataset.theme = mode();
  document.documentElement.style.colorScheme = chosen ?? "";
  themeButton.textContent = mode() === "dark" ? "Light" : "Dark";
  for (const plot of drawn.keys()) Plotly.relayout(plot, { template: themes[mode()] });
}
themeButton.hidden = false;
themeButton.addEventListener("click", () => { chosen = mode() === "dark" ? "light" : "dark"; applyTheme(); });
dark.addEventListener("change", applyTheme);

// Every trial: sorted by a column, each opening what is known of it.
const table = byId("trial-table");
const cellValue = (body, column) => {
  const text = body.rows[0].cells[column].textContent.trim();
  const number = Number(text.replace(/[#,%]/g, "").split(" ")[0]);
  return text === "–" || text === "" ? null : Number.isNaN(number) ? text : number;
};
const compared = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
function sortBy(head) {
  const column = [...head.parentNode.cells].indexOf(head);
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const keyed = [...table.tBodies].map((body) => [cellValue(body, column), body]);
  keyed.sort(([a], [b]) => a === null ? (b === null ? 0 : 1) : b === null ? -1 : (up ? 1 : -1) * compared(a, b));
  table.append(...keyed.map(([, body]) => body));
  say(`Sorted by ${head.textContent.trim()}, ${up ? "ascending" : "descending"}`);
}
function open(body, wanted) {
  const button = body.querySelector("button[aria-expanded]");
  const opens = wanted ?? button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(opens));
  body.rows[1].hidden = !opens;
}
if (table) {
  for (const head of table.tHead.querySelectorAll("tr:last-child th")) {
    const button = element("button", head.textContent, { type: "button", class: "sort" });
    head.replaceChildren(button);
    button.addEventListener("click", () => sortBy(head));
  }
  table.addEventListener("click", (event) => {
    const button = event.target.closest("button[aria-expanded]");
    if (button) open(button.closest("tbody"));
  });
}
function show(trial) {
  const body = byId(`trial-${trial}`);
  if (!body) return;
  open(body, true);
  body.scrollIntoView({ block: "center" });
  body.querySelector("button").focus({ preventScroll: true });
}

// Charts. The library lies in the page, deflated; the page's policy lets nothing but that text run.
const drawn = new Map(); // element of a plot -> its figure
const loaded = once(async () => {
  const letters = atob(byId("plotly").textContent);
  const bytes = new Uint8Array(letters.length);
  for (let place = 0; place < letters.length; place += 1) bytes[place] = letters.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  document.head.append(element("script", await new Response(stream).text()));
});
const config = {
  responsive: true,
  displaylogo: false,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
};

function legend(plot, box) {
  const entries = new Map();
  plot.data.forEach((trace, place) => {
    if (trace.showlegend === false && !trace.legendgroup) return;
    const key = trace.legendgroup ?? trace.name;
    entries.set(key, { trace: entries.get(key)?.trace ?? trace, places: [...(entries.get(key)?.places ?? []), place] });
  });
  box.replaceChildren(...[...entries.values()].map(({ trace, places }) => {
    const button = element("button", undefined, { type: "button", "aria-pressed": "true", class: "toggle" });
    const swatch = element("span", trace.meta?.swatch ?? "■", { "aria-hidden": "true" });
    swatch.style.color = trace.meta?.colour ?? trace.marker?.color ?? trace.line?.color;
    const words = element("span");
    words.innerText = new DOMParser().parseFromString(trace.name, "text/html").body.textContent;
    button.append(swatch, " ", words);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      Plotly.restyle(plot, { visible: on }, places);
    });
    return button;
  }));
}

async function draw(holder) {
  await loaded();
  const figure = figures[holder.dataset.figure];
  const plot = holder.querySelector(".plot");
  const select = holder.querySelector("select");
  const label = select ? select.value : Object.keys(figure.variants)[0];
  const { data, layout, about } = figure.variants[label];
  const shown = { ...layout, showlegend: false, template: themes[mode()] };
  const names = data.map((trace) => ({ ...trace }));
  await (drawn.has(plot) ? Plotly.react(plot, names, shown, config) : Plotly.newPlot(plot, names, shown, config));
  if (!drawn.has(plot)) {
    plot.on("plotly_click", ({ points }) => { if (points[0].customdata !== undefined) show(points[0].customdata); });
    drawn.set(plot, figure);
  }
  holder.querySelector("figcaption").textContent = about;
  legend(plot, holder.querySelector(".legend"));
}

function numbers(holder) {
  const family = charts().filter((chart) => chart.family === holder.dataset.figure);
  const select = holder.querySelector("select");
  const chart = family.find((each) => select && each.label === select.value) ?? family[0];
  const grid = element("table");
  grid.append(element("caption", `${chart.title}, ${chart.source}: the numbers, as in charts.json`));
  const heads = element("tr");
  heads.append(...chart.columns.map((name) => element("th", name, { scope: "col" })));
  grid.createTHead().append(heads);
  const body = grid.createTBody();
  for (const row of chart.rows.slice(0, MOST_ROWS)) {
    const line = body.insertRow();
    for (const cell of row) line.insertCell().textContent = cell ?? "";
  }
  const quoted = (cell) => /[",\n]/.test(String(cell ?? "")) ? `"${String(cell).replaceAll('"', '""')}"` : String(cell ?? "");
  const csv = [chart.columns, ...chart.rows].map((row) => row.map(quoted).join(",")).join("\n");
  const button = element("button", "Copy as CSV", { type: "button" });
  button.addEventListener("click", () => copy(`${csv}\n`, grid, button));
  const more = chart.rows.length > MOST_ROWS ? [element("p", `The first ${MOST_ROWS} of ${chart.rows.length} rows.`)] : [];
  const scroll = element("div", undefined, { class: "scroll", role: "region", tabindex: "0", "aria-label": chart.title });
  scroll.append(grid);
  holder.querySelector(".numbers div").replaceChildren(button, ...more, scroll);
}

const holders = [...document.querySelectorAll("[data-figure]")];
for (const holder of holders) {
  const first = Object.values(figures[holder.dataset.figure].variants)[0];
  holder.querySelector(".plot").style.minHeight = `${first.layout.height}px`; // so that nothing jumps as they appear
  const details = holder.querySelector(".numbers");
  const select = holder.querySelector("select");
  details.addEventListener("toggle", () => { if (details.open) numbers(holder); });
  select?.addEventListener("change", () => { draw(holder); if (details.open) numbers(holder); });
}

// On paper: light, as wide as the sheet, and nothing folded away that was open.
addEventListener("beforeprint", async () => {
  await Promise.all([...waiting].map(drawOnce));
  for (const plot of drawn.keys()) Plotly.relayout(plot, { template: themes.light, width: 680 });
});
addEventListener("afterprint", () => {
  for (const plot of drawn.keys()) Plotly.relayout(plot, { template: themes[mode()], width: null, autosize: true });
});

// Words and tables come first, then charts in view, the rest when the browser has nothing else to do.
const waiting = new Set(holders);
const drawOnce = (holder) => waiting.delete(holder) ? draw(holder) : Promise.resolve();
const inView = (holder) => { const box = holder.getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0; };
const nextFrame = () => new Promise((done) => requestAnimationFrame(done));
const idle = () => new Promise((done) => (window.requestIdleCallback ?? setTimeout)(done));
const visibly = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) drawOnce(entry.target);
}, { rootMargin: "400px" });

const reached = (stage) => { document.body.dataset.ready = stage; performance.mark(stage); };

(async () => {
  applyTheme();
  await nextFrame();
  await nextFrame(); // the first one is on the screen
  await Promise.all(holders.filter(inView).map(drawOnce));
  reached("view");
  for (const holder of holders) visibly.observe(holder);
  for (const holder of holders) { await idle(); await drawOnce(holder); }
  reached("all");
})();
