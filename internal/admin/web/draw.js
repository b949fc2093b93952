// Charts and the picture of a cluster, as SVG.
import { h } from './dom.js';
import { count, bytes, plural, serverState, memberState } from './format.js';

// Ten minutes are shown.
export const shownTime = 600000;

// Track keeps what charts show of one thing: what the server noted before, and what the stream brings.
export class Track {
  constructor() {
    this.points = [];
    this.newest = [];
  }

  add(at, point) {
    // What goes through in one second jumps: shown is the mean of the last five, about as long as what the server has noted.
    this.newest = [...this.newest.filter(p => at - p.at < 5500), { at, ...point }];
    const mean = key => this.newest.reduce((sum, p) => sum + p[key], 0) / this.newest.length;
    this.points.push({ at, ...point, rate: mean('rate'), in: mean('in'), out: mean('out') });
    const first = at - shownTime - 10000;
    if (this.points.length > 900 || this.points[0].at < first - 60000) this.points = this.points.filter(p => p.at >= first);
  }

  // past puts what was noted before the first point that is known.
  past(last, step, series) {
    const known = this.points.length ? this.points[0].at : Infinity;
    const n = series.sessions.length;
    const before = [];
    for (let i = 0; i < n; i++) {
      const at = last - (n - 1 - i) * step;
      if (at < known) before.push({ at, sessions: series.sessions[i], held: series.held[i], rate: series.rate[i], in: series.in[i], out: series.out[i], connect: series.connect[i] });
    }
    this.points = before.concat(this.points);
  }
}

// nice is a round number that isn't below v.
function nice(v) {
  if (v <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(v));
  for (const m of [1, 2, 5, 10]) if (m * power >= v) return m * power;
  return 10 * power;
}

// line is a path through points; where nothing is known it breaks off. Of many points that fall on one pixel the highest counts.
function line(points, value, x, y) {
  let path = '', pen = false, last = null, column = -1;
  for (const p of points) {
    const v = value(p);
    if (v === null || v === undefined || Number.isNaN(v)) continue;
    if (last !== null && p.at - last > 20000) pen = false;
    const px = Math.round(x(p.at) * 2) / 2, py = Math.round(y(v) * 10) / 10;
    if (pen && px === column) { last = p.at; continue; }
    path += (pen ? 'L' : 'M') + px + ' ' + py;
    pen = true;
    last = p.at;
    column = px;
  }
  return path;
}

// chart draws lines over the last ten minutes: each of {name, points, value}, told apart by their dashes and the letter at their ends.
export function chart({ title, now, lines, write, width = 260, height = 74, least = 0 }) {
  const left = 2, right = 14, top = 8, bottom = 6;
  const from = now - shownTime;
  const shown = lines.map(l => ({ ...l, points: l.points.filter(p => p.at >= from && p.at <= now) }));
  let most = least;
  for (const l of shown) for (const p of l.points) most = Math.max(most, l.value(p) || 0);
  most = nice(most);
  const x = at => left + (width - left - right) * (at - from) / shownTime;
  const y = v => height - bottom - (height - top - bottom) * v / most;
  const newest = l => { for (let i = l.points.length - 1; i >= 0; i--) { const v = l.value(l.points[i]); if (v !== null && v !== undefined) return now - l.points[i].at < 20000 ? v : null; } return null; };
  const parts = [];
  parts.push(h('line', { class: 'axis', x1: left, y1: y(0), x2: width - right, y2: y(0) }));
  parts.push(h('line', { class: 'grid', x1: left, y1: y(most), x2: width - right, y2: y(most) }));
  parts.push(h('text', { class: 'scale', x: left, y: y(most) - 2 }, write(most)));
  const ends = [];
  shown.forEach((l, i) => {
    const d = line(l.points, l.value, x, y);
    if (!d) return;
    if (shown.length === 1) {
      const first = l.points.find(p => l.value(p) !== null && l.value(p) !== undefined);
      const end = [...l.points].reverse().find(p => l.value(p) !== null && l.value(p) !== undefined);
      if (d.indexOf('M', 1) < 0) parts.push(h('path', { class: 'area', d: d + 'L' + x(end.at).toFixed(1) + ' ' + y(0) + 'L' + x(first.at).toFixed(1) + ' ' + y(0) + 'Z' }));
    }
    parts.push(h('path', { class: 'curve curve' + i % 6, d }, h('title', null, l.name)));
    const v = newest(l);
    if (shown.length > 1 && v !== null) ends.push({ letter: l.letter, i, y: y(v) });
  });
  // Letters that would lie on each other are moved apart.
  ends.sort((a, b) => a.y - b.y);
  for (let i = 1; i < ends.length; i++) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 9);
  for (let i = ends.length - 1; i >= 0; i--) ends[i].y = Math.min(ends[i].y, height - bottom - 9 * (ends.length - 1 - i) + 2);
  for (const e of ends) parts.push(h('text', { class: 'letter letter' + e.i % 6, x: width - right + 3, y: (e.y + 3).toFixed(1) }, e.letter));
  const values = shown.map(newest).filter(v => v !== null);
  const sum = values.reduce((a, b) => a + b, 0);
  const told = title + ': ' + (values.length ? lines.map((l, i) => (newest(shown[i]) === null ? '' : (lines.length > 1 ? l.name + ' ' : '') + write(newest(shown[i])))).filter(Boolean).join(', ') : 'nothing known');
  return { sum, values, svg: h('svg', { class: 'chart', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': told + ', over ten minutes' }, parts) };
}

// spark is a chart without anything around it.
export function spark(points, value, now, width = 120, height = 22) {
  const from = now - shownTime;
  const shown = points.filter(p => p.at >= from && p.at <= now);
  let most = 1;
  for (const p of shown) most = Math.max(most, value(p) || 0);
  const d = line(shown, value, at => width * (at - from) / shownTime, v => height - 1.5 - (height - 3) * v / most);
  return h('svg', { class: 'spark', viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' }, d && h('path', { class: 'curve', d }));
}

// A line is as wide as the root of what goes through it, beside the widest of the picture; where little goes through all of it, all are thin.
const widest = 14, plenty = 50000;
const thickness = (n, most) => n > 0 ? 1.5 + (widest - 1.5) * Math.sqrt(n / Math.max(most, plenty)) : 1;

const cut = (text, most) => text.length > most ? text.slice(0, most - 1) + '…' : text;

// As many services and members are drawn.
const mostDrawn = 12;

// picture draws a cluster: clients, services, members, and what goes between them now.
export function picture(detail, width, calm) {
  const cluster = detail.cluster;
  const services = cluster.services.slice(0, mostDrawn), members = cluster.members.slice(0, mostDrawn);
  const narrow = width < 620;
  const rowHeight = 64, boxHeight = 44;
  const rows = Math.max(services.length, members.length, 1);
  const height = rows * rowHeight + 26;
  const clientsWidth = narrow ? 0 : 104;
  const serviceWidth = narrow ? Math.min(132, width * 0.38) : Math.min(190, width * 0.24);
  const memberWidth = narrow ? Math.min(140, width * 0.4) : Math.min(230, width * 0.29);
  const serviceX = narrow ? 14 : clientsWidth + (width - clientsWidth - serviceWidth - memberWidth) * 0.36;
  const memberX = width - memberWidth - 1;
  const yOf = (i, n) => 24 + (rows - n) * rowHeight / 2 + i * rowHeight + (rowHeight - boxHeight) / 2;
  const parts = [
    h('defs', null, h('pattern', { id: 'hatch', width: 7, height: 7, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' }, h('line', { class: 'hatching', x1: 0, y1: 0, x2: 0, y2: 7 }))),
    h('text', { class: 'column', x: serviceX, y: 12 }, 'services'),
    h('text', { class: 'column', x: memberX, y: 12 }, 'members'),
  ];
  const flows = detail.flows;
  const most = Math.max(0, ...services.map(s => flows[s.full_name]).filter(Boolean).map(f => f.in + f.out));
  const wire = (x1, y1, x2, y2, flow, sessions, title) => {
    const through = (flow ? flow.in + flow.out : 0);
    const bend = (x2 - x1) * 0.45;
    const d = `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
    const now = through > 0;
    return h('g', { class: 'wire' + (now ? ' flows' : sessions ? ' open' : ' idle') },
      h('path', { class: 'pipe', d, 'stroke-width': thickness(through, most).toFixed(1) }, h('title', null, title)),
      now && !calm && h('path', { class: 'drift', d, 'stroke-width': Math.max(1.2, thickness(through, most) * 0.35).toFixed(1) }));
  };
  const over = [];
  let clients = 0, through = 0;
  const middle = 24 + rows * rowHeight / 2;
  services.forEach((service, i) => {
    const y = yOf(i, services.length) + boxHeight / 2;
    const flow = flows[service.full_name];
    const all = service.sessions + service.held;
    clients += all;
    through += flow ? flow.in + flow.out : 0;
    parts.push(narrow ? wire(0, y, serviceX, y, flow, all, service.full_name) : wire(clientsWidth, middle, serviceX, y, flow, all, `clients to ${service.full_name}: ${plural(service.sessions, 'session', 'sessions')}`));
    service.servers.forEach(server => {
      const k = members.findIndex(m => m.name === server.member);
      const state = serverState(server);
      if (k < 0 || (!server.serving && !server.sessions && state.is !== 'drain' && state.is !== 'maint')) return;
      const f = flows[service.full_name + '/' + server.member];
      const y2 = yOf(k, members.length) + boxHeight / 2 + (i - (services.length - 1) / 2) * Math.min(7, 34 / services.length);
      parts.push(h('g', { class: 'to-' + state.is }, wire(serviceX + serviceWidth, y, memberX, y2, f, server.sessions,
        `${service.full_name} to ${server.member}: ${state.word}, ${plural(server.sessions, 'session', 'sessions')}, ${bytes(f ? f.in + f.out : 0)}/s`)));
    });
  });
  if (!narrow) {
    over.push(h('g', { class: 'box clients' },
      h('rect', { x: 1, y: middle - 30, width: clientsWidth - 1, height: 60, rx: 30 }),
      h('text', { class: 'name', x: clientsWidth / 2, y: middle - 4, 'text-anchor': 'middle' }, 'clients'),
      h('text', { class: 'small', x: clientsWidth / 2, y: middle + 13, 'text-anchor': 'middle' }, count(clients) + ' · ' + bytes(through) + '/s')));
  }
  services.forEach((service, i) => {
    const y = yOf(i, services.length);
    const is = service.up ? 'serving' : service.servers.length ? 'down' : 'out';
    over.push(h('g', { class: 'box service is-' + is },
      h('rect', { x: serviceX, y, width: serviceWidth, height: boxHeight, rx: 4 }),
      h('text', { class: 'name', x: serviceX + 10, y: y + 18 }, cut(service.name, narrow ? 13 : 20)),
      h('text', { class: 'small', x: serviceX + 10, y: y + 34 }, !service.up ? (service.held ? plural(service.held, 'waits', 'wait') + ', ' : '') + (service.servers.length ? '✕ no server' : 'no member') : plural(service.sessions, 'session', 'sessions') + (service.held ? ', ' + count(service.held) + ' wait' : '')),
      h('title', null, service.full_name + ' at ' + service.listen)));
  });
  members.forEach((member, i) => {
    const y = yOf(i, members.length);
    const state = memberState(cluster, member.name);
    const primary = member.role === 'primary';
    const sessions = cluster.services.reduce((n, s) => n + s.servers.filter(v => v.member === member.name).reduce((m, v) => m + v.sessions, 0), 0);
    const box = [h('rect', { x: memberX, y, width: memberWidth, height: boxHeight, rx: 4 })];
    if (state.is === 'drain' || state.is === 'maint') box.push(h('rect', { class: 'hatched', x: memberX, y, width: memberWidth, height: boxHeight, rx: 4 }));
    if (state.is === 'down') box.push(h('path', { class: 'crossed', d: `M${memberX} ${y}L${memberX + memberWidth} ${y + boxHeight}M${memberX + memberWidth} ${y}L${memberX} ${y + boxHeight}` }));
    box.push(h('text', { class: 'name', x: memberX + 10, y: y + 18 }, (primary ? '★ ' : '') + cut(member.name, narrow ? 14 : 22)));
    box.push(h('text', { class: 'small', x: memberX + 10, y: y + 34 }, cut([member.role, state.is === 'serving' || state.is === 'ready' ? '' : state.word, state.is === 'down' && !sessions ? '' : plural(sessions, 'session', 'sessions')].filter(Boolean).join(' · '), narrow ? 22 : 34)));
    box.push(h('title', null, member.name + ' (' + member.role + '): ' + member.answer));
    over.push(h('g', { class: 'box member is-' + state.is + (primary ? ' primary' : '') }, box));
  });
  const more = cluster.services.length - services.length + cluster.members.length - members.length;
  if (more > 0) over.push(h('text', { class: 'small', x: serviceX, y: height - 2 }, `and ${more} more`));
  const told = members.map(m => `${m.name} ${m.role} ${memberState(cluster, m.name).word}`).join(', ');
  return h('svg', { class: 'picture', viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': `${cluster.name}: ${plural(clients, 'client', 'clients')}, ${services.map(s => s.name + ' ' + (s.up ? 'served' : 'not served')).join(', ')}; ${told}` }, parts, over);
}
