// One circuit, closely.

import { address, ask } from './api.js';
import { Chart, h, shape, shapeOf, toneOf, write } from './draw.js';
import { possible } from './flip.js';
import { address as home, eventLines, reason, since } from './overview.js';
import { circuits, left, overrideLeft, put, serverTime } from './store.js';
import { clock, count, latency, percent, roughly, short, span, stateWord } from './text.js';

const EVERY = 5e3; // ms between looks at the series and totals

const panel = (title, className, ...children) => h('section', { class: `panel ${className}` }, h('h2', {}, title), children);

/** A share of the window against the threshold that opens the circuit. */
class Gauge {
  constructor(name) {
    this.name = name;
    this.share = h('b');
    this.text = h('span');
    this.fill = h('i');
    this.mark = h('em');
    this.track = h('div', { class: 'track', role: 'meter', 'aria-label': name, 'aria-valuemin': 0, 'aria-valuemax': 100 }, this.fill, this.mark);
    this.note = h('span', { class: 'mark-note' });
    this.element = h('div', { class: 'gauge' }, h('p', {}, this.share, ' ', this.text), this.track, this.note);
  }
  show(share, text, limit, missing) {
    this.element.dataset.level = share == null ? 'none' : limit == null ? 'calm' : share >= limit ? 'over' : share >= limit / 2 ? 'near' : 'calm';
    write(this.share, share == null ? '–' : percent(share));
    write(this.text, text);
    this.fill.style.width = `${Math.min(1, share ?? 0) * 100}%`;
    this.mark.hidden = limit == null;
    this.mark.style.left = `${(limit ?? 0) * 100}%`;
    this.note.style.marginLeft = `clamp(0px, calc(${(limit ?? 0) * 100}% - 3.5rem), calc(100% - 7rem))`;
    write(this.note, missing || (limit == null ? '' : `opens at ${percent(limit)}`));
    this.note.classList.toggle('left', Boolean(missing));
    this.track.setAttribute('aria-valuenow', Math.round((share ?? 0) * 100));
    this.track.setAttribute('aria-valuetext', `${text}${limit == null ? '' : `; opens at ${percent(limit)}`}`);
  }
}

const COMMANDS = [
  ['Look', 'GET', '', null],
  ['Hold open for an hour', 'POST', 'override', { kind: 'force_open', reason: 'why', expires_in: '1h' }],
  ['Release it', 'DELETE', 'override', { reason: 'why' }],
  ['Reset', 'POST', 'reset', { reason: 'why' }],
];

function curl(circuit, [, method, below, body]) {
  const url = new URL(`api/v1/${address(circuit, below)}`, document.baseURI.split('#')[0]);
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  return ['curl -sS', method === 'GET' ? '' : `-X ${method} `, '-H "authorization: Bearer $TOKEN"',
    body ? ` \\\n  -H 'content-type: application/json' -d ${quoted(JSON.stringify(body))}` : '',
    ` \\\n  ${quoted(url.href)}`].join(' ').replace(/ +/g, ' ').replaceAll(' \\\n ', ' \\\n  ');
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Not a secure context: the old way.
    const area = h('textarea', { readonly: true, class: 'unseen' }, text);
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}

/** `{ a: { b: 1 } }` as `[['a · b', '1']]`. */
function* settings(value, path = []) {
  if (value && typeof value === 'object' && !Array.isArray(value)) {
    for (const [name, inner] of Object.entries(value)) yield* settings(inner, [...path, name.replaceAll('_', ' ')]);
    return;
  }
  const text = value == null ? 'off' : Array.isArray(value) ? value.map((v) => (typeof v === 'object' ? JSON.stringify(v) : v)).join(', ') || 'none' : String(value);
  yield [path.join(' · '), text];
}

function replaceList(list, pairs) {
  const key = JSON.stringify(pairs);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...pairs.map(([name, value, className]) => h('div', { class: className }, h('dt', {}, name), h('dd', {}, value))));
}

class Detail {
  constructor(id, hooks) {
    this.id = id;
    this.hooks = hooks;
    this.badge = h('span', { class: 'badge big' });
    this.since = h('span', { class: 'since' });
    this.name = h('h1', { tabindex: '-1' }, id);
    this.why = h('p', { class: 'why' });
    this.next = h('p', { class: 'countdown' });
    this.acts = h('p', { class: 'acts' });
    this.head = h('header', { class: 'detail-head' },
      h('div', {}, h('p', { class: 'is-now' }, this.badge, this.since), this.name, this.why),
      this.next,
      this.acts);

    this.failures = new Gauge('Failure rate');
    this.slow = new Gauge('Slow call rate');
    this.rules = h('p', { class: 'note' });
    this.recovery = h('div', { class: 'recovery' });
    this.numbers = h('dl', { class: 'numbers' });
    const at = (index) => clock(this.end - (59 - index) * this.step, this.step < 6e4);
    this.calls = new Chart({ title: 'Calls a second', say: short, at, layers: [
      { name: 'good', tone: 'good', kind: 'bars' }, { name: 'failed', tone: 'bad', kind: 'bars' }, { name: 'refused', tone: 'refused', kind: 'bars' }] });
    this.times = new Chart({ title: 'Latency', say: latency, at, layers: [
      { name: 'p99', tone: 'p99', kind: 'line' }, { name: 'p50', tone: 'p50', kind: 'line' }] });
    this.totals = h('dl', { class: 'totals' });
    this.config = h('dl', { class: 'config' });
    this.events = h('ol', { class: 'feed' });
    this.curls = h('div', { class: 'curls' });
    this.element = h('div', {},
      h('a', { class: 'back', href: home() }, '← All circuits'),
      this.head,
      h('div', { class: 'panels' },
        panel('Window', 'window', this.failures.element, this.slow.element, this.rules),
        panel('Now', 'now', this.recovery, this.numbers),
        this.series = panel('The last 15 minutes', 'series', h('div', { class: 'charts' }, this.calls.element, this.times.element)),
        h('div', { class: 'column wide' }, panel('What happened', 'happened', this.events), panel('From a shell', 'shell', this.curls)),
        h('div', { class: 'column' }, panel('Since it was made', 'made', this.totals), panel('Settings', 'settings', this.config))));
    this.load();
    this.timer = setInterval(() => this.load(), EVERY);
  }

  async load() {
    const circuit = circuits.get(this.id);
    try {
      const { now, circuit: fresh, series, config, events, history } = await ask(circuit ? address(circuit) : `circuits/${encodeURIComponent(this.id)}`);
      if (this.gone || !series) return;
      put(fresh);
      if (this.past) this.past.show(series, now);
      else this.draw(series, now);
      if (history.length) this.asked ??= import('./past.js').then(({ Past }) => { this.past = new Past(this, history); });
      replaceList(this.config, [...settings(config ?? {})].map(([name, value]) => [name, value, value === 'off' ? 'off' : null]));
      this.events.replaceChildren(...eventLines(events, true).map(({ line }) => line).reverse());
      if (!events.length) this.events.append(h('li', { class: 'empty' }, 'Nothing yet.'));
      this.show();
    } catch (error) {
      if (!this.gone && error.status === 404) this.missing();
    }
  }

  draw(series, now, over) {
    this.end = Date.parse(series.end);
    this.step = series.step_ms;
    // The last step is still running.
    const ran = (i) => (i < series.calls.length - 1 ? series.step_ms : Math.max(1e3, series.step_ms - (this.end - Date.parse(now))));
    const rate = (values) => values.map((value, i) => (value == null ? null : value / (ran(i) / 1e3)));
    const good = series.calls.map((calls, i) => (calls == null ? null : calls - (series.failures[i] ?? 0)));
    this.calls.show([rate(good), rate(series.failures), rate(series.rejected)], series.state, over);
    this.times.show([series.p99_ms, series.p50_ms], series.state, over);
  }

  missing() {
    write(this.name, this.id);
    write(this.why, 'There is no circuit of this name any more.');
    this.element.classList.add('is-missing');
  }

  show() {
    const circuit = circuits.get(this.id);
    if (!circuit) return;
    this.element.classList.remove('is-missing');
    this.circuit = circuit;
    this.element.dataset.tone = toneOf(circuit);
    const look = `${shapeOf(circuit)} ${stateWord(circuit)}`;
    if (look !== this.look) {
      this.look = look;
      this.badge.replaceChildren(shape(shapeOf(circuit)), stateWord(circuit), circuit.override ? shape('held') : '');
    }
    const title = circuit.key == null ? circuit.name : `${circuit.name} / ${circuit.key}`;
    write(this.name, title);
    this.showActs(circuit);
    this.showWindow(circuit.window);
    this.showRecovery(circuit);
    const { rates, latency: times } = circuit;
    replaceList(this.numbers, [
      ['calls/s', short(rates.calls_per_s)], ['failures/s', short(rates.failures_per_s)], ['refused/s', short(rates.rejected_per_s)],
      ['p50', latency(times?.p50_ms)], ['p90', latency(times?.p90_ms)], ['p99', latency(times?.p99_ms)]]);
    replaceList(this.totals, Object.entries(circuit.totals).map(([name, value]) => [name.replaceAll('_', ' '), value.toLocaleString('en-GB').replaceAll(',', '\u202f'), value ? null : 'off']));
    if (!this.curls.childElementCount) for (const command of COMMANDS) {
      const text = curl(circuit, command);
      const button = h('button', { type: 'button', onclick: () => copy(text, button), 'aria-label': `Copy: ${command[0]}` }, 'Copy');
      this.curls.append(h('div', { class: 'curl' }, h('p', {}, command[0], button), h('pre', { tabindex: '0' }, text)));
    }
    this.count();
  }

  showActs(circuit) {
    const acts = this.hooks.canWrite() ? possible(circuit) : [];
    const key = acts.map(([name]) => name).join();
    if (key === this.actsKey) return;
    this.actsKey = key;
    this.acts.replaceChildren(...acts.map(([name, act]) =>
      h('button', { type: 'button', 'data-act': name, onclick: () => this.hooks.steer(this.id, name) }, `${act.word}…`)));
  }

  showWindow(window) {
    const { limits, calls } = window;
    const few = Math.max(0, (limits.minimum_calls ?? 0) - calls);
    const missing = few ? `${count(few, 'call')} more until there is a rate` : '';
    const of = (n, what) => `${short(n)} of ${count(calls, 'call')} ${what}`;
    const share = (n) => (calls ? n / calls : null);
    this.failures.element.hidden = limits.failure_rate == null;
    this.failures.show(window.failure_rate ?? share(window.failures), of(window.failures, 'failed'), limits.failure_rate, missing);
    this.slow.element.hidden = limits.slow_rate == null;
    if (limits.slow_rate != null) {
      const overdue = window.overdue ? `, ${short(window.overdue)} of them still running` : '';
      this.slow.show(window.slow_rate ?? share(window.slow), of(window.slow, `took longer than ${latency(limits.slow_after_ms)}`) + overdue, limits.slow_rate, missing);
    }
    const over = limits.kind === 'time' || limits.size == null ? `the last ${span(limits.span_ms ?? 0)}` : `the last ${count(limits.size, 'call')}`;
    write(this.rules, `Judged over ${over}, from ${count(limits.minimum_calls ?? 0, 'call')} on.${limits.consecutive_failures ? ` ${limits.consecutive_failures} failures in a row open it at once.` : ''}`);
  }

  showRecovery({ recovery, override, state, automatic_state: automatic }) {
    const key = JSON.stringify([recovery && { ...recovery, left_ms: 0 }, override?.kind, state, automatic]);
    if (key === this.recoveryKey) return;
    this.recoveryKey = key;
    const box = this.recovery;
    this.bar = null;
    if (recovery?.phase === 'probing') {
      const { required, successes, failures, in_flight: flying } = recovery;
      const dots = [];
      for (let i = 0; i < failures; i++) dots.push('failed');
      for (let i = 0; i < successes; i++) dots.push('passed');
      for (let i = 0; i < flying && dots.length < required; i++) dots.push('flying');
      while (dots.length < required) dots.push('free');
      const words = `${successes} of ${required} probes succeeded${flying ? `, ${flying} on the way` : ''}${failures ? `, ${failures} failed` : ''}`;
      box.replaceChildren(h('p', { class: 'dots', role: 'img', 'aria-label': words },
        dots.slice(0, 24).map((dot) => h('i', { class: dot }, { failed: '×', passed: '✓', flying: '', free: '' }[dot]))), h('p', {}, `${words}.`));
    } else if (recovery?.phase === 'ramp') {
      this.bar = h('i');
      this.bar.style.transform = `scaleX(${recovery.admitted_share})`;
      box.replaceChildren(h('p', {}, h('b', {}, percent(Math.round(recovery.admitted_share * 100) / 100)), ' of the calls pass; the share grows.'), h('span', { class: 'bar ramp' }, this.bar));
      this.bar = null;
    } else if (recovery?.phase === 'waiting') {
      this.bar = h('i');
      this.barOf = recovery.wait_ms;
      const words = recovery.awaits_health_check ? 'Waits until a health check passes.'
        : recovery.wait_ms == null ? 'It would wait before it tries again; the override goes before.'
        : `Waits ${span(recovery.wait_ms)} before it tries again${override ? '; the override goes before' : ''}.`;
      box.replaceChildren(h('p', {}, words), recovery.wait_ms == null ? '' : h('span', { class: 'bar waiting' }, this.bar));
    } else {
      box.replaceChildren(h('p', {}, override ? `Its own rules would have it ${automatic.replace('_', '-')}.` : state === 'open' ? 'It waits.' : 'All calls pass.'));
    }
  }

  /** What the time alone changes. */
  count() {
    const { circuit } = this;
    if (!circuit) return;
    write(this.since, since(circuit));
    write(this.why, reason(circuit));
    const wait = circuit.override ? overrideLeft(circuit) : left(circuit);
    const show = wait != null && (circuit.state === 'open' || circuit.override);
    this.next.hidden = !show;
    if (show) {
      const number = circuit.override ? roughly(wait) : wait > 0 ? span(wait) : 'now';
      const note = circuit.override ? `until the override ends, at ${clock(serverTime(wait), false)}` : wait > 0 ? `until it tries again, at ${clock(serverTime(wait))}` : 'the next call is a probe';
      if (this.next.childElementCount !== 2) this.next.replaceChildren(h('b'), h('span'));
      write(this.next.firstChild, number);
      write(this.next.lastChild, note);
    }
    if (this.bar && this.barOf) this.bar.style.transform = `scaleX(${Math.min(1, (left(circuit) ?? 0) / this.barOf).toFixed(3)})`;
  }

  close() {
    this.gone = true;
    clearInterval(this.timer);
  }
}

let open = null;

/** Shows a circuit's own view, or none. */
export function look(id, hooks) {
  const place = document.getElementById('detail');
  if (open?.id === id) return;
  open?.close();
  open = id == null ? null : new Detail(id, hooks);
  place.replaceChildren(...(open ? [open.element] : []));
  if (open) {
    scrollTo(0, 0);
    open.show();
    open.name.focus({ preventScroll: true });
  }
}

export const refresh = () => open?.show();
export const countdown = () => open?.count();
/** Something happened to a circuit: its events and series are worth another look. */
export const happened = (id) => { if (open?.id === id) open.load(); };
export const current = () => open?.id ?? null;
