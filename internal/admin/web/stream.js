// The stream of what happens. A lost one is said, and comes back by itself: at once, then after longer and longer waits.

const waits = [1, 2, 4, 8, 15, 30];
// As long as nothing may be heard (the server says something every 5 s at least).
const silence = 12000;

export class Stream {
  // told is called with the name and the value of each message, linked with whether there is a stream: {is, since, again}.
  constructor(told, linked) {
    this.told = told;
    this.linked = linked;
    this.failures = 0;
    this.heard = 0;
    this.since = Date.now();
    setInterval(() => this.watch(), 1000);
    document.addEventListener('visibilitychange', () => this.seen());
    addEventListener('online', () => this.soon());
    addEventListener('pagehide', () => this.close());
    addEventListener('pageshow', e => { if (e.persisted) this.open(); });
  }

  // look has the stream bring all of a cluster, besides the list of all.
  look(cluster) {
    if (this.source && this.cluster === cluster) return;
    this.cluster = cluster;
    this.open();
  }

  open() {
    this.close();
    if (document.hidden) return;
    const source = new EventSource('stream' + (this.cluster ? '?cluster=' + encodeURIComponent(this.cluster) : ''));
    this.source = source;
    this.heard = Date.now();
    for (const name of ['moment', 'head', 'list', 'cluster', 'events']) {
      source.addEventListener(name, e => {
        if (this.source !== source) return;
        this.heard = Date.now();
        this.failures = 0;
        if (this.is !== true) {
          this.is = true;
          this.since = Date.now();
          this.linked({ is: true });
        }
        const value = JSON.parse(e.data);
        if (value !== null) this.told(name, value);
      });
    }
    source.addEventListener('again', () => { if (this.source === source) this.open(); });
    source.onerror = () => { if (this.source === source) this.lost(); };
  }

  close() {
    if (this.source) this.source.close();
    this.source = null;
    clearTimeout(this.timer);
    this.timer = null;
  }

  lost() {
    this.close();
    if (this.is !== false) {
      this.is = false;
      this.since = this.heard || Date.now();
    }
    const wait = waits[Math.min(this.failures++, waits.length - 1)] * (0.8 + 0.4 * Math.random());
    this.again = Date.now() + 1000 * wait;
    this.timer = setTimeout(() => this.open(), 1000 * wait);
    this.tell();
  }

  tell() {
    if (this.is === false) this.linked({ is: false, since: this.since, again: this.timer ? this.again : null });
  }

  watch() {
    if (this.source && Date.now() - this.heard > silence) this.lost();
    else this.tell();
  }

  // A page that nobody sees has no stream: browsers have few connections for a server.
  seen() {
    clearTimeout(this.hiding);
    if (document.hidden) this.hiding = setTimeout(() => this.close(), 20000);
    else if (!this.source) this.soon();
  }

  soon() {
    if (this.source && this.is) return;
    this.failures = 0;
    this.open();
  }
}
