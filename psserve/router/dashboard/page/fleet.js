// The fleet as a picture: prefill servers, modules, and what each is doing.

import { byId, each, h, setAttribute, setText } from "./dom.js";
import { DASH, count, rate } from "./format.js";
import { drawLinks } from "./links.js";

export function showFleet({ base, servers, flows }) {
  const prefills = servers.filter((server) => server.role === "prefill");
  const decodes = servers.filter((server) => server.role === "decode");
  each(byId("prefills"), prefills, (server) => server.name, make, (card, server) => {
    update(card, server, base, `${rate(through(flows, "prefill", server, "prompt_tokens"))} prompt tokens/s`);
  });
  each(byId("decodes"), decodes, (server) => server.name, make, (card, server) => {
    const title = server.sharing ? `${count(server.sharing)} ${server.module}` : server.module;
    update(card, server, title, `${rate(through(flows, "decode", server, "output_tokens"))} tokens/s`);
  });
  drawLinks(prefills, decodes, flows);
}

function through(flows, end, server, amount) {
  return flows.filter((flow) => flow[end] === server.name).reduce((sum, flow) => sum + flow[amount], 0);
}

function make() {
  return h(
    "li",
    { class: "server" },
    h("div", { class: "name" }, h("strong"), h("span", { class: "muted" })),
    h("span", { class: "state" }),
    h("div", { class: "work" }, h("span", { class: "rate" }), h("span", { class: "muted" })),
    h("div", { class: "pool" }, h("div", { class: "meter", role: "meter", "aria-valuemin": 0 }, h("div")), h("span", { class: "muted" })),
    h("p", { class: "error bad" }),
  );
}

function update(card, server, title, work) {
  const [name, state, doing, pool, error] = card.children;
  setText(name.firstElementChild, title);
  setText(name.lastElementChild, server.name);
  const resting = server.breaker && server.breaker !== "closed";
  setText(state, resting ? `breaker ${server.breaker}` : server.state);
  setAttribute(state, "class", `state ${resting && server.state === "ready" ? "starting" : server.state}`);
  setText(doing.firstElementChild, work);
  setText(doing.lastElementChild, server.load ? `${count(server.load.running)} running, ${count(server.load.queued)} queued` : `${count(server.running)} in flight`);
  updatePool(pool, server.load);
  setText(error, server.state === "ready" ? "" : (server.error ?? ""));
}

function updatePool(pool, load) {
  const [meter, label] = pool.children;
  const [used, size] = load ? [load.kv_used_tokens, load.kv_tokens] : [null, null];
  setText(label, load ? `KV in use ${count(used)} of ${count(size)} tokens` : `KV in use ${DASH}`);
  setAttribute(meter, "aria-label", "KV pool in use, tokens");
  setAttribute(meter, "aria-valuemax", size ?? 0);
  setAttribute(meter, "aria-valuenow", used ?? 0);
  meter.firstElementChild.style.width = size ? `${Math.min(100, (100 * used) / size)}%` : "0";
}
