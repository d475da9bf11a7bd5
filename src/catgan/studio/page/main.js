// Wires state, controls, views and an engine together. The engine is the studio's server, or the model itself in this page.

import { Controls } from "./controls.js";
import { $ } from "./dom.js";
import { download, png, styleFile } from "./picture.js";
import { State } from "./state.js";
import { ProjectView, SampleView, SeedsView, SheetView, TruncationView, WalkView } from "./views.js";

const VIEWS = { sample: SampleView, seeds: SeedsView, truncation: TruncationView, sheet: SheetView, walk: WalkView, project: ProjectView };

const MAX_POINTS = 100; // of a walk, as the protocol has it

class Studio {
  constructor(about, engine) {
    this.about = about;
    this.engine = engine;
    this.state = new State();
    Object.assign(this.state, this.state.read(location.hash));
    this.problems = new Map(); // what is wrong, by whom it concerns
    this.drawn = []; // times of the pictures of the last second
    this.controls = new Controls(this.state, about, {
      "save-png": () => this.savePNG(),
      "save-style": () => this.saveStyle(),
      "copy-link": () => this.copy(new URL(this.state.address(), location.href).href),
      "copy-python": () => this.copy(this.python()),
      "copy-command": () => this.copy(this.command()),
    });
    const kept = about.engine === "server" ? VIEWS : Object.fromEntries(Object.entries(VIEWS).filter(([name]) => name !== "project"));
    this.views = Object.fromEntries(Object.entries(kept).map(([name, kind]) => [name, new kind(this)]));
    for (const tab of document.querySelectorAll("#tabs button")) {
      tab.hidden = !(tab.dataset.view in this.views);
      tab.onclick = () => this.state.set({ view: tab.dataset.view });
    }
    this.state.addEventListener("change", (e) => this.changed(e.detail));
    addEventListener("hashchange", () => this.state.set(this.state.read(location.hash)));
    addEventListener("keydown", (e) => this.key(e));
    addEventListener("paste", (e) => this.pasted(e));
    $("tabs").addEventListener("keydown", (e) => this.tabKey(e));
    $("help-button").onclick = () => $("help").showModal();
    engine.addEventListener("open", () => this.connected());
    engine.addEventListener("lost", () => this.disconnected());
    engine.addEventListener("models", (e) => this.takeModels(e.detail));
    this.open();
  }

  // How many seeds there are.
  get seeds() {
    return this.controls.seeds;
  }

  get models() {
    return this.about.models;
  }

  // New checkpoints, or what a server has that was started anew. A view stays as it is, if it is still about the same models.
  takeModels(about) {
    const same = about.models.length === this.models.length && about.models.every((m, i) => m.label === this.models[i].label && m.recipe === this.models[i].recipe);
    this.about = about;
    this.controls.about(about);
    if (same) this.view.renew();
    else this.open();
  }

  connected() {
    $("status").textContent = this.about.following ? "connected, following" : this.about.engine === "server" ? "connected" : "in this page";
    $("status").className = "";
    this.open();
  }

  disconnected() {
    $("status").textContent = "no connection; trying again";
    $("status").className = "lost";
  }

  open() {
    if (!(this.state.view in this.views)) this.state.view = "sample";
    this.view?.close();
    this.view = this.views[this.state.view];
    this.opened = this.state.view;
    for (const tab of document.querySelectorAll("#tabs button")) {
      const selected = tab.dataset.view === this.opened;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      if (selected) $("view").setAttribute("aria-labelledby", tab.id);
    }
    $("models").textContent = this.models.map((m) => m.label).join(" · ");
    document.title = `${this.models.map((m) => m.label).join(", ")} – catgan studio`;
    this.view.open($("view"));
  }

  changed() {
    if (this.state.view !== this.opened) this.open();
    else this.view.refreshAll();
  }

  ask(request, done) {
    const view = this.view;
    this.engine.ask(
      request,
      (answer, took) => {
        if (view === this.view) done(answer);
        this.problem("", request.model);
        this.timed(answer, took);
      },
      (error) => this.problem(error, request.model),
    );
  }

  // Says what is wrong until it is no more: of a model by its number, or of what the user asked for.
  problem(text, whose = "user") {
    this.problems.set(whose, text);
    const said = [...new Set(this.problems.values())].filter((t) => t).join(" · ");
    if ($("problem").textContent === said) return;
    $("problem").textContent = said;
    $("problem").hidden = said === "";
  }

  // Pictures of the last second, and how long each part of this one took.
  timed(answer, took) {
    const now = performance.now();
    this.drawn = [...this.drawn.filter((t) => now - t < 1000), now];
    document.documentElement.dataset.pictures = String(Number(document.documentElement.dataset.pictures ?? 0) + 1);
    if (now - (this.told ?? 0) < 200) return;
    this.told = now;
    const parts = Object.entries(answer.ms).map(([part, ms]) => `${part} ${ms.toFixed(1)}`);
    $("speed").textContent = `${this.drawn.length > 1 ? `${this.drawn.length}/s · ` : ""}${took.toFixed(0)} ms`;
    $("speed").title = `pictures in the last second; the latest took ${took.toFixed(1)} ms: ${parts.join(", ")}`;
  }

  async busy(what, work) {
    const before = $("status").textContent;
    $("status").textContent = what;
    try {
      await work();
      this.problem("");
    } catch (error) {
      this.problem(error.message);
    } finally {
      $("status").textContent = before;
    }
  }

  // One canvas of what is in view.
  get canvas() {
    return document.querySelector("#view canvas.large") ?? document.querySelector("#view canvas");
  }

  async savePNG() {
    const { label, seed } = this.state;
    const model = this.models[0];
    const words = { Software: `catgan ${this.about.catgan}`, catgan: JSON.stringify({ model: model.label, recipe: model.recipe, step: model.step, generator: model.fingerprint, view: this.state.view, ...this.state.point }), link: this.state.address() };
    download(await png(this.canvas, words), `${model.label}-${model.classes[label] ?? label}-${this.state.w ? "projected" : seed}.png`.replaceAll(/[^\w.-]+/g, "-"));
  }

  saveStyle() {
    const model = this.state.w ? this.state.of : 0;
    this.engine.ask({ panel: "sample", model, points: [this.state.point] }, (answer) => download(styleFile(answer.parts.w.data, "studio", this.models[model].fingerprint), "style.safetensors"), (error) => this.problem(error));
  }

  // Whether class, seed and psi say all.
  get plain() {
    const { w, other, mix, directions } = this.state.point;
    return w === undefined && (other === undefined || mix === 0) && !directions;
  }

  python() {
    const { label, seed, psi } = this.state;
    const name = this.models[this.state.w ? this.state.of : 0].label;
    const load = `import catgan\n\npipe = catgan.load(${JSON.stringify(name)})\n`;
    if (this.plain) return `${load}pipe(classes=[${label}], seeds=[${seed}], psi=${psi}).images[0].save("sample.png")\n`;
    return `${load.replace("\n\n", "\nfrom catgan.sampling.styles import read_styles\n\n")}w, _ = read_styles("style.safetensors", pipe)  # "Save style" writes it\npipe(w=w).images[0].save("sample.png")\n`;
  }

  command() {
    const { label, seed, psi } = this.state;
    const name = this.models[this.state.w ? this.state.of : 0].label;
    const quoted = /^[\w./-]+$/.test(name) ? name : `'${name.replaceAll("'", "'\\''")}'`;
    if (this.plain) return `catgan sample ${quoted} --classes ${label} --seeds ${seed} --psi ${psi}`;
    return `catgan sample ${quoted} --styles style.safetensors`;
  }

  async copy(text) {
    $("copied").textContent = text;
    $("copied").hidden = false;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren($("copied")); // no right to the clipboard: it is there to be copied by hand
    }
  }

  key(e) {
    const typing = e.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (typing || e.ctrlKey || e.metaKey || e.altKey || $("help").open) return;
    const ranged = e.target.matches("input[type=range], [role=tab]");
    const { state, controls } = this;
    const last = this.models[0].scales.length - 1;
    const actions = {
      ArrowLeft: ranged ? null : () => controls.step(-1),
      ArrowRight: ranged ? null : () => controls.step(1),
      r: () => $("random").click(),
      "[": () => state.set({ psi: Math.max(0, Math.round(100 * state.psi - 5) / 100) }),
      "]": () => state.set({ psi: Math.min(1, Math.round(100 * state.psi + 5) / 100) }),
      ",": () => state.set({ stage: Math.max(0, (state.stage ?? last) - 1) }),
      ".": () => state.set({ stage: Math.min(last, (state.stage ?? last) + 1) }),
      k: () => this.addPoint(),
      " ": state.view === "walk" && !e.target.matches("button, summary, input") ? () => this.views.walk.toggle() : null,
      "?": () => $("help").showModal(),
    };
    const names = Object.keys(this.views);
    if (/^[1-6]$/.test(e.key) && names[e.key - 1]) actions[e.key] = () => state.set({ view: names[e.key - 1] });
    const action = actions[e.key.length === 1 ? e.key.toLowerCase() : e.key];
    if (!action) return;
    e.preventDefault();
    action();
  }

  addPoint() {
    if (this.state.points.length === MAX_POINTS) {
      this.problem(`the walk has ${MAX_POINTS} key points: remove one first`);
      return;
    }
    this.state.set({ points: [...this.state.points, this.state.point] });
    if (this.state.view !== "walk") {
      const n = this.state.points.length;
      this.busy(`${n} key point${n > 1 ? "s" : ""} in the walk`, () => new Promise((done) => setTimeout(done, 1500)));
    }
  }

  // Arrow keys between tabs, as the pattern for tabs has it.
  tabKey(e) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
    if (!by) return;
    const names = Object.keys(this.views);
    const view = names[(names.indexOf(this.state.view) + by + names.length) % names.length];
    e.preventDefault();
    this.state.set({ view });
    document.querySelector(`#tabs [data-view=${view}]`).focus();
  }

  pasted(e) {
    const file = [...(e.clipboardData?.files ?? [])].find((f) => f.type.startsWith("image/"));
    if (!file || !this.views.project) return;
    this.state.set({ view: "project" });
    this.views.project.take(file);
  }
}

async function start() {
  const about = await (await fetch("models.json")).json();
  const engine = about.engine === "server" ? new (await import("./server.js")).ServerEngine() : await (await import("./local.js")).LocalEngine.load(about);
  window.studio = new Studio(about, engine);
}

start().catch((error) => {
  $("status").textContent = "could not start";
  $("problem").textContent = error.message;
  $("problem").hidden = false;
});
