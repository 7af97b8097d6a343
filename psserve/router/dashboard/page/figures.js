// The row of key figures.

import { byId, each, h, setAttribute, setText } from "./dom.js";
import { count, plural, rate, seconds, share } from "./format.js";

function figures({ now, running, totals, errors }) {
  const failed = errors.reduce((sum, error) => sum + error.count, 0);
  return [
    { name: "Requests", value: rate(now.requests), unit: "/s", note: `${count(running)} in flight` },
    { name: "Output", value: rate(now.output_tokens), unit: "tokens/s", note: `${rate(now.prompt_tokens)} prompt tokens/s` },
    { name: "First token", value: seconds(totals.ttft_p50), unit: "median", note: `95% within ${seconds(totals.ttft_p95)}` },
    {
      name: "Prefix hits",
      value: share(totals.cached_tokens, totals.prompt_tokens),
      unit: "of prompts",
      note: `${share(totals.decode_cached_tokens, totals.prompt_tokens)} at decode servers`,
    },
    {
      name: "Shared by modules",
      value: count(totals.shared_tokens),
      unit: totals.shared_tokens === 1 ? "token" : "tokens",
      note: `${share(totals.shared_tokens, totals.prompt_tokens)} of prompt tokens`,
    },
    { name: "Errors", value: count(failed), unit: "in 5 min", note: errorNote(errors), bad: failed > 0 },
  ];
}

function errorNote(errors) {
  if (!errors.length) return "none";
  const first = errors.slice(0, 3).map(({ code, count: times }) => `${times} × ${code.replaceAll("_", " ")}`);
  if (errors.length > 3) first.push(`${plural(errors.length - 3, "other kind")}`);
  return first.join(", ");
}

export function showFigures(data) {
  each(byId("figures"), figures(data), (figure) => figure.name, make, update);
}

function make({ name }) {
  return h("div", {}, h("dt", {}, name), h("dd", {}, h("strong"), " ", h("span")), h("dd", { class: "muted" }));
}

function update(element, { value, unit, note, bad }) {
  const [, main, below] = element.children;
  setText(main.firstElementChild, value);
  setText(main.lastElementChild, unit);
  setText(below, note);
  setAttribute(main, "class", bad ? "bad" : "");
}
