// Words and numbers, as people read them.

const two = (n) => String(n).padStart(2, '0');

/** A stretch of time in milliseconds: `0.4 s`, `42 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`. */
export function span(ms) {
  if (ms < 10e3) return `${(Math.max(0, ms) / 1e3).toFixed(1)} s`;
  const s = Math.round(ms / 1e3);
  if (s < 60) return `${s} s`;
  const [big, small, bigger, smaller] =
    s < 3600 ? [Math.floor(s / 60), s % 60, 'min', 's']
    : s < 86400 ? [Math.floor(s / 3600), Math.floor((s % 3600) / 60), 'h', 'min']
    : [Math.floor(s / 86400), Math.floor((s % 86400) / 3600), 'd', 'h'];
  return small ? `${big} ${bigger} ${small} ${smaller}` : `${big} ${bigger}`;
}

/** The same without fractions, for what does not tick. */
export const roughly = (ms) => (ms < 10e3 ? `${Math.floor(Math.max(0, ms) / 1e3)} s` : span(ms));

/** A time of day, with the day if it is not today's. */
export function clock(at, seconds = true) {
  const date = new Date(at);
  const time = two(date.getHours()) + ':' + two(date.getMinutes()) + (seconds ? ':' + two(date.getSeconds()) : '');
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })} ${time}`;
}

/** A number with three digits that count: `0.4`, `12.5`, `230`, `12.3k`, `4.5M`. */
export function short(n) {
  if (n == null) return '–';
  const size = Math.abs(n);
  if (size >= 999.5e6) return `${(n / 1e9).toFixed(1)}G`;
  if (size >= 999.5e3) return `${(n / 1e6).toFixed(1)}M`;
  if (size >= 9999.5) return `${(n / 1e3).toFixed(1)}k`;
  if (size >= 99.95 || Number.isInteger(n)) return String(Math.round(n));
  return n.toFixed(1);
}

/** Milliseconds of a latency: `0.42 ms`, `9.9 ms`, `340 ms`, `1.20 s`. */
export function latency(ms) {
  if (ms == null) return '–';
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  return `${(ms / 1e3).toFixed(2)} s`;
}

/** A share of one: `12.5 %`. */
export const percent = (share) => `${Math.round(share * 1000) / 10} %`;

/** `1 call`, `2 calls`. */
export const count = (n, noun) => `${short(n)} ${noun}${n === 1 ? '' : 's'}`;

/** The word for what callers meet. */
export function stateWord(circuit) {
  switch (circuit.override?.kind) {
    case 'force_open': return 'Held open';
    case 'force_closed': return 'Held closed';
    case 'observe_only': return 'Observed';
  }
  return { open: 'Open', half_open: 'Half-open', closed: 'Closed' }[circuit.state] ?? circuit.state;
}
