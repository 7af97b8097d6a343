// Lines from prefill servers to modules: as thick as the prompts whose KV goes over them, moving while any does.

import { byId, each, s, setAttribute } from "./dom.js";

const NARROW = "(max-width: 760px)";

let latest = null;

/** Draw a line for each pair; `flows` says what went over some of them. */
export function drawLinks(prefills, decodes, flows) {
  latest = { prefills, decodes, flows };
  const picture = byId("picture").getBoundingClientRect();
  const ends = { prefill: boxes("prefills", picture), decode: boxes("decodes", picture) };
  const rates = new Map(flows.map((flow) => [`${flow.prefill} ${flow.decode}`, flow.prompt_tokens]));
  const links = prefills.flatMap((prefill) =>
    decodes.map((decode) => ({ name: `${prefill.name} ${decode.name}`, from: ends.prefill.get(prefill.name), to: ends.decode.get(decode.name) })),
  );
  each(byId("links"), links, (link) => link.name, make, (group, link) => {
    const [band, dots] = group.children;
    const tokens = rates.get(link.name) ?? 0;
    const path = matchMedia(NARROW).matches ? spine(link) : curve(link);
    setAttribute(band, "d", path);
    setAttribute(dots, "d", path);
    setAttribute(group, "class", tokens > 0 ? "flowing" : "");
    band.style.strokeWidth = tokens > 0 ? `${width(tokens)}px` : "1px";
  });
}

function make() {
  return s("g", {}, s("path", { class: "band" }), s("path", { class: "dots" }));
}

/** Pixels for tokens per second: 10 are thin, 100,000 are thick. */
function width(tokens) {
  return Math.min(16, 2 + 2.6 * Math.log10(1 + tokens));
}

function boxes(id, picture) {
  return new Map(
    [...byId(id).children].map((card) => {
      const box = card.getBoundingClientRect();
      const [left, top] = [box.left - picture.left, box.top - picture.top];
      return [card.dataset.key, { left, right: left + box.width, bottom: top + box.height, middle: top + box.height / 2 }];
    }),
  );
}

/** From the right side of a prefill server to the left side of a module. */
function curve({ from, to }) {
  const bend = (to.left - from.right) / 2;
  return `M${from.right},${from.middle} c${bend},0 ${bend},${to.middle - from.middle} ${2 * bend},${to.middle - from.middle}`;
}

/** Down the left edge, for a narrow page where modules stand under the prefill servers. */
function spine({ from, to }) {
  const x = to.left / 2;
  return `M${x},${from.bottom} V${to.middle - 10} q0,10 10,10 H${to.left}`;
}

new ResizeObserver(() => latest && drawLinks(latest.prefills, latest.decodes, latest.flows)).observe(byId("picture"));
