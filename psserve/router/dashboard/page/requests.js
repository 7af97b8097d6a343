// Recent requests, each with a bar that says where its time went.

import { byId, each, h, setAttribute, setText } from "./dom.js";
import { DASH, count, duration, seconds, share } from "./format.js";

const PHASES = {
  route: "read and routed",
  queue: "queue",
  open: "no worker has answered",
  prefill: "prefill, KV transfer",
  first: "first token",
  decode: "answer",
  answer: "answer, not streamed",
};

export function showRequests({ requests, modules }) {
  const none = requests.length === 0;
  byId("empty").hidden = !none;
  byId("requests").hidden = none;
  byId("legend").hidden = none;
  if (none) return setText(byId("curl"), curl(modules));
  const longest = Math.max(...requests.map((request) => request.took_s));
  const used = Object.keys(PHASES).filter((name) => requests.some(({ phases }) => phases.some(([phase]) => phase === name)));
  each(byId("legend"), used, (name) => name, (name) => h("li", { class: name }, PHASES[name]), () => {});
  each(byId("requests").tBodies[0], requests, (request) => request.key, make, (row, request) => update(row, request, longest));
}

function curl(modules) {
  const body = { model: modules[0]?.name ?? "MODULE", messages: [{ role: "user", content: "12 * 12?" }], max_tokens: 16, stream: true };
  const key = sessionStorage.getItem("psserve-key") ? '-H "Authorization: Bearer $KEY" ' : "";
  const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl ${location.origin}/v1/chat/completions ${key}-H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}

const COLUMNS = ["when", "module", "number prompt", "number cached", "number output", "number first", "number total", "waterfall"];

function make(request) {
  const row = h("tr", { role: "row", title: `request ${request.id}` }, ...COLUMNS.map((name) => h("td", { role: "cell", class: name })));
  row.lastElementChild.append(h("div", { class: "bar", role: "img" }));
  return row;
}

function update(row, request, longest) {
  const running = request.age_s === null;
  const failed = !running && !request.code.startsWith("2");
  const cells = [
    running ? "in flight" : `${duration(request.age_s)} ago`,
    failed ? `${request.module === "-" ? "" : `${request.module} `}${request.code.replaceAll("_", " ")}` : request.module,
    count(request.prompt_tokens),
    request.prompt_tokens ? share(request.cached_tokens, request.prompt_tokens) : DASH,
    count(request.output_tokens),
    seconds(request.ttft_s),
    seconds(request.took_s),
  ];
  cells.forEach((text, place) => setText(row.cells[place], text));
  setAttribute(row, "class", running ? "running" : failed ? "failed" : "");
  bar(row.lastElementChild.firstElementChild, request, longest);
}

function bar(element, request, longest) {
  const told = request.phases.map(([name, took]) => `${PHASES[name]} ${seconds(took)}`).join(", ");
  setAttribute(element, "aria-label", told);
  setAttribute(element, "title", told);
  each(element, request.phases, ([name]) => name, ([name]) => h("div", { class: name }), (part, [, took]) => {
    part.style.width = `${(100 * took) / longest}%`;
  });
}

byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("curl").textContent);
  setText(byId("copy"), "Copied");
});
