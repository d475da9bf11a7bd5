// The form at the side: it writes the state, and shows it.

import { $, button, element } from "./dom.js";

export class Controls {
  constructor(state, about, actions) {
    this.state = state;
    this.actions = actions;
    for (const id of ["label", "other"]) {
      const field = $(id);
      field.addEventListener("input", () => this.classChosen(field, false));
      field.addEventListener("change", () => this.classChosen(field, true));
      field.addEventListener("focus", () => field.select());
    }
    for (const id of ["mix", "psi"]) $(id).addEventListener("input", (e) => state.set({ [id]: Number(e.target.value) }));
    $("seed").addEventListener("input", (e) => {
      const seed = Number(e.target.value);
      const fits = e.target.value !== "" && Number.isSafeInteger(seed) && seed >= 0 && seed < this.seeds;
      e.target.setAttribute("aria-invalid", String(!fits));
      if (fits) state.set({ seed, w: null });
    });
    $("previous").onclick = () => this.step(-1);
    $("next").onclick = () => this.step(1);
    $("random").onclick = () => state.set({ seed: Math.floor(Math.random() * Math.min(this.seeds, 1e6)), w: null });
    $("leave").onclick = () => state.set({ w: null });
    $("straight").onclick = () => state.set({ directions: [] });
    for (const id of ["save-png", "save-style", "copy-link", "copy-python", "copy-command"]) $(id).onclick = () => actions[id]();
    $("controls").addEventListener("submit", (e) => e.preventDefault());
    this.about(about);
    state.addEventListener("change", () => this.show());
  }

  // Takes what the models are: classes and directions are those of the first.
  about(about) {
    const first = about.models[0];
    this.classes = first.classes;
    this.seeds = about.seeds ?? Number.MAX_SAFE_INTEGER;
    $("seed").max = this.seeds - 1;
    $("classes").replaceChildren(...this.classes.map((name) => element("option", { value: name })));
    for (const id of ["label", "other"]) $(id).disabled = this.classes.length < 2;
    this.kept = `catgan directions ${first.fingerprint}`;
    this.names = remembered(this.kept);
    this.sliders = Array.from({ length: first.directions }, (_, i) => this.direction(i));
    $("directions-box").hidden = this.sliders.length === 0;
    $("directions").replaceChildren(...this.sliders.map((s) => s.row));
    this.show();
  }

  direction(i) {
    const name = element("input", { className: "name", value: this.names[i] ?? `${i + 1}`, maxLength: 40, spellcheck: false });
    name.setAttribute("aria-label", `Name of direction ${i + 1}`);
    name.onchange = () => {
      this.names[i] = name.value || undefined;
      name.value ||= `${i + 1}`;
      slider.setAttribute("aria-label", `Direction ${name.value}`);
      remember(this.kept, this.names);
    };
    const slider = element("input", { type: "range", min: -6, max: 6, step: 0.05 });
    slider.setAttribute("aria-label", `Direction ${name.value}`);
    slider.id = `direction-${i}`;
    const said = element("output", { for: slider.id });
    slider.oninput = () => {
      const directions = Array.from(this.sliders, (_, k) => this.state.directions[k] ?? 0);
      directions[i] = Number(slider.value);
      this.state.set({ directions });
    };
    slider.ondblclick = () => {
      slider.value = 0;
      slider.oninput();
    };
    return { slider, said, row: element("div", { className: "row" }, name, slider, said) };
  }

  // The number of a class that the field names: its name, the only one that begins so, or the number itself.
  found(text) {
    const wanted = text.trim().toLowerCase();
    const exact = this.classes.findIndex((name) => name.toLowerCase() === wanted);
    if (exact >= 0) return exact;
    if (/^\d+$/.test(wanted) && Number(wanted) < this.classes.length) return Number(wanted);
    const beginning = this.classes.flatMap((name, i) => (name.toLowerCase().startsWith(wanted) ? [i] : []));
    return beginning.length === 1 ? beginning[0] : -1;
  }

  classChosen(field, done) {
    const number = this.found(field.value);
    const empty = field.id === "other" && field.value.trim() === "";
    const exact = number >= 0 && this.classes[number].toLowerCase() === field.value.trim().toLowerCase();
    field.setAttribute("aria-invalid", String(done && number < 0 && !empty));
    if (empty) this.state.set({ other: null });
    else if (number >= 0 && (done || exact)) this.state.set({ [field.id]: number });
  }

  step(by) {
    this.state.set({ seed: Math.min(Math.max(0, this.state.seed + by), this.seeds - 1), w: null });
  }

  show() {
    const s = this.state;
    const put = (id, value) => {
      const field = $(id);
      if (document.activeElement !== field || field.type === "range") field.value = value;
      const said = document.querySelector(`output[for=${id}]`);
      if (said) said.textContent = Number(value).toFixed(2);
    };
    put("label", this.classes[s.label] ?? s.label);
    put("other", s.other === null ? "" : (this.classes[s.other] ?? s.other));
    put("mix", s.mix);
    put("seed", s.seed);
    put("psi", s.psi);
    $("mix-row").hidden = s.other === null;
    $("seed-row").hidden = s.w !== null;
    $("given-row").hidden = s.w === null;
    this.sliders.forEach(({ slider, said }, i) => {
      slider.value = s.directions[i] ?? 0;
      said.textContent = (s.directions[i] ?? 0).toFixed(1);
    });
    if (s.directions.some((a) => a)) $("directions-box").open = true;
  }
}

// What this browser keeps, if it keeps anything.
function remembered(key) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    return {};
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // private windows may refuse
  }
}
