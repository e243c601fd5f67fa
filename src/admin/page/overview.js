// All circuits, the troubled ones first, and what happened.

import { Ribbon, Spark, h, shape, shapeOf, toneOf, write } from './draw.js';
import { circuits, events, lasted, left, origins, overrideLeft, serverTime, troubled } from './store.js';
import { clock, latency, percent, roughly, short, span, stateWord } from './text.js';

const $ = (id) => document.getElementById(id);
const rows = new Map();
const STATES = [['open', 'Open'], ['half_open', 'Half-open'], ['closed', 'Closed'], ['overridden', 'Overridden']];
const shown = new Set();
const chips = new Map();
let query = '', sort = 'trouble', hooks = {};

/** The address of a circuit's own view. */
export const linkTo = (id) => `#${new URLSearchParams({ circuit: id })}`;

// Rows out of sight are brought up to date when they come into it.
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const row = rows.get(target.dataset.id);
    if (!row || row.element !== target) continue;
    row.inSight = isIntersecting;
    if (isIntersecting) row.show();
  }
}, { rootMargin: '150px' });

class Row {
  constructor(circuit) {
    this.id = circuit.id;
    this.word = h('span');
    this.badge = h('span', { class: 'badge' });
    this.since = h('span', { class: 'since' });
    this.name = h('a', { class: 'name', href: linkTo(circuit.id) }, circuit.name, circuit.key == null ? null : h('span', { class: 'of-key' }, ` / ${circuit.key}`));
    this.why = h('span', { class: 'why' });
    this.next = h('span', { class: 'next-value' });
    this.nextNote = h('span', { class: 'next-note' });
    this.bar = h('span', { class: 'bar', 'aria-hidden': 'true' }, h('i'));
    this.spark = new Spark();
    this.rate = h('b');
    this.rateNote = h('small');
    this.p99 = h('span', { role: 'cell', class: 'tail number' });
    this.ribbon = new Ribbon();
    this.steer = h('button', { type: 'button', class: 'steer', 'aria-label': `Hold ${circuit.id} open or shut`, onclick: () => hooks.steer(this.id) }, 'Hold…');
    this.element = h('div', { class: 'row', role: 'row', 'data-id': circuit.id },
      h('span', { role: 'cell', class: 'state' }, this.badge, this.since),
      h('span', { role: 'rowheader', class: 'what' }, this.name, this.why),
      h('span', { role: 'cell', class: 'next' }, this.next, this.nextNote, this.bar),
      h('span', { role: 'cell', class: 'traffic' }, this.spark.element, h('span', { class: 'rate' }, this.rate, this.rateNote)),
      this.p99,
      h('span', { role: 'cell', class: 'past' }, this.ribbon.element),
      h('span', { role: 'cell', class: 'act' }, this.steer));
    sight.observe(this.element);
  }

  show() {
    const circuit = circuits.get(this.id);
    if (!circuit || this.circuit === circuit) return;
    this.circuit = circuit;
    const look = `${shapeOf(circuit)} ${toneOf(circuit)} ${stateWord(circuit)}`;
    if (look !== this.look) {
      this.look = look;
      this.element.dataset.tone = toneOf(circuit);
      this.badge.replaceChildren(shape(shapeOf(circuit)), stateWord(circuit), circuit.override ? shape('held') : '');
      if (this.known) this.element.animate?.([{ backgroundColor: 'var(--flash)' }, {}], { duration: calm.matches ? 0 : 1200, easing: 'ease-out' });
      this.known = true;
    }
    this.count();
    this.showRate(circuit);
    write(this.p99, latency(circuit.latency?.p99_ms));
    this.spark.show(circuit.spark);
    this.ribbon.show(circuit.ribbon);
  }

  showRate({ state, rates: { calls_per_s: calls, rejected_per_s: refused } }) {
    const [rate, note] = state === 'open' ? [short(refused), 'refused/s']
      : refused ? [`${short(calls)}/s`, `${short(refused)} refused`] : [short(calls), '/s'];
    write(this.rate, rate);
    write(this.rateNote, note);
    this.rateNote.classList.toggle('below', note !== '/s');
  }

  /** What the time alone changes. */
  count() {
    const { circuit } = this;
    if (!circuit) return;
    const wait = left(circuit);
    const why = reason(circuit);
    write(this.why, why);
    this.why.title = circuit.sentence;
    let next = '', note = '', share = null;
    const { recovery } = circuit;
    if (circuit.override) {
      const ends = overrideLeft(circuit);
      next = ends == null ? 'until released' : roughly(ends);
      note = ends == null ? '' : `held until ${clock(serverTime(ends), false)}`;
    } else if (recovery?.phase === 'probing') {
      next = 'probing';
      note = `${recovery.successes} of ${recovery.required} succeeded`;
      share = recovery.successes / recovery.required;
    } else if (recovery?.phase === 'ramp') {
      next = `${percent(Math.round(recovery.admitted_share * 100) / 100)}`;
      note = 'of calls pass';
      share = recovery.admitted_share;
    } else if (wait != null) {
      next = wait > 0 ? span(wait) : 'due';
      note = wait > 0 ? `at ${clock(serverTime(wait))}` : 'with the next call';
      share = recovery?.wait_ms ? wait / recovery.wait_ms : null;
    }
    write(this.next, next);
    write(this.nextNote, note);
    this.bar.hidden = share == null;
    if (share != null) this.bar.firstChild.style.transform = `scaleX(${Math.min(1, share).toFixed(3)})`;
    write(this.since, since(circuit));
  }
}
const calm = matchMedia('(prefers-reduced-motion: reduce)');

/** Since when it is held, or has not been closed; or empty. */
export function since(circuit) {
  if (circuit.override) return `since ${clock(serverTime(-lasted(circuit)))}`;
  if (circuit.state === 'closed') return '';
  return `since ${clock(origins.get(circuit.id)?.at ?? serverTime(-lasted(circuit)))}`;
}

/** Why it is as it is, in a sentence; with durations that run on between the server's words. */
export function reason(circuit) {
  if (circuit.override || circuit.state !== 'open' || !circuit.cause) return circuit.sentence;
  // What the last probes did says little: why it opened in the first place is what counts.
  const origin = origins.get(circuit.id);
  if (origin?.why && origin.why !== circuit.cause) {
    return `Not closed for ${roughly(serverTime(0) - Date.parse(origin.at))}: ${origin.why}. At the last try ${circuit.cause}.`;
  }
  const { ms, more } = troubled(circuit);
  const before = ms > lasted(circuit) + 60e3 ? ` Not closed for ${more ? 'more than ' : ''}${roughly(ms)}.` : '';
  return `Open for ${roughly(lasted(circuit))}: ${circuit.cause}.${before}`;
}

/** How much it wants to be looked at: less is more. */
function trouble(circuit) {
  if (circuit.state === 'open') return 0;
  if (circuit.state === 'half_open') return circuit.recovery?.phase === 'ramp' ? 1 : 0;
  if (circuit.override) return 2;
  const { failure_rate: rate, slow_rate: slow, limits } = circuit.window;
  const near = (value, limit) => value != null && limit != null && value >= limit / 2;
  return near(rate, limits.failure_rate) || near(slow, limits.slow_rate) ? 3 : 4;
}

const by = {
  trouble: (a, b) => trouble(a) - trouble(b),
  name: () => 0,
  rate: (a, b) => b.rates.calls_per_s + b.rates.rejected_per_s - a.rates.calls_per_s - a.rates.rejected_per_s,
  latency: (a, b) => (b.latency?.p99_ms ?? -1) - (a.latency?.p99_ms ?? -1),
};

const matches = (circuit) =>
  (!query || circuit.id.toLowerCase().includes(query) || (circuit.key ?? '').toLowerCase().includes(query)) &&
  (!shown.size || shown.has(circuit.state) || (circuit.override && shown.has('overridden')));

/** The circuits the filters let through, in the order they are shown. */
export const visible = () => [...circuits.values()].filter(matches)
  .sort((a, b) => by[sort](a, b) || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));

/** Puts the rows in order, and makes and drops what has come and gone. */
export function arrange() {
  const parent = $('rows');
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  for (const [id, row] of rows) {
    if (circuits.has(id)) continue;
    sight.unobserve(row.element);
    row.element.remove();
    rows.delete(id);
  }
  const order = visible();
  const showing = new Set(order);
  let cursor = parent.firstElementChild;
  for (const circuit of order) {
    let row = rows.get(circuit.id);
    if (!row) rows.set(circuit.id, row = new Row(circuit));
    if (row.element === cursor) cursor = cursor.nextElementSibling;
    else parent.insertBefore(row.element, cursor);
    row.element.hidden = false;
  }
  for (const circuit of circuits.values()) {
    if (!showing.has(circuit) && rows.has(circuit.id)) rows.get(circuit.id).element.hidden = true;
  }
  // An element that is moved loses the focus.
  if (focused && document.activeElement !== focused) focused.focus({ preventScroll: true });
  $('nothing').hidden = order.length > 0;
  write($('nothing'), circuits.size ? 'No circuit matches. Esc clears the filter.' : 'No circuit is registered yet.');
  summarise(order.length);
}

function summarise(showing) {
  const counts = { open: 0, half_open: 0, closed: 0, overridden: 0 };
  for (const circuit of circuits.values()) {
    counts[circuit.state]++;
    if (circuit.override) counts.overridden++;
  }
  for (const [state, chip] of chips) {
    write(chip.count, String(counts[state]));
    chip.element.classList.toggle('none', !counts[state]);
  }
  const { open, half_open: half } = counts;
  const all = circuits.size;
  const are = (n, what) => `${n} circuit${n === 1 ? ' is' : 's are'} ${what}`;
  write($('headline'), open ? are(open, 'open') + (half ? `, ${half} half-open` : '') : half ? are(half, 'half-open')
    : all === 0 ? 'No circuits' : all === 1 ? 'The circuit is closed' : `All ${all} circuits are closed`);
  document.body.dataset.worst = open ? 'open' : half ? 'half_open' : 'closed';
  const bulk = $('bulk');
  bulk.hidden = !hooks.canWrite() || showing < 2 || (showing === all && !query && !shown.size);
  write(bulk, `Hold all ${showing}…`);
}

/** Shows what is new of the rows in sight. */
export function refresh() {
  for (const row of rows.values()) if (row.inSight) row.show();
}

/** Lets the countdowns run. */
export function countdown() {
  for (const row of rows.values()) {
    if (row.inSight && row.circuit && (row.circuit.state !== 'closed' || row.circuit.override)) row.count();
  }
}

const HELD = { force_open: 'held open', force_closed: 'held closed', observe_only: 'only observed' };
const DONE = { override: 'held', clear_override: 'released', open: 'opened', half_open: 'tried before its time', close: 'reset', reset: 'reset' };

/** What happened, without to which circuit. */
function said({ kind, override, expired, action, by, reason, sentence, circuit_id: id }) {
  const why = reason ? `: ${reason}` : '';
  if (kind === 'override_set' && override?.kind in HELD) {
    const { expires_in_ms: ms, owner } = override;
    return `${HELD[override.kind]}${owner ? ` by ${owner}` : ''}${ms == null ? ' until it is released' : ` for ${roughly(ms)}`}${why}`;
  }
  if (kind === 'override_cleared') return expired ? 'its override has run out' : 'released';
  if (kind === 'command' && action in DONE) return `${DONE[action]}${by ? ` by ${by}` : ''}${why}`;
  return (sentence.startsWith(`${id}: `) ? sentence.slice(id.length + 2) : sentence).replace(' -> ', ' → ');
}

/**
 * Lines of a feed, oldest first. A command stands in the line of what came of it, which is the event before it; that
 * may be the `last` of earlier lines.
 */
export function eventLines(all, ofOne = false, last = null) {
  const lines = [];
  for (const event of all) {
    const of = lines.at(-1) ?? last;
    if (event.kind === 'command' && of?.event.id === event.id - 1 && of.event.circuit_id === event.circuit_id) {
      const by = `${event.by ? ` by ${event.by}` : ''}${event.reason ? `: ${event.reason}` : ''}`;
      if (of.event.kind !== 'override_set') of.line.querySelector('.said').append(of.event.kind === 'transition' ? `;${by}` : by);
    } else {
      lines.push({ event, line: eventLine(event, ofOne) });
    }
  }
  return lines;
}

function eventLine(event, ofOne) {
  const tone = event.kind === 'transition' ? event.to
    : event.kind.startsWith('override') || event.kind === 'command' ? 'held' : 'note';
  const text = said(event);
  return h('li', { 'data-tone': tone },
    shape(tone),
    h('span', { class: 'said' }, ofOne ? null : h('a', { href: linkTo(event.circuit_id) }, event.circuit_id), ` ${text}`),
    h('time', { datetime: event.at, title: event.at }, clock(event.at)));
}

// What each circuit that is not closed has tried since it opened: how often in vain, since when, and the line that says so.
const attempts = new Map();
let latest = null;

/** A circuit that tries and fails again and again has one line, or it would push all others out. */
function fold(event, line) {
  const id = event.circuit_id;
  const before = attempts.get(id);
  if (event.from === 'closed' || event.to === 'closed') {
    if (before?.passing) before.line.remove();
    return attempts.delete(id);
  }
  if (before) before.line.remove();
  const now = { line, tries: before?.tries ?? 0, since: before?.since ?? event.at, passing: event.to === 'half_open' };
  if (event.to === 'open') now.tries++;
  if (now.tries > 1) line.querySelector('.said').append(h('span', { class: 'again' }, `. ${now.tries} tries in vain since ${clock(now.since)}.`));
  attempts.set(id, now);
}

/** Puts events on top of the feed; `anew` empties it first. */
export function tell(news, anew = false) {
  const feed = $('feed');
  if (anew) {
    feed.replaceChildren();
    attempts.clear();
    latest = null;
  }
  for (const { event, line } of eventLines(news, false, latest)) {
    feed.prepend(line);
    if (event.kind === 'transition') fold(event, line);
    latest = { event, line };
  }
  while (feed.childElementCount > events.size) feed.lastElementChild.remove();
}

/** Goes to a circuit's row. */
export function focus(id) {
  const row = rows.get(id)?.element;
  row?.querySelector('.name').focus();
  row?.scrollIntoView({ block: 'center' });
}

function steps(by) {
  const links = [...$('rows').querySelectorAll('.row:not([hidden]) .name')];
  const at = links.findIndex((link) => link.closest('.row').contains(document.activeElement));
  const link = links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.max(0, Math.min(links.length - 1, at + by))];
  link?.focus();
  link?.closest('.row').scrollIntoView({ block: 'nearest' });
}

/** The keys of this view; whether one was meant for it. */
export function key(event) {
  switch (event.key) {
    case 'j': steps(1); return true;
    case 'k': steps(-1); return true;
    case '/': $('filter').focus(); $('filter').select(); return true;
    case 'o': {
      const id = document.activeElement?.closest?.('.row')?.dataset.id;
      if (id) hooks.steer(id);
      return Boolean(id);
    }
    case 'Escape': clear(); return true;
  }
  return false;
}

/** Takes the filters from an address. */
export function filterBy(fragment) {
  query = (fragment.get('q') ?? '').toLowerCase();
  $('filter').value = fragment.get('q') ?? '';
  shown.clear();
  for (const state of (fragment.get('state') ?? '').split(',')) if (chips.has(state)) shown.add(state);
  for (const [state, chip] of chips) chip.element.setAttribute('aria-pressed', shown.has(state));
}

function clear() {
  if (query || shown.size) {
    filterBy(new URLSearchParams());
    save();
    arrange();
  }
  document.activeElement?.blur();
}

/** The address of this view, with its filters: so that they can be linked, and come back to. */
export function address() {
  const fragment = new URLSearchParams();
  if (query) fragment.set('q', $('filter').value);
  if (shown.size) fragment.set('state', [...shown].join(','));
  return `#${fragment}`;
}

const save = () => history.replaceState(null, '', address());

/** Binds the controls; `steer(id)`, `steerAll(circuits)` and `canWrite()` are the rest of the page. */
export function start(given) {
  hooks = given;
  for (const [state, word] of STATES) {
    const number = h('b', {}, '0');
    const element = h('button', { type: 'button', class: 'chip', 'data-tone': state === 'overridden' ? 'held' : state, 'aria-pressed': 'false', onclick: () => {
      shown.delete(state) || shown.add(state);
      element.setAttribute('aria-pressed', shown.has(state));
      save();
      arrange();
    } }, shape(state === 'overridden' ? 'held' : state), number, ` ${word}`);
    chips.set(state, { element, count: number });
    $('states').append(element);
  }
  $('filter').addEventListener('input', () => {
    query = $('filter').value.trim().toLowerCase();
    save();
    arrange();
  });
  $('sort').addEventListener('change', () => {
    sort = $('sort').value;
    arrange();
  });
  $('bulk').addEventListener('click', () => hooks.steerAll(visible()));
}

/** Whether the order depends on numbers that change all the time. */
export const restless = () => sort === 'rate' || sort === 'latency';
