// Numbers as people read them, with their units. `null` is a dash: not known.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

export const DASH = "–";

export function count(number) {
  if (number === null || number === undefined) return DASH;
  return number < 100_000 ? whole.format(number) : compact.format(number);
}

/** A rate: small ones with a decimal. */
export function rate(number) {
  return number > 0 && number < 9.95 ? number.toFixed(1) : count(number);
}

export function seconds(number) {
  if (number === null || number === undefined) return DASH;
  if (number < 0.0995) return `${(number * 1000).toFixed(number < 0.00995 ? 1 : 0)} ms`;
  if (number < 0.9995) return `${(number * 1000).toFixed(0)} ms`;
  if (number < 99.5) return `${number.toFixed(number < 9.95 ? 2 : 1)} s`;
  return duration(number);
}

export function duration(number) {
  if (number < 100) return `${Math.floor(number)} s`;
  if (number < 7200) return `${Math.floor(number / 60)} min`;
  return number < 172_800 ? `${Math.floor(number / 3600)} h` : `${Math.floor(number / 86_400)} days`;
}

export function share(part, all) {
  if (!all) return DASH;
  const percent = (100 * part) / all;
  return `${percent.toFixed(percent > 0 && percent < 10 ? 1 : 0)}%`;
}

export function time(date) {
  return clock.format(date);
}

/** "1 server", "2 servers". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
