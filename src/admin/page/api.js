// What goes over the wire: requests with the token, and the stream of news.

const KEY = 'tower-breaker-token';
let token = null;
try { token = sessionStorage.getItem(KEY); } catch { /* No storage: the token lives as long as the page. */ }

/** Takes `token=…` out of the fragment, so that it stays in no history and no shared link. */
export function takeToken() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  if (!fragment.has('token')) return false;
  useToken(fragment.get('token'));
  fragment.delete('token');
  const rest = fragment.toString();
  history.replaceState(null, '', location.pathname + location.search + (rest && `#${rest}`));
  return true;
}

export function useToken(value) {
  token = value;
  try { sessionStorage.setItem(KEY, value); } catch { /* As above. */ }
}

/** What the server refused, with its code and the sentence that says why. */
export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `The server answered ${status}.`);
    this.status = status;
    this.code = error?.code;
    this.field = error?.field;
    this.current = error?.current;
  }
}

function request(path, { method = 'GET', body, headers, signal } = {}) {
  return fetch(`api/v1/${path}`, {
    method, signal, cache: 'no-store', credentials: 'omit', redirect: 'error',
    headers: {
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...(body ? { 'content-type': 'application/json' } : {}),
      ...headers,
    },
    body: body && JSON.stringify(body),
  });
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  return new Refused(response.status, body?.error);
}

/** Asks for JSON; throws `Refused`, or a `TypeError` if there is no answer. */
export async function ask(path, options) {
  const response = await request(path, options);
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/** The address of a circuit, or of something below it. */
export function address({ name, key }, below = '') {
  let id = encodeURIComponent(name);
  if (key != null) {
    // Dots alone, and nothing at all, are no segment of a path to whoever reads one: the group's own circuit would be
    // meant. They stand in that of the name, and the dots are encoded twice, for a proxy that decodes.
    const isNone = /^\.{0,2}$/.test(key);
    id += isNone ? encodeURIComponent(`/${key.replaceAll('.', '%2E')}`) : `/${encodeURIComponent(key)}`;
  }
  return `circuits/${id}${below && `/${below}`}`;
}

/** Splits server-sent events out of a text that comes in pieces. */
export function splitter(emit) {
  let rest = '';
  return (piece) => {
    rest += piece;
    const blocks = rest.split(/\r\n\r\n|\n\n|\r\r/);
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { event: 'message', data: [], id: null };
      for (const line of block.split(/\r\n|\n|\r/)) {
        const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
        if (field === 'data') event.data.push(value);
        else if (field === 'event' || field === 'id') event[field] = value;
      }
      if (event.data.length) emit(event.event, JSON.parse(event.data.join('\n')), event.id);
    }
  };
}

const SILENCE = 10e3; // ms without a byte, after which a stream is taken for dead
const WAITS = [250, 500, 1000, 2000, 4000]; // ms between attempts, each up to half as long again

/**
 * Follows the stream for as long as the page lives, over and over. `on` hears `message(event, data)`, `alive()` with
 * every byte, and `lost(error)` at each end.
 */
export function follow(on) {
  let last = null, attempts = 0, abort = null, wake = null;

  async function once() {
    abort = new AbortController();
    let timer;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENCE);
    };
    try {
      alive();
      const response = await request('stream', {
        signal: abort.signal,
        headers: { accept: 'text/event-stream', ...(last === null ? {} : { 'last-event-id': last }) },
      });
      if (!response.ok) throw await refusal(response);
      const split = splitter((event, data, id) => {
        if (id !== null) last = id;
        attempts = 0;
        on.message(event, data);
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        alive();
        on.alive();
        split(value);
      }
    } finally {
      clearTimeout(timer);
      abort.abort();
    }
  }

  (async () => {
    for (;;) {
      const error = await once().catch((error) => error);
      on.lost(error);
      const wait = WAITS[Math.min(attempts++, WAITS.length - 1)] * (1 + Math.random() / 2);
      // Without the right token there is nothing to try again with.
      await new Promise((resolve) => {
        wake = resolve;
        if (error?.status !== 401) setTimeout(resolve, wait);
      });
    }
  })();

  return {
    /** Tries at once, with a new token or after a sleep. */
    again() {
      attempts = 0;
      abort?.abort();
      wake?.();
    },
  };
}
