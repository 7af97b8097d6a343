// Charts of the last five minutes: lines, or areas on top of each other, with a cursor that reads values out.

import { byId, each, h, s, setText } from "./dom.js";
import { duration, rate, seconds } from "./format.js";

const HEIGHT = 132;
const MARGIN = { left: 52, right: 4, top: 8, bottom: 18 };
const tokens = (value) => `${rate(value)}/s`;
const subtract = (all, part) => all.map((value, place) => Math.max(0, value - part[place]));

const CHARTS = [
  {
    title: "Time to first token",
    unit: "streamed answers",
    format: seconds,
    lines: [
      { name: "95th percentile", tone: "soft", values: ({ ttft_p95 }) => ttft_p95 },
      { name: "median", tone: "strong", values: ({ ttft_p50 }) => ttft_p50 },
    ],
  },
  {
    title: "Where prompts came from",
    unit: "tokens/s",
    format: tokens,
    stacked: true,
    lines: [
      { name: "another module", tone: "strong", values: ({ shared_tokens }) => shared_tokens },
      { name: "own cache", tone: "soft", values: (x) => subtract(x.cached_tokens, x.shared_tokens) },
      { name: "computed", tone: "plain", values: (x) => subtract(x.prompt_tokens, x.cached_tokens) },
    ],
  },
  {
    title: "Output",
    unit: "tokens/s",
    format: tokens,
    stacked: true,
    lines: [{ name: "all modules", tone: "strong", values: ({ output_tokens }) => output_tokens }],
  },
];

/** Cursors by chart: how many buckets before the newest. */
const cursors = new Map();
let latest = null;

export function showCharts(data) {
  latest = data;
  each(byId("charts"), CHARTS, (chart) => chart.title, make, (figure, chart) => draw(figure, chart, data));
}

function make(chart) {
  const image = s("svg", { role: "img", tabindex: 0, height: HEIGHT });
  image.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect();
    move(chart, (box.right - MARGIN.right - event.clientX) / step(box.width));
  });
  image.addEventListener("pointerleave", () => move(chart, null));
  image.addEventListener("blur", () => move(chart, null));
  image.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    move(chart, (cursors.get(chart.title) ?? 0) + by);
  });
  const caption = h("figcaption", {}, h("strong", {}, chart.title), " ", h("span", { class: "muted" }, chart.unit));
  return h("figure", {}, caption, image, h("ul", { class: "values" }));
}

function move(chart, ago) {
  if (!latest) return;
  const last = latest.series.output_tokens.length - 2;
  if (ago === null) cursors.delete(chart.title);
  else cursors.set(chart.title, Math.max(0, Math.min(last, Math.round(ago))));
  showCharts(latest);
}

const step = (pixels) => (pixels - MARGIN.left - MARGIN.right) / (latest.series.output_tokens.length - 2);

function draw(figure, chart, { series, bucket_s: bucket }) {
  const [, image, legend] = figure.children;
  const lines = chart.lines.map((line) => ({ ...line, points: shown(line.values(series), chart, bucket) }));
  const tops = chart.stacked ? stack(lines) : lines.map((line) => line.points);
  const highest = Math.max(0, ...tops.flat().filter((value) => value !== null));
  const box = scale(image.clientWidth, highest, lines[0].points.length);
  const cursor = cursors.get(chart.title);
  const at = lines[0].points.length - 1 - (cursor ?? 0);
  const shapes = lines.map((line, place) => shape(chart, line, tops[place], tops[place - 1], box));
  image.replaceChildren(...axes(chart, box, bucket), ...(chart.stacked ? shapes.reverse() : shapes), ...rule(cursor, at, box));
  const when = cursor === undefined ? "now" : `${duration(cursor * bucket)} ago`;
  const values = lines.map(({ name, tone, points }) => ({ name, tone, text: highest > 0 ? chart.format(points[at]) : "–" }));
  image.setAttribute("aria-label", `${chart.title}, ${when}: ${values.map(({ name, text }) => `${name} ${text}`).join(", ")}`);
  showValues(legend, [...values, { name: when, tone: "none", text: "" }]);
}

/** The newest bucket is left out: it is not over. Counts become rates. */
function shown(values, chart, bucket) {
  const over = values.slice(0, -1);
  return chart.stacked ? over.map((value) => value / bucket) : over;
}

function stack(lines) {
  const tops = [];
  for (const { points } of lines) {
    const below = tops.at(-1);
    tops.push(points.map((value, place) => value + (below ? below[place] : 0)));
  }
  return tops;
}

/** Functions from place and value to pixels, and the value at the top: a round one. */
function scale(width, highest, places) {
  const top = roundUp(highest);
  const [across, down] = [width - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
  return {
    top,
    highest,
    width,
    places,
    x: (place) => MARGIN.left + (across * place) / (places - 1),
    y: (value) => MARGIN.top + down * (1 - value / top),
  };
}

function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((digit) => digit * power >= value) * power;
}

function axes(chart, box, bucket) {
  const levels = [0, box.top / 2, box.top].slice(0, box.highest > 0 ? 3 : 1).map((value) =>
    s(
      "g",
      {},
      s("line", { class: "grid", x1: MARGIN.left, x2: box.width - MARGIN.right, y1: box.y(value), y2: box.y(value) }),
      s("text", { x: MARGIN.left - 8, y: box.y(value) + 4, "text-anchor": "end" }, value === 0 ? "0" : chart.format(value)),
    ),
  );
  const bottom = { y: HEIGHT - 2 };
  const start = s("text", { ...bottom, x: MARGIN.left }, `${duration(bucket * (box.places + 1))} ago`);
  const nothing = box.highest > 0 ? [] : [s("text", { x: (MARGIN.left + box.width) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing yet")];
  return [...levels, ...nothing, start, s("text", { ...bottom, x: box.width - MARGIN.right, "text-anchor": "end" }, "now")];
}

function shape(chart, line, tops, below, box) {
  if (!chart.stacked) return s("path", { class: `line ${line.tone}`, d: path(tops, box) });
  const floor = below ?? tops.map(() => 0);
  const back = floor.map((value, place) => `L${box.x(place)},${box.y(value)}`).reverse();
  return s("path", { class: `area ${line.tone}`, d: `${path(tops, box)}${back.join("")}Z` });
}

/** A line with a gap where there is no value; a value between gaps is a dot. */
function path(values, box) {
  let drawing = false;
  const parts = values.map((value, place) => {
    if (value === null) {
      drawing = false;
      return "";
    }
    const part = `${drawing ? "L" : "M"}${box.x(place).toFixed(1)},${box.y(value).toFixed(1)}${drawing ? "" : "h0.01"}`;
    drawing = true;
    return part;
  });
  return parts.join("");
}

function rule(cursor, at, box) {
  if (cursor === undefined) return [];
  return [s("line", { class: "cursor", x1: box.x(at), x2: box.x(at), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom })];
}

function showValues(legend, values) {
  each(legend, values, (_) => _.tone, () => h("li", {}, h("span"), " ", h("strong")), (item, { name, tone, text }) => {
    item.className = tone;
    setText(item.firstElementChild, name);
    setText(item.lastElementChild, text);
  });
}

new ResizeObserver(() => latest && showCharts(latest)).observe(byId("charts"));
