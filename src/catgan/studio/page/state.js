// What the page shows, as one object; the address holds all of it, so that a link brings it back.

export const DEFAULTS = Object.freeze({
  view: "sample", // sample, seeds, truncation, sheet, walk, project
  label: 0, // class
  other: null, // a second class
  mix: 0.5, // how much of it
  seed: 0,
  psi: 1,
  directions: [], // standard deviations along the principal directions
  w: null, // base64 of a style in place of the seed, of the model with the number `of`
  of: 0,
  stage: null, // k of the stage in view; null is the last
  scale: "h", // h: h_k at full size, x: x_k as the discriminator sees it
  points: [], // key points of the walk, as `point` gives them
  seconds: 1, // from one to the next
  loop: true,
});

const NUMBER = { label: 1e6, seed: Number.MAX_SAFE_INTEGER, of: 100, stage: 100 };

export class State extends EventTarget {
  constructor() {
    super();
    Object.assign(this, structuredClone(DEFAULTS));
    this.writing = 0;
  }

  // Changes fields, tells everybody, and writes the address a moment later.
  set(changes) {
    Object.assign(this, changes);
    this.dispatchEvent(new CustomEvent("change", { detail: changes }));
    clearTimeout(this.writing);
    this.writing = setTimeout(() => history.replaceState(null, "", this.address()), 150);
  }

  // The sample of the controls, as a point of the protocol.
  get point() {
    const p = { label: this.label, seed: this.seed, psi: this.psi };
    if (this.other !== null && this.mix > 0) Object.assign(p, { other: this.other, mix: this.mix });
    if (this.w !== null) p.w = this.w;
    const last = this.directions.findLastIndex((a) => a !== 0);
    if (last >= 0) p.directions = Array.from(this.directions.slice(0, last + 1), (a) => a ?? 0);
    return p;
  }

  address() {
    const q = new URLSearchParams();
    for (const [name, standard] of Object.entries(DEFAULTS)) {
      const value = this[name];
      if (JSON.stringify(value) === JSON.stringify(standard)) continue;
      q.set(name, typeof value === "object" ? JSON.stringify(value) : String(value));
    }
    return `#${q}`;
  }

  // Takes an address; what does not fit is left at its default.
  read(hash) {
    const q = new URLSearchParams(hash.replace(/^#/, ""));
    const next = structuredClone(DEFAULTS);
    const whole = (name, standard) => {
      const value = Number(q.get(name));
      return q.has(name) && Number.isSafeInteger(value) && value >= 0 && value <= NUMBER[name] ? value : standard;
    };
    const real = (name, low, high) => {
      const value = Number(q.get(name));
      return q.has(name) && q.get(name) !== "" && value >= low && value <= high ? value : DEFAULTS[name];
    };
    const listed = (name, ok) => {
      try {
        const value = JSON.parse(q.get(name));
        return Array.isArray(value) && value.every(ok) ? value.slice(0, 100) : [];
      } catch {
        return [];
      }
    };
    if (["sample", "seeds", "truncation", "sheet", "walk", "project"].includes(q.get("view"))) next.view = q.get("view");
    next.label = whole("label", 0);
    if (q.has("other") && /^\d{1,6}$/.test(q.get("other"))) next.other = Number(q.get("other"));
    next.mix = real("mix", 0, 1);
    next.seed = whole("seed", 0);
    next.psi = real("psi", 0, 1);
    next.directions = listed("directions", (a) => a === null || (typeof a === "number" && Math.abs(a) <= 20)).map((a) => a ?? 0);
    if (/^[A-Za-z0-9+/]+=*$/.test(q.get("w") ?? "")) next.w = q.get("w");
    next.of = whole("of", 0);
    next.stage = whole("stage", null);
    if (q.get("scale") === "x") next.scale = "x";
    next.points = listed("points", (p) => p !== null && typeof p === "object");
    next.seconds = real("seconds", 0.1, 30);
    next.loop = q.get("loop") !== "false";
    return next;
  }
}
