// The page: asks the router, shows what it says, and says so when it does not answer.

import { showCharts } from "./charts.js";
import { follow, key, setKey } from "./connection.js";
import { byId, setAttribute, setText } from "./dom.js";
import { showFigures } from "./figures.js";
import { showFleet } from "./fleet.js";
import { duration, plural, time } from "./format.js";
import { showRequests } from "./requests.js";

const NOTICE_MS = 20_000;
const main = document.querySelector("main");

let boot = null;
let lostAt = null;

function show(data) {
  main.hidden = false;
  main.classList.remove("stale");
  byId("key-form").hidden = true;
  noticeRestart(data.boot);
  setText(byId("base"), data.base);
  setText(byId("live"), "Live");
  setAttribute(byId("live"), "class", "on");
  setText(byId("version"), `psserve ${data.version} · router up for ${duration(data.uptime_s)}`);
  showHealth(data.servers);
  showFigures(data);
  showFleet(data);
  showCharts(data);
  showRequests(data);
}

function showHealth(servers) {
  const troubled = servers.filter((server) => server.state !== "ready");
  const text = troubled.length
    ? `${troubled.length} of ${plural(servers.length, "server")} not ready: ${troubled.map(({ name, state }) => `${name} (${state})`).join(", ")}`
    : `${plural(servers.length, "server")} ready`;
  setText(byId("health"), text);
  setAttribute(byId("health"), "class", troubled.length ? "warn" : "good");
}

function noticeRestart(current) {
  if (boot !== null && boot !== current) notice(`The router restarted; it is back since ${time(new Date())}. Counting began anew.`, NOTICE_MS);
  else if (lostAt !== null) notice(`The router answers again, since ${time(new Date())}.`, NOTICE_MS);
  boot = current;
  lostAt = null;
}

function showLost(why) {
  lostAt ??= new Date();
  const seen = boot === null ? "This" : `What you see is from ${time(lostAt)}; this`;
  notice(`${why} ${seen} page tries again by itself.`);
  main.classList.add("stale");
  setText(byId("live"), "Not connected");
  setAttribute(byId("live"), "class", "off");
}

let clearing = null;

/** Show one line at the top, for a while or until the next one. */
function notice(text, milliseconds = 0) {
  clearTimeout(clearing);
  byId("notice").hidden = false;
  setText(byId("notice"), text);
  if (milliseconds) clearing = setTimeout(() => (byId("notice").hidden = true), milliseconds);
}

/** Ask for a key, and say why the last one did not do; returns when one was given. */
function askKey(why) {
  main.hidden = true;
  byId("notice").hidden = true;
  byId("key-form").hidden = false;
  setText(byId("key-error"), key() ? `Refused: ${why}` : "");
  byId("key").focus();
  return new Promise((resolve) => {
    const submitted = (event) => {
      event.preventDefault();
      setKey(byId("key").value);
      byId("key").value = "";
      resolve();
    };
    byId("key-form").addEventListener("submit", submitted, { once: true });
  });
}

follow({ data: show, lost: showLost, refused: askKey });
