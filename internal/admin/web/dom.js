// Elements made of plain values, and a document brought up to date with them: what has the focus keeps it, and nothing moves that
// hasn't changed. Text is only ever set as text.

const svgNames = new Set(['svg', 'g', 'path', 'line', 'rect', 'circle', 'text', 'tspan', 'title', 'desc', 'defs', 'pattern', 'polyline', 'polygon', 'clipPath']);

export function h(name, attributes, ...children) {
  const svg = svgNames.has(name) && !(name === 'title' && attributes === 'html');
  const e = svg ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === false || value === null || value === undefined) continue;
    e.setAttribute(key, value === true ? '' : value);
  }
  add(e, children);
  return e;
}

function add(e, children) {
  for (const c of children) {
    if (Array.isArray(c)) add(e, c);
    else if (c instanceof Node) e.append(c);
    else if (c !== null && c !== undefined && c !== false) e.append(String(c));
  }
}

const keyOf = n => n.nodeType === Node.ELEMENT_NODE ? n.getAttribute('data-key') : null;

const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

// morph makes an element the same as another one.
export function morph(old, next) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name) && name !== 'tabindex') old.removeAttribute(name);
  for (const { name, value } of next.attributes) {
    // The roving tabindex of a list is set where it is walked through.
    if (name === 'tabindex' && old.hasAttribute(name)) continue;
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  fill(old, [...next.childNodes]);
}

// fill gives an element these children.
export function fill(parent, next) {
  const keyed = new Map();
  for (const c of parent.childNodes) if (keyOf(c)) keyed.set(keyOf(c), c);
  let at = parent.firstChild;
  for (const n of next) {
    const own = keyOf(n) ? keyed.get(keyOf(n)) : null;
    if (own && alike(own, n)) {
      if (own !== at) parent.insertBefore(own, at);
      else at = at.nextSibling;
      morph(own, n);
    } else if (at && !keyOf(n) && alike(at, n)) {
      morph(at, n);
      at = at.nextSibling;
    } else {
      parent.insertBefore(n, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

export const show = (id, ...children) => {
  const box = h('div', null, ...children);
  fill(document.getElementById(id), [...box.childNodes]);
};
