// Draws the charts when they come near the view, builds the tables of their data on request, and keeps a live page in place.
const ROWS = 200; // of a data table; more are in the file that was reported on
const config = window.warmkitConfig;
const figures = [...document.querySelectorAll("figure.chart")];
const specs = new Map();
const drawn = new Set();

const stored = {
  get: (key) => { try { return sessionStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* a page without storage forgets */ } },
};

function specOf(figure) {
  if (!specs.has(figure)) specs.set(figure, JSON.parse(figure.querySelector("script").textContent));
  return specs.get(figure);
}

function fail(figure, error) {
  const text = document.createElement("p");
  text.className = "failed";
  text.textContent = `This chart cannot be drawn: ${error.message ?? error}`;
  figure.querySelector(".plot").replaceChildren(text);
  console.error(error);
}

// ---- charts

// What hangs on the nearest point reads texts from the wrong place (Vega-Lite 6.4 looks for them beside the point's datum).
function mended(vega) {
  const walk = (marks) => {
    for (const mark of marks ?? []) {
      const tooltip = mark.encode?.update?.tooltip;
      if (mark.name?.endsWith("_voronoi") && tooltip?.signal) {
        tooltip.signal = tooltip.signal.replace(/(?<!\.)datum\[/g, "datum.datum[");
      }
      walk(mark.marks);
    }
  };
  walk(vega.marks);
  return vega;
}

// What is told on hover, without what a point does not have.
function told(value, sanitize) {
  const kept = Object.entries(value).filter(([, text]) => !["undefined", "null", "NaN", ""].includes(String(text)));
  const head = kept.filter(([key]) => key === "line").map(([, text]) => `<strong>${sanitize(text)}</strong>`);
  const rows = kept.filter(([key]) => key !== "line")
    .map(([key, text]) => `<tr><td class="key">${sanitize(key)}</td><td class="value">${sanitize(text)}</td></tr>`);
  return `${head.join("")}<table><tbody>${rows.join("")}</tbody></table>`;
}

async function draw(figure) {
  if (drawn.has(figure)) return;
  drawn.add(figure);
  const plot = figure.querySelector(".plot");
  const label = plot.getAttribute("aria-label");
  try {
    const result = await window.vegaEmbed(plot, specOf(figure), {
      renderer: "svg",
      mode: "vega-lite",
      config,
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: figure.id,
      tooltip: { theme: "custom", formatTooltip: told },
      patch: mended,
    });
    speak(plot, result.view, label);
    plot.style.minHeight = "0";
    figure.dataset.drawn = "yes";
  } catch (error) { fail(figure, error); }
}

const seen = "IntersectionObserver" in window
  ? new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "600px 0px" })
  : null;
for (const figure of figures) seen ? seen.observe(figure) : draw(figure);
// Drawing waits for nothing but promises that are kept, so that all charts stand when this returns to the printer.
window.addEventListener("beforeprint", () => figures.forEach(draw));

// The drawing is one picture with a text; its menu stands beside it, not inside.
function speak(plot, view, label) {
  view.description(label);
  const picture = plot.querySelector("svg.marks");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", label);
  for (const name of ["role", "aria-label"]) plot.removeAttribute(name);
  plot.querySelector("summary")?.setAttribute("aria-label", "Save this chart");
}

// ---- data

function written(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : value ?? "";
}

function cell(kind, text, scope) {
  const made = document.createElement(kind);
  if (scope) made.scope = scope;
  if (typeof text === "number") made.className = "number";
  made.textContent = written(text);
  return made;
}

function tabulate(figure) {
  const place = figure.querySelector("details.data .scroll");
  if (place.firstChild) return;
  const spec = specOf(figure), columns = spec.usermeta.columns, values = spec.data.values;
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const [key, title] of columns) {
    const made = cell("th", title, "col");
    if (typeof values[0]?.[key] === "number") made.className = "number";
    head.append(made);
  }
  const body = table.createTBody();
  for (const row of values.slice(0, ROWS)) {
    const line = body.insertRow();
    columns.forEach(([key], number) => line.append(cell(number ? "td" : "th", row[key], number ? undefined : "row")));
  }
  place.append(table);
  if (values.length <= ROWS) return;
  const more = document.createElement("p");
  more.textContent = `${ROWS} of ${values.length} rows.`;
  place.append(more);
}

for (const figure of figures) {
  figure.querySelector("details.data").addEventListener("toggle", (event) => event.target.open && tabulate(figure));
}

// ---- light and dark

const root = document.documentElement, theme = document.getElementById("theme");
const preferred = window.matchMedia("(prefers-color-scheme: dark)");

function dark() { return root.dataset.theme ? root.dataset.theme === "dark" : preferred.matches; }

function tell() { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", `${theme.textContent} colours`); }

if (stored.get("theme")) root.dataset.theme = stored.get("theme");
theme.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  stored.set("theme", root.dataset.theme);
  tell();
});
preferred.addEventListener("change", tell);
tell();

// ---- where the reader is

const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
if (links.size && "IntersectionObserver" in window) {
  const here = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.getAttribute("aria-labelledby"))?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main section")) here.observe(section);
}

// ---- a run that goes on

if (document.body.dataset.live) {
  const pause = document.getElementById("pause");
  const where = `warmkit ${location.pathname}`;
  const before = JSON.parse(stored.get(where) ?? "null");
  if (before) {
    for (const id of before.open) document.getElementById(id)?.setAttribute("open", "");
    window.scrollTo(0, before.scroll);
    if (before.focus) document.getElementById(before.focus)?.focus({ preventScroll: true });
  }
  let paused = before?.paused ?? false;
  const show = () => { pause.setAttribute("aria-pressed", String(paused)); pause.textContent = paused ? "Resume" : "Pause"; };
  const keep = () => stored.set(where, JSON.stringify({
    scroll: window.scrollY,
    open: [...document.querySelectorAll("details[open][id]")].map((each) => each.id),
    focus: document.activeElement?.id,
    paused,
  }));
  pause.addEventListener("click", () => { paused = !paused; show(); keep(); });
  window.setInterval(() => {
    if (paused || document.visibilityState === "hidden") return;
    keep();
    location.reload();
  }, 1000 * Number(document.body.dataset.live));
  show();
}
