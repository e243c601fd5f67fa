// What the page knows: the circuits as they were last told, and what happened.

const STEP = 15e3; // ms a step of the spark and the ribbon
const SLACK = 300; // ms by which a countdown may be off before it is set right; less would make it jitter
export const EVENTS = 200; // kept in the feed

/** Circuits by id. Each has `began` and `until` beside what the server says: instants of `performance.now()`. */
export const circuits = new Map();

/** Events by id, oldest first. */
export const events = new Map();

/** The server's time of day minus the browser's, in ms. */
let ahead = 0;

/** The server's time of day now, in ms. */
export const serverNow = () => Date.now() + ahead;

/** The instant, on the server's clock, of something `ms` from now. */
export const serverTime = (ms) => new Date(serverNow() + ms);

/** Milliseconds until what a circuit waits for, or null. */
export const left = (circuit) => (circuit.until == null ? null : Math.max(0, circuit.until - performance.now()));

/** Milliseconds it has been in its state. */
export const lasted = (circuit) => Math.max(0, performance.now() - circuit.began);

/** Milliseconds until its override runs out, or null. */
export const overrideLeft = (circuit) =>
  circuit.override?.expires_in_ms == null ? null : Math.max(0, circuit.overrideUntil - performance.now());

/** Milliseconds it has not been closed without a break, as far as the ribbon goes back. */
export function troubled(circuit) {
  const { ribbon } = circuit;
  let steps = 0;
  while (steps < ribbon.length && 'oh'.includes(ribbon.at(-1 - steps) ?? '-')) steps++;
  return { ms: steps * STEP, more: steps === ribbon.length };
}

function settle(old, circuit) {
  const now = performance.now();
  const near = (was, is) => (was != null && Math.abs(was - is) < SLACK ? was : is);
  circuit.began = near(old?.began, now - circuit.for_ms);
  circuit.until = circuit.retry_after_ms == null ? null : near(old?.until, now + circuit.retry_after_ms);
  const ends = circuit.override?.expires_in_ms;
  circuit.rates ??= { calls_per_s: 0, failures_per_s: 0, rejected_per_s: 0 };
  circuit.window.limits ??= {};
  circuit.overrideUntil = ends == null ? null : near(old?.overrideUntil, now + ends);
  if (circuit.step_left_ms != null) circuit.stepUntil = now + circuit.step_left_ms;
  delete circuit.step_left_ms;
  circuit.stepUntil ??= now + STEP;
  return circuit;
}

function hear(now) {
  ahead = Date.parse(now) - Date.now();
}

/** Begins new steps of the spark and the ribbon; in them it is as it was. */
function shift(circuit, steps) {
  if (steps <= 0) return circuit;
  const { spark, ribbon, rates, override, state, stepUntil } = circuit;
  const more = (values, value) => values.concat(new Array(Math.min(60, steps)).fill(value)).slice(-60);
  const letter = override && override.kind !== 'observe_only' ? 'f' : state[0];
  return { ...circuit, spark: more(spark, rates.calls_per_s), ribbon: more(ribbon, letter), stepUntil: stepUntil + steps * STEP };
}

/** Everything anew. */
export function snapshot(data) {
  hear(data.now);
  const old = new Map(circuits);
  circuits.clear();
  for (const circuit of data.circuits) circuits.set(circuit.id, settle(old.get(circuit.id), circuit));
}

/** One circuit, as an answer had it. */
export function put(circuit) {
  const old = circuits.get(circuit.id);
  if (old && old.generation > circuit.generation) return;
  circuits.set(circuit.id, settle(old, { ...old, ...circuit }));
}

/** What has changed within a second; the ids of circuits that are told of too little to show them. */
export function tick(data) {
  hear(data.now);
  const now = performance.now();
  const unknown = [];
  for (const { spark_last, ribbon_last, ...news } of data.circuits) {
    let old = circuits.get(news.id);
    if (!old) {
      if (news.spark && news.name) circuits.set(news.id, settle(null, news));
      else unknown.push(news.id);
      continue;
    }
    // How much more is left than was to be expected: so many steps have begun.
    if ('step_left_ms' in news) old = shift(old, Math.round((news.step_left_ms - (old.stepUntil - now)) / STEP));
    const changed = news.generation !== undefined && news.generation !== old.generation;
    const circuit = { ...old, ...news };
    if (!('for_ms' in news)) circuit.for_ms = lasted(old);
    if (!('retry_after_ms' in news)) circuit.retry_after_ms = left(old);
    if (!('override' in news) && circuit.override?.expires_in_ms != null) {
      circuit.override = { ...circuit.override, expires_in_ms: overrideLeft(old) };
    }
    if (spark_last !== undefined && !news.spark) circuit.spark = circuit.spark.with(-1, spark_last);
    if (ribbon_last !== undefined && !news.ribbon) circuit.ribbon = circuit.ribbon.with(-1, ribbon_last);
    circuits.set(news.id, settle(old, circuit));
    if (changed && !('override' in news && 'for_ms' in news && 'cause' in news)) unknown.push(news.id);
  }
  for (const id of data.gone ?? []) circuits.delete(id);
  for (const [id, circuit] of circuits) {
    // Of a circuit at rest nothing is told.
    if (now > circuit.stepUntil + SLACK) circuits.set(id, shift(circuit, Math.ceil((now - circuit.stepUntil) / STEP)));
  }
  return unknown;
}

/** How each circuit that is not closed came to be open: `{ at, why }`, as far as the events go back. */
export const origins = new Map();

/** Keeps an event; whether it is news, and no older than all that are kept. */
export function happened(event) {
  if (events.has(event.id)) return false;
  if (events.size >= EVENTS && event.id < Math.min(...events.keys())) return false;
  events.set(event.id, event);
  if (event.to === 'closed') origins.delete(event.circuit_id);
  else if (event.from === 'closed') {
    origins.set(event.circuit_id, { at: event.at, why: event.cause?.sentence });
  }
  if (events.size > EVENTS) events.delete(Math.min(...events.keys()));
  return true;
}

/** Takes in events that may be older than those it has; all of them, oldest first. */
export function happenedBefore(earlier) {
  const all = [...earlier, ...events.values()].sort((a, b) => a.id - b.id);
  events.clear();
  origins.clear();
  all.forEach(happened);
  return [...events.values()];
}
