// How things are written: numbers, times, and states in words.

const grouped = new Intl.NumberFormat('en');

export const count = n => grouped.format(Math.round(n || 0));

export function rate(n) {
  if (!n) return '0';
  return n < 10 ? String(Math.round(n * 10) / 10) : grouped.format(Math.round(n));
}

export function bytes(n) {
  let v = n || 0, unit = 'B';
  for (const next of ['kB', 'MB', 'GB', 'TB']) {
    if (v < 1000) break;
    v /= 1000;
    unit = next;
  }
  return (unit === 'B' || v >= 100 ? Math.round(v) : Math.round(v * 10) / 10) + ' ' + unit;
}

export function milliseconds(v) {
  if (v === null || v === undefined) return '–';
  if (v >= 1000) return Math.round(v / 100) / 10 + ' s';
  return (v < 1 ? Math.round(v * 100) / 100 : v < 10 ? Math.round(v * 10) / 10 : Math.round(v)) + ' ms';
}

export function span(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return s + 's';
  if (s < 3600) return Math.floor(s / 60) + 'm ' + s % 60 + 's';
  if (s < 86400) return Math.floor(s / 3600) + 'h ' + Math.floor(s % 3600 / 60) + 'm';
  return Math.floor(s / 86400) + 'd ' + Math.floor(s % 86400 / 3600) + 'h';
}

const two = n => String(n).padStart(2, '0');

export function clock(at) {
  const d = new Date(at);
  return two(d.getHours()) + ':' + two(d.getMinutes()) + ':' + two(d.getSeconds());
}

export function moment(at, now) {
  const d = new Date(at);
  const day = d.getFullYear() + '-' + two(d.getMonth() + 1) + '-' + two(d.getDate());
  const n = new Date(now);
  return (n.toDateString() === d.toDateString() ? '' : day + ' ') + clock(at);
}

export const plural = (n, one, many) => count(n) + ' ' + (n === 1 ? one : many);

// judgements: a sign and a word each, so that colour is never the only one.
export const judgements = {
  well: { sign: '●', word: 'well' },
  look: { sign: '▲', word: 'look' },
  ill: { sign: '✕', word: 'ill' },
};

// serverState is what a server of a service is, in a word, with the sign that stands for it in tables and pictures.
export function serverState(server) {
  const ordered = server.order && server.order.state;
  if (ordered === 'maint') return { is: 'maint', sign: '▨', word: 'maintenance' };
  if (ordered === 'drain') return { is: 'drain', sign: '▨', word: 'drained' };
  if (server.serving) return { is: 'serving', sign: '●', word: 'serving' };
  if (server.up && server.backup) return { is: 'ready', sign: '○', word: 'standing by' };
  if (server.up) return { is: 'ready', sign: '○', word: 'ready' };
  if (/ running$/.test(server.reason)) return { is: 'out', sign: '–', word: 'not eligible' };
  return { is: 'down', sign: '✕', word: 'down' };
}

// memberState is what a member is over all services of its cluster.
export function memberState(cluster, name) {
  const rank = ['serving', 'ready', 'drain', 'maint', 'down', 'out'];
  let best = null;
  for (const service of cluster.services) {
    for (const server of service.servers) {
      if (server.member !== name) continue;
      const state = serverState(server);
      if (!best || rank.indexOf(state.is) < rank.indexOf(best.is)) best = state;
    }
  }
  return best || { is: 'out', sign: '–', word: 'in no service' };
}
