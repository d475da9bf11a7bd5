// The views. Each asks the engine for the pictures of the state, for every model, and draws them as they come.
// A view has `show(article, model, number)`, which builds what a model gets, and `refresh(number)`, which asks anew.

import { $, button, canvas, element } from "./dom.js";
import { download, draw, picture } from "./picture.js";

const SEEDS = 48; // of the view of seeds
const SHEET = 64; // of an uncurated sheet, from 0 on
const PSIS = Array.from({ length: 11 }, (_, i) => i / 10);

class View {
  constructor(studio) {
    this.studio = studio;
    this.state = studio.state;
    this.parts = []; // per model
  }

  // What belongs to all models, above them.
  head() {
    return [];
  }

  open(section) {
    this.parts = this.studio.models.map(() => ({}));
    const articles = this.studio.models.map((model, number) => {
      this.parts[number].title = element("h2", {}, ...this.title(model));
      const article = element("article", {}, this.parts[number].title);
      this.show(article, model, number);
      return article;
    });
    section.replaceChildren(...this.head(), element("div", { className: "side" }, ...articles));
    this.refreshAll();
  }

  title(model) {
    return [model.label, element("small", {}, ` ${model.recipe}, step ${model.step.toLocaleString("en")}`)];
  }

  // The same models at another step.
  renew() {
    this.studio.models.forEach((model, number) => this.parts[number].title.replaceChildren(...this.title(model)));
    this.refreshAll();
  }

  refreshAll() {
    this.studio.models.forEach((_, number) => this.refresh(number));
  }

  // The point for a model: a projected picture belongs to one of them alone.
  point(number) {
    const point = this.state.point;
    if (point.w !== undefined && this.state.of !== number) delete point.w;
    return point;
  }

  ask(number, request, done) {
    this.studio.ask({ model: number, ...request }, done);
  }

  words(number, point = this.state.point) {
    const classes = this.studio.models[number].classes;
    const mixed = point.other !== undefined ? ` and ${classes[point.other] ?? point.other}` : "";
    return `class ${classes[point.label] ?? point.label}${mixed}, ${point.w ? "projected picture" : `seed ${point.seed}`}, psi ${point.psi}`;
  }

  close() {}
}

export class SampleView extends View {
  show(article, model, number) {
    const part = this.parts[number];
    part.large = canvas();
    part.large.classList.add("large");
    const last = model.scales.length - 1;
    part.slider = element("input", { type: "range", min: 0, max: last, step: 1, oninput: () => this.state.set({ stage: Number(part.slider.value) }) });
    part.slider.setAttribute("aria-label", "Stage");
    part.slider.className = "stage";
    part.said = element("output");
    part.scale = button("", () => this.state.set({ scale: this.state.scale === "h" ? "x" : "h" }), { title: "h_k: the stage's output at full size; x_k: what the discriminator sees of it" });
    part.tiles = { h: [], x: [] };
    const strip = (kind) =>
      element(
        "div",
        { className: "strip" },
        ...model.scales.map((scale, k) => {
          const tile = canvas();
          const figure = element("figure", {}, button("", () => this.state.set({ stage: k, scale: kind }), { title: `${kind}_${k}` }), element("figcaption", {}, `${kind}${sub(k)}${kind === "x" ? ` ${scale}×${scale}` : ""}`));
          figure.firstChild.append(tile);
          part.tiles[kind].push({ tile, figure });
          return figure;
        }),
      );
    part.table = element("div");
    part.stages = element("details", { open: !model.latent, ontoggle: () => this.refresh(number) }, element("summary", {}, "Stages"), strip("h"), strip("x"), part.table);
    article.className = "sample";
    article.append(element("div", {}, part.large, element("div", { className: "scrub" }, part.said, part.slider, part.scale)), part.stages);
    if (last === 0) part.slider.disabled = true;
  }

  // Stages cost a decoder's work each where there is one: only if somebody looks at them.
  refresh(number) {
    const part = this.parts[number];
    const last = this.studio.models[number].scales.length - 1;
    const stages = part.stages.open || (this.state.stage ?? last) < last || this.state.scale === "x";
    this.ask(number, { panel: "sample", points: [this.point(number)], stages }, (answer) => this.draw(number, answer));
    this.mark(number);
  }

  mark(number) {
    const part = this.parts[number];
    const last = this.studio.models[number].scales.length - 1;
    const k = Math.min(this.state.stage ?? last, last);
    part.slider.value = k;
    part.said.textContent = `${this.state.scale}${sub(k)} of ${this.state.scale}${sub(last)}`;
    part.slider.setAttribute("aria-valuetext", `stage ${k} of ${last}`);
    part.scale.textContent = this.state.scale === "h" ? "show xₖ" : "show hₖ";
    for (const kind of ["h", "x"]) part.tiles[kind].forEach(({ figure }, i) => figure.classList.toggle("current", i === k && kind === this.state.scale));
    return k;
  }

  draw(number, answer) {
    const part = this.parts[number];
    const k = this.mark(number);
    const { parts, alignment } = answer;
    part.style = parts.w.data;
    const words = this.words(number);
    part.large.setAttribute("aria-label", `Sample: ${words}, ${this.state.scale}_${k}`);
    if (!parts.h) {
      draw(part.large, picture(parts.images));
      return;
    }
    draw(part.large, this.state.scale === "h" ? picture(parts.h, k) : picture(parts[`x${k}`]));
    part.tiles.h.forEach(({ tile }, i) => {
      draw(tile, picture(parts.h, i));
      draw(part.tiles.x[i].tile, picture(parts[`x${i}`]));
      tile.setAttribute("aria-label", `h_${i}`);
      part.tiles.x[i].tile.setAttribute("aria-label", `x_${i}`);
    });
    part.table.replaceChildren(table(alignment));
  }
}

const MEASURES = {
  delta: ["δ", "how far the stage is from the final image"],
  floor: ["floor", "the δ that its coarse resolution alone costs"],
  excess: ["excess", "δ beyond the floor"],
  R: ["R", "how much the next stage rewrites"],
  A: ["A", "whether it rewrites towards the final image: 1 exactly, 0 not at all"],
};

function table(alignment) {
  const measures = Object.keys(MEASURES).filter((m) => alignment[m]?.length);
  if (!measures.length) return element("p", { className: "hint" }, "One stage: there is nothing to compare.");
  const head = element("tr", {}, element("th", {}, "stage"), ...measures.map((m) => element("th", { scope: "col", title: MEASURES[m][1] }, MEASURES[m][0])));
  const rows = alignment[measures[0]].map((_, k) =>
    element("tr", {}, element("th", { scope: "row" }, String(k)), ...measures.map((m) => element("td", {}, alignment[m][k] === null ? "–" : alignment[m][k].toFixed(3)))),
  );
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

const sub = (k) => String(k).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);

// Many small pictures: points, a caption and an action for each.
class Tiles extends View {
  show(article, model, number) {
    const part = this.parts[number];
    part.tiles = this.listed(number).map(() => {
      const tile = canvas();
      const pressed = button("", () => this.chosen(part.points[part.tiles.findIndex((t) => t.tile === tile)]));
      pressed.append(tile);
      const caption = element("figcaption");
      return { tile, pressed, caption, figure: element("figure", {}, pressed, caption) };
    });
    article.append(element("div", { className: "tiles" }, ...part.tiles.map((t) => t.figure)));
  }

  refresh(number) {
    const part = this.parts[number];
    const listed = this.listed(number);
    part.points = listed.map(([point]) => point);
    part.tiles.forEach(({ tile, pressed, caption }, i) => {
      caption.textContent = listed[i][1];
      tile.setAttribute("aria-label", this.words(number, listed[i][0]));
      pressed.title = `Open ${this.words(number, listed[i][0])}`;
    });
    this.ask(number, { panel: this.panel, points: part.points }, (answer) => part.tiles.forEach(({ tile }, i) => draw(tile, picture(answer.parts.images, i))));
  }

  chosen(point) {
    this.state.set({ ...taken(point), view: "sample" });
  }
}

function taken(point) {
  return { label: point.label ?? 0, other: point.other ?? null, ...(point.other === undefined ? {} : { mix: point.mix }), seed: point.seed ?? 0, psi: point.psi ?? 1, directions: point.directions ?? [], w: point.w ?? null };
}

export class SeedsView extends Tiles {
  panel = "seeds";

  head() {
    return [
      element("div", { className: "choice" }, "Seeds with the settings of the sample. Click one to open it.", button("Earlier", () => this.turn(-SEEDS)), button("Later", () => this.turn(SEEDS))),
    ];
  }

  turn(by) {
    this.state.set({ seed: Math.max(0, Math.min(this.state.seed + by, this.studio.seeds - SEEDS)), w: null });
  }

  listed(number) {
    const { w: _, ...point } = this.point(number);
    const first = Math.max(0, Math.min(this.state.seed, this.studio.seeds - SEEDS));
    return Array.from({ length: SEEDS }, (_, i) => [{ ...point, seed: first + i }, String(first + i)]);
  }
}

export class TruncationView extends Tiles {
  panel = "truncation";

  head() {
    return [element("p", { className: "choice" }, "The sample at every truncation ψ, from the mean of its class (0) to none (1).")];
  }

  listed(number) {
    return PSIS.map((psi) => [{ ...this.point(number), psi }, `ψ ${psi.toFixed(1)}`]);
  }
}

export class SheetView extends Tiles {
  panel = "sheet";

  head() {
    return [element("p", { className: "choice" }, `Seeds 0 to ${SHEET - 1} of the class at this ψ, as they come: not selected, without directions.`)];
  }

  listed() {
    return Array.from({ length: SHEET }, (_, seed) => [{ label: this.state.label, psi: this.state.psi, seed }, String(seed)]);
  }
}

export class WalkView extends View {
  playing = false;
  at = 0; // in legs from the first point

  head() {
    this.play = button("Play", () => this.toggle(), { className: "main", title: "Space" });
    const seconds = element("input", { type: "number", min: 0.1, max: 30, step: 0.1, value: this.state.seconds });
    seconds.oninput = () => seconds.checkValidity() && this.state.set({ seconds: Number(seconds.value) });
    const loop = element("input", { type: "checkbox", checked: this.state.loop, onchange: () => this.state.set({ loop: loop.checked }) });
    this.position = element("input", { type: "range", min: 0, max: 1, step: "any", value: 0, oninput: () => this.seek(Number(this.position.value)) });
    this.position.setAttribute("aria-label", "Position on the walk");
    this.list = element("ol", { className: "points" });
    this.saves = element("span", { className: "buttons" }, ...this.studio.about.formats.map((format) => button(`Save ${{ gif: "GIF", webp: "WebP", mp4: "MP4" }[format]}`, () => this.save(format))));
    return [
      element("p", { className: "hint" }, "A walk goes in straight lines through key points in style space. Set up a sample at the side (class, seed, ψ, directions, your picture), then add it."),
      element("div", { className: "choice" }, this.play, button("Add key point", () => this.studio.addPoint(), { title: "K" }), element("label", {}, "seconds a leg", seconds), element("label", {}, loop, "loop"), this.saves),
      this.position,
      this.list,
    ];
  }

  show(article, model, number) {
    const part = this.parts[number];
    part.large = canvas("Walk");
    part.large.classList.add("large");
    article.append(part.large);
  }

  open(section) {
    if (!this.state.points.length) {
      const { seed, ...rest } = this.state.point;
      this.state.points = rest.w ? [this.state.point] : [0, 1, 2].map((i) => ({ ...rest, seed: Math.min(seed + i, this.studio.seeds - 1) }));
    }
    super.open(section);
    this.shown = "";
    this.tiles();
  }

  get legs() {
    const n = this.state.points.length;
    return n < 2 ? 0 : this.state.loop ? n : n - 1;
  }

  // The key points as small pictures, with what can be done to them; of the first model.
  tiles() {
    const points = this.state.points;
    const shown = JSON.stringify(points);
    this.play.disabled = this.legs === 0;
    for (const save of this.saves.children) save.disabled = this.legs === 0;
    this.position.max = Math.max(this.legs, 1e-9);
    if (shown === this.shown) return;
    this.shown = shown;
    const made = points.map((point, i) => {
      const tile = canvas(`Key point ${i + 1}: ${this.words(0, { psi: 1, ...point })}`);
      const opened = button("", () => this.state.set({ ...taken(point), view: "sample" }), { title: "Open" });
      opened.append(tile);
      const left = button("‹", () => this.swap(i, i - 1), { title: "Earlier", disabled: i === 0, "aria-label": `Key point ${i + 1} earlier` });
      const right = button("›", () => this.swap(i, i + 1), { title: "Later", disabled: i === points.length - 1, "aria-label": `Key point ${i + 1} later` });
      const away = button("×", () => this.state.set({ points: points.filter((_, k) => k !== i) }), { title: "Remove", "aria-label": `Remove key point ${i + 1}` });
      return { tile, item: element("li", {}, opened, element("div", { className: "buttons" }, left, right, away)) };
    });
    this.list.replaceChildren(...made.map((m) => m.item));
    if (points.length) this.ask(0, { panel: "seeds", points }, (answer) => points.length === made.length && made.forEach(({ tile }, i) => draw(tile, picture(answer.parts.images, i))));
  }

  swap(i, k) {
    const points = [...this.state.points];
    [points[i], points[k]] = [points[k], points[i]];
    this.state.set({ points });
  }

  refreshAll() {
    if (!this.play) return;
    this.tiles();
    if (!this.playing) super.refreshAll();
  }

  refresh(number, done = () => {}) {
    const points = this.state.points;
    if (!points.length) return;
    const leg = Math.min(Math.floor(this.at), Math.max(this.legs - 1, 0));
    const [from, to] = [points[leg % points.length], points[(leg + 1) % points.length]];
    const request = points.length > 1 ? { points: [from], to, at: Math.min(Math.max(this.at - leg, 0), 1) } : { points: [from] };
    this.ask(number, { panel: "walk", ...request }, (answer) => {
      draw(this.parts[number].large, picture(answer.parts.images));
      done();
    });
  }

  seek(at) {
    this.at = at;
    this.position.value = at;
    this.studio.models.forEach((_, number) => this.refresh(number));
  }

  toggle() {
    this.playing = !this.playing && this.legs > 0;
    this.play.textContent = this.playing ? "Stop" : "Play";
    if (this.playing && !this.state.loop && this.at >= this.legs) this.at = 0;
    this.before = performance.now();
    if (this.playing) requestAnimationFrame((now) => this.frame(now));
  }

  frame(now) {
    if (!this.playing) return;
    const legs = this.legs;
    let at = this.at + Math.max(0, now - this.before) / 1000 / this.state.seconds;
    this.before = now;
    if (at >= legs) {
      if (this.state.loop && legs) at %= legs;
      else {
        this.seek(legs);
        this.toggle();
        return;
      }
    }
    this.seek(at);
    requestAnimationFrame((later) => this.frame(later));
  }

  async save(format) {
    const { points, seconds, loop } = this.state;
    await this.studio.busy("making the film", async () => {
      for (let model = 0; model < this.studio.models.length; model++)
        download(await this.studio.engine.film({ points, model, seconds, loop, format }), `walk.${format}`);
    });
  }

  close() {
    if (this.playing) this.toggle();
  }
}

export class ProjectView extends View {
  result = null;

  head() {
    this.file = element("input", { type: "file", accept: "image/*", hidden: true, id: "file", onchange: () => this.file.files[0] && this.take(this.file.files[0]) });
    const { models } = this.studio;
    this.model = element("select", {}, ...models.map((m, i) => element("option", { value: i, selected: i === this.state.of }, m.label)));
    this.steps = element("select", {}, ...[[100, "quick"], [300, "as a rule"], [1000, "thorough"]].map(([n, name]) => element("option", { value: n, selected: n === 300 }, `${name} (${n} steps)`)));
    this.drop = element(
      "div",
      { className: "drop" },
      element("p", {}, "Drop a picture here, paste one, or ", button("choose a file", () => this.file.click()), "."),
      element("p", { className: "hint" }, "The generator looks for the nearest thing that it can make. It knows what it was trained on, and nothing else. The picture stays on the studio's machine, and is not kept."),
      this.file,
    );
    this.drop.ondragover = (e) => {
      e.preventDefault();
      this.drop.classList.add("over");
    };
    this.drop.ondragleave = () => this.drop.classList.remove("over");
    this.drop.ondrop = (e) => {
      e.preventDefault();
      this.drop.classList.remove("over");
      if (e.dataTransfer.files[0]) this.take(e.dataTransfer.files[0]);
    };
    this.bar = element("progress", { max: 1, value: 0 });
    this.bar.setAttribute("aria-label", "Projection");
    this.cancel = button("Cancel", () => this.stop?.abort());
    this.said = element("p", { role: "status", id: "projection" });
    this.edit = button("Edit it", () => this.take_over(), { className: "main" });
    this.picture = canvas("Your picture");
    this.found = canvas("What the generator makes of it");
    const figure = (tile, words) => element("figure", {}, tile, element("figcaption", {}, words));
    this.trio = element("div", { className: "trio" }, figure(this.picture, "your picture"), figure(this.found, "what the generator makes of it"));
    this.working = element("div", { className: "buttons" }, this.bar, this.cancel);
    this.trio.hidden = this.working.hidden = this.edit.hidden = true;
    return [this.drop, element("div", { className: "choice" }, ...(models.length > 1 ? [element("label", {}, "with", this.model)] : []), element("label", {}, "search", this.steps)), this.working, this.said, this.trio, this.edit];
  }

  show(article) {
    article.hidden = true;
  }

  refresh() {}

  async take(file) {
    this.stop?.abort();
    const stop = (this.stop = new AbortController());
    const model = Number(this.model.value);
    this.result = null;
    this.working.hidden = false;
    this.edit.hidden = this.trio.hidden = true;
    this.bar.removeAttribute("value");
    this.said.textContent = "sending";
    try {
      const result = await this.studio.engine.project(model, file, Number(this.steps.value), (line) => this.told(line), stop.signal);
      draw(this.found, result.picture);
      this.result = { ...result, of: model };
      const name = this.studio.models[model].classes[result.label] ?? result.label;
      const doubt = result.psnr < 20 ? " It merely resembles the picture." : result.psnr >= 30 ? " It is the picture." : "";
      this.said.textContent = `${result.psnr.toFixed(1)} dB from the picture; the search began at ${result.start_psnr.toFixed(1)} dB, class ${name}, seed ${result.seed}.${doubt}`;
      this.edit.hidden = false;
    } catch (error) {
      if (this.stop !== stop) return;
      this.said.textContent = error.name === "AbortError" ? "cancelled" : error.message;
    } finally {
      if (this.stop === stop) this.working.hidden = true;
    }
  }

  told(line) {
    if (line.waiting) this.said.textContent = `${line.waiting} before this one`;
    if (line.target) {
      draw(this.picture, line.target);
      this.said.textContent = "looking for where to start";
      draw(this.found, line.target);
      this.found.getContext("2d").clearRect(0, 0, this.found.width, this.found.height);
      this.trio.hidden = false;
    }
    if (line.picture) {
      draw(this.found, line.picture);
      this.bar.value = line.done / line.total;
      this.said.textContent = `step ${line.done} of ${line.total}`;
    }
  }

  take_over() {
    const { w, label, of } = this.result;
    this.state.set({ view: "sample", w, of, label, other: null, psi: 1, directions: [], stage: null, scale: "h" });
  }

  close() {
    this.stop?.abort();
  }
}
