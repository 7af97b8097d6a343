// Lines from prefill servers to modules: as thick as the tokens of prompts and answers that the pair has,
// moving while there are any.

import { byId, each, s, setAttribute } from "./dom.js";

const NARROW = "(max-width: 760px)";

let latest = null;

/** Draw a line for each pair; `flows` says what went over some of them. */
export function drawLinks(prefills, decodes, flows) {
  latest = { prefills, decodes, flows };
  const narrow = matchMedia(NARROW).matches;
  const picture = byId("picture").getBoundingClientRect();
  const ends = { prefill: boxes("prefills", picture), decode: boxes("decodes", picture) };
  const rates = new Map(flows.map((flow) => [`${flow.prefill} ${flow.decode}`, flow.prompt_tokens + flow.output_tokens]));
  const links = prefills.flatMap((prefill) =>
    decodes.map((decode, place) => ({
      name: `${prefill.name} ${decode.name}`,
      from: ends.prefill.get(prefill.name),
      to: ends.decode.get(decode.name),
      lane: (decodes.length - place) / (decodes.length + 1),
    })),
  );
  each(byId("links"), links, (link) => link.name, make, (group, link) => {
    const [band, dots] = group.children;
    const tokens = rates.get(link.name) ?? 0;
    const path = narrow ? lane(link) : curve(link);
    setAttribute(band, "d", path);
    setAttribute(dots, "d", path);
    setAttribute(group, "class", tokens > 0 ? "flowing" : "");
    band.style.strokeWidth = tokens > 0 ? `${width(tokens) * (narrow ? 0.5 : 1)}px` : "1px";
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

/** Down the left edge, each in a lane of its own, for a narrow page where modules stand under the prefill servers. */
function lane({ from, to, lane: share }) {
  const x = to.left * share;
  return `M${x},${from.bottom} V${to.middle - 6} q0,6 6,6 H${to.left}`;
}

new ResizeObserver(() => latest && drawLinks(latest.prefills, latest.decodes, latest.flows)).observe(byId("picture"));
