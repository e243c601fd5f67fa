// The page: what is looked at, keys, the theme, and whether the news is fresh.

import { Refused, address, ask, follow, takeToken, useToken } from './api.js';
import * as detail from './detail.js';
import { write } from './draw.js';
import * as flip from './flip.js';
import * as overview from './overview.js';
import * as store from './store.js';
import { clock, roughly } from './text.js';

const STALE = 2500; // ms without a byte, after which what is shown is called old
const $ = (id) => document.getElementById(id);

let me = null;
let heard = null; // when the stream was last heard, as an instant of `performance.now()`
let heardAt = null; // the same on the server's clock
let stream = null;
let epoch = null; // of the server's history
let anew = false, told = 0; // whether the history comes anew, and up to which event it is no news
let dirty = false, pending = false;

// With a `<base>`, links to fragments lead to its address: be there, or each would load the page anew.
const home = new URL(document.baseURI).pathname;
if (location.pathname !== home) history.replaceState(null, '', home + location.search + location.hash);
takeToken();

const hooks = {
  canWrite: () => Boolean(me?.can_write),
  steer: (id, act) => {
    const circuit = store.circuits.get(id);
    if (circuit && hooks.canWrite()) flip.decide([circuit], { act, done });
  },
  steerAll: (circuits) => flip.decide(circuits, { done }),
};

function done(text) {
  toast(text);
  redraw(true);
}

let toastTimer;
function toast(text) {
  clearTimeout(toastTimer);
  $('toast').hidden = false;
  write($('toast'), text);
  toastTimer = setTimeout(() => { $('toast').hidden = true; }, 6000);
}

// Views.

function route() {
  if (takeToken()) begin();
  const fragment = new URLSearchParams(location.hash.slice(1));
  const id = fragment.get('circuit');
  if (id == null) overview.filterBy(fragment);
  const before = detail.current();
  if (heard === null) return;
  $('loading').hidden = true;
  $('overview').hidden = id != null;
  $('detail').hidden = id == null;
  detail.look(id, hooks);
  redraw(true);
  if (id == null && before != null) {
    // Back where one came from, once there are rows.
    requestAnimationFrame(() => overview.focus(before));
  }
}

function login(error) {
  $('login').hidden = false;
  for (const id of ['loading', 'overview', 'detail']) $(id).hidden = true;
  write($('login-error'), error ?? '');
  $('token').focus();
}

$('login-form').addEventListener('submit', (event) => {
  event.preventDefault();
  useToken($('token').value.trim());
  $('token').value = '';
  tried = true;
  begin();
});
let tried = false;

/** Begins anew with another token: what the one before let one do counts no more. */
function begin() {
  setMe(null);
  stream?.again();
}

// News.

let arranged = 0;
let order = '';

/** Brings the page up to date with the store, with the next frame. */
function redraw(anew = false) {
  dirty ||= anew;
  brand();
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    if ($('overview').hidden && $('detail').hidden) return;
    if (!$('overview').hidden) {
      // The order follows the states at once, and restless numbers now and then.
      const states = [...store.circuits.values()].map((c) => c.id + c.state + (c.override?.kind ?? '') + (c.recovery?.phase ?? '')).join();
      if (dirty || states !== order || performance.now() - arranged > (overview.restless() ? 3e3 : 15e3)) {
        order = states;
        arranged = performance.now();
        dirty = false;
        overview.arrange();
      }
      overview.refresh();
    } else {
      detail.refresh();
    }
    flip.refresh();
  });
}

function brand() {
  let open = 0, half = 0;
  for (const { state } of store.circuits.values()) {
    if (state === 'open') open++;
    else if (state === 'half_open') half++;
  }
  const title = open ? `(${open} open) Circuits` : half ? `(${half} half-open) Circuits` : 'Circuits';
  if (document.title === title && brand.drawn) return;
  document.title = title;
  brand.drawn = true;
  const [colour, path] = open ? ['%23d1382b', 'M5 1h6l4 4v6l-4 4H5l-4-4V5z'] : half ? ['%23c98a00', 'M8 1l7 7-7 7-7-7z'] : ['%233b8f6a', 'M8 2a6 6 0 1 0 .01 0z'];
  document.querySelector('link[rel=icon]').href = `data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="${colour}" d="${path}"/></svg>`;
}

async function fetchOne(id) {
  const known = store.circuits.get(id) ?? [...store.events.values()].find((event) => event.circuit_id === id);
  try {
    const { circuit } = await ask(known ? address(known) : `circuits/${encodeURIComponent(id)}`);
    store.put(circuit);
    redraw(true);
  } catch (error) {
    if (error.status === 404 && store.circuits.delete(id)) redraw(true);
  }
}

const asked = new Map();
/** Asks for circuits that were told of too shortly, each at most once a second. */
function askFor(ids) {
  const now = performance.now();
  for (const id of ids.slice(0, 20)) {
    if (now - (asked.get(id) ?? -1e9) < 1000) continue;
    asked.set(id, now);
    fetchOne(id);
  }
}

let toSay = [];
function announce(event) {
  if (event.kind !== 'transition' || event.to !== 'open') return;
  toSay.push(event);
  if (toSay.length > 1) return;
  setTimeout(() => {
    $('announcer').textContent = toSay.length > 3 ? `${toSay.length} circuits have opened` : toSay.map(({ circuit_id: id }) => `${id} has opened. ${store.circuits.get(id)?.sentence ?? ''}`).join(' ');
    toSay = [];
  }, 1200);
}

const on = {
  alive() {
    heard = performance.now();
    connection('live', 'Live');
    fresh();
  },
  message(name, data) {
    switch (name) {
      case 'snapshot': {
        const first = heardAt === null || !$('login').hidden;
        store.snapshot(data);
        heardAt = Date.parse(data.now);
        $('login').hidden = true;
        if (first) tried = false;
        askMe();
        // A server that has started anew counts from the beginning.
        if (epoch !== data.epoch) store.events.clear();
        epoch = data.epoch;
        told = anew ? data.last_id : 0;
        anew = false;
        catchUp(data.last_id);
        dirty = true;
        if (first) route();
        redraw(true);
        break;
      }
      case 'resync':
        anew = true;
        break;
      case 'tick': {
        heardAt = Date.parse(data.now);
        if (!me) askMe();
        askFor(store.tick(data));
        $('notice').hidden = !data.notice;
        write($('notice'), data.notice ?? '');
        redraw();
        break;
      }
      case 'event':
        if (!store.happened(data)) break;
        overview.tell([data]);
        if (data.id <= told) break;
        announce(data);
        if (data.kind === 'removed') {
          store.circuits.delete(data.circuit_id);
          redraw(true);
        } else if (data.kind !== 'transition' || !store.circuits.has(data.circuit_id)) {
          askFor([data.circuit_id]);
        }
        detail.happened(data.circuit_id);
        break;
      case 'end':
        connection('lost', data.reason === 'shutdown' ? 'The server is going down' : 'Reconnecting…');
        break;
    }
  },
  lost(error) {
    if (error instanceof Refused && error.status === 401) {
      return login(tried ? 'The server does not know this token.' : '');
    }
    const why = error instanceof Refused ? error.message : 'Reconnecting…';
    connection('lost', why);
    if (heard === null) write($('loading').firstElementChild, error instanceof Refused ? `${why} Trying again…` : 'The server does not answer. Trying again…');
    fresh();
  },
};

async function catchUp(last) {
  try {
    const { events } = await ask(`events?after=${Math.max(0, last - store.EVENTS)}&limit=${store.EVENTS}`);
    overview.tell(store.happenedBefore(events), true);
  } catch { /* The stream brings what comes. */ }
}

/** Asks whose the token is: with each stream, and again if there was no answer. */
async function askMe() {
  try {
    setMe(await ask('me'));
  } catch { /* What is known still holds. */ }
}

function setMe(answer) {
  me = answer;
  write($('who'), me ? `${me.who} · ${me.role}` : '');
  document.body.classList.toggle('can-write', hooks.canWrite());
  redraw(true);
}

function connection(is, text) {
  const element = $('connection');
  if (element.dataset.is !== is) element.dataset.is = is;
  write(element.lastElementChild, text);
}

/** Says so when what is shown is old. */
function fresh() {
  const age = heard === null ? 0 : performance.now() - heard;
  const old = age > STALE && $('login').hidden;
  document.body.classList.toggle('is-stale', old);
  // Said once, and not with every second that it counts.
  if (old === $('stale').hidden) write($('announcer'), old ? 'No news from the server. What you see may be old.' : 'There is news again.');
  $('stale').hidden = !old;
  if (old) write($('stale'), `No news from the server for ${roughly(age)}. What you see is from ${clock(heardAt)}; it may be different now.`);
}

// Clocks. What is old does not go on counting, for nobody knows whether it is so.
const calm = matchMedia('(prefers-reduced-motion: reduce)');
setInterval(fresh, 250);
let beat = 0;
setInterval(() => {
  if (document.hidden || document.body.classList.contains('is-stale') || (calm.matches && beat++ % 10)) return;
  if ($('overview').hidden) detail.countdown();
  else overview.countdown();
}, 100);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && performance.now() - (heard ?? 0) > STALE) stream.again();
});
addEventListener('online', () => stream.again());

// Keys.

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || document.querySelector('dialog[open]') || !$('login').hidden) return;
  const typing = event.target.matches?.('input, select, textarea');
  if (typing && event.key !== 'Escape') {
    if (event.target.id === 'filter' && event.key === 'Enter') document.querySelector('#rows .row:not([hidden]) .name')?.focus();
    return;
  }
  if (used(event)) event.preventDefault();
});

function used(event) {
  if (event.key === '?') return $('help').showModal() ?? true;
  if (event.key === 't') return theme() ?? true;
  if (!$('overview').hidden) return overview.key(event);
  if (event.key === 'Escape') {
    location.hash = overview.address();
    return true;
  }
  if (event.key === 'o' && detail.current() != null) {
    hooks.steer(detail.current());
    return true;
  }
  return false;
}

$('help-button').addEventListener('click', () => $('help').showModal());
document.querySelector('.skip').addEventListener('click', (event) => {
  // The fragment is taken for views.
  event.preventDefault();
  $('list').focus();
});

// Light and dark.

const THEMES = { auto: ['◐', 'as the system says'], light: ['☀', 'light'], dark: ['☾', 'dark'] };
function theme(to) {
  const names = Object.keys(THEMES);
  const name = to ?? names[(names.indexOf(document.documentElement.dataset.theme ?? 'auto') + 1) % names.length];
  document.documentElement.dataset.theme = name;
  write($('theme'), THEMES[name][0]);
  $('theme').setAttribute('aria-label', `Theme: ${THEMES[name][1]}`);
  $('theme').title = `Theme: ${THEMES[name][1]}`;
  try { localStorage.setItem('tower-breaker-theme', name); } catch { /* It is forgotten, then. */ }
}
$('theme').addEventListener('click', () => theme());
let kept = null;
try { kept = localStorage.getItem('tower-breaker-theme'); } catch { /* As above. */ }
theme(kept in THEMES ? kept : 'auto');

overview.start(hooks);
addEventListener('hashchange', route);
overview.filterBy(new URLSearchParams(location.hash.slice(1)));
stream = follow(on);
