// Asking the router once a second, as long as the page is seen; and again and again when it does not answer.

const EVERY_MS = 1000;
const LONGEST_MS = 5000;
const ANSWER_MS = 8000;
const KEY = "psserve-key";

const url = new URL("data", import.meta.url);

export function key() {
  return sessionStorage.getItem(KEY);
}

export function setKey(value) {
  sessionStorage.setItem(KEY, value);
}

/** One answer: `{data}`, `{refused: why}` (the key), or `{lost: why}`. */
async function ask() {
  const headers = key() ? { Authorization: `Bearer ${key()}` } : {};
  try {
    const answer = await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (answer.status === 401 || answer.status === 403) return { refused: (await answer.json()).error.message };
    if (answer.status === 503) return { lost: "The router is shutting down." };
    if (!answer.ok) return { lost: `The router answers with an error (${answer.status}).` };
    return { data: await answer.json() };
  } catch {
    return { lost: "The router does not answer." };
  }
}

/** Ask for ever. `on` has a function for each kind of answer; `refused` returns when there is another key. */
export async function follow(on) {
  let pause = EVERY_MS;
  for (;;) {
    await seen();
    const { data, refused, lost } = await ask();
    if (data) on.data(data);
    if (lost) on.lost(lost);
    if (refused) {
      await on.refused(refused);
      continue;
    }
    pause = lost ? Math.min(pause * 1.5, LONGEST_MS) : EVERY_MS;
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

function seen() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}
