// The fleet as a picture: prefill servers, modules, and what each is doing.

import { byId, each, h, setAttribute, setText } from "./dom.js";
import { DASH, count, duration, plural, rate } from "./format.js";
import { drawLinks } from "./links.js";

const NOTES = {
  copies: "The base reads every prompt once; modules answer from its KV cache.",
  onePool: "One KV pool: the base reads every prompt once, and modules read its KV where it is.",
};

export function showFleet({ base, servers, flows, one_pool: onePool }) {
  setText(byId("fleet-note"), onePool ? NOTES.onePool : NOTES.copies);
  const prefills = servers.filter((server) => server.role === "prefill");
  const decodes = servers.filter((server) => server.role === "decode");
  each(byId("prefills"), prefills, (server) => server.name, make, (card, server) => {
    update(card, server, base, `${rate(through(flows, "prefill", server, "prompt_tokens"))} prompt tokens/s`);
    updatePool(card.children[3], server.load, "KV in use");
  });
  each(byId("decodes"), decodes, (server) => server.name, make, (card, server) => {
    const title = server.sharing ? `${count(server.sharing)} ${server.module}` : server.module;
    const called = server.note ? `${title}, ${server.note}` : title;
    update(card, server, called, `${rate(through(flows, "decode", server, "output_tokens"))} tokens/s`);
    updatePool(card.children[3], server.load, onePool ? "Own KV in use" : "KV in use");
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
    h("div", { class: "pool" }, h("div", { class: "meter", role: "meter", "aria-valuemin": 0 }, h("div"), h("div", { class: "lent" })), h("span", { class: "muted" })),
    h("p", { class: "error bad" }),
  );
}

function update(card, server, title, work) {
  const [name, state, doing, , error] = card.children;
  setText(name.firstElementChild, title);
  setText(name.lastElementChild, server.name);
  const resting = server.breaker && server.breaker !== "closed";
  setText(state, resting ? `breaker ${server.breaker}` : server.state);
  setAttribute(state, "class", `state ${resting && server.state === "ready" ? "starting" : server.state}`);
  setText(doing.firstElementChild, work);
  setText(doing.lastElementChild, server.load ? `${count(server.load.running)} running, ${count(server.load.queued)} queued` : `${count(server.running)} in flight`);
  setText(error, server.state === "ready" ? "" : (server.error ?? ""));
}

/** What is lent is striped: decode servers read it, and it cannot be evicted. */
function updatePool(pool, load, name) {
  const [meter, label] = pool.children;
  const [used, size] = load ? [load.kv_used_tokens, load.kv_tokens] : [null, null];
  const lent = Math.min(load?.leases?.tokens ?? 0, used ?? 0);
  setText(label, load ? `${name} ${count(used)} of ${count(size)} tokens${lentText(load.leases)}` : `${name} ${DASH}`);
  setAttribute(meter, "aria-label", "KV pool in use, tokens");
  setAttribute(meter, "aria-valuemax", size ?? 0);
  setAttribute(meter, "aria-valuenow", used ?? 0);
  [used - lent, lent].forEach((tokens, place) => {
    meter.children[place].style.width = size ? `${Math.min(100, (100 * tokens) / size)}%` : "0";
  });
}

function lentText(leases) {
  if (!leases) return "";
  if (!leases.count) return ", none lent";
  return `, ${count(leases.tokens)} lent to ${plural(leases.count, "request")} (the oldest for ${duration(leases.oldest_s)})`;
}
