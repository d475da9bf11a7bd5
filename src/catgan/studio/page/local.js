// Pictures without a server: the models in ONNX, computed in this page by ONNX Runtime Web. It answers as the server does.

import { fromBase64 } from "./picture.js";

const MEASURES = ["delta", "floor", "excess", "R", "A"];

export class LocalEngine extends EventTarget {
  static async load(about) {
    const ort = await import(new URL(`runtime/${about.runtime}`, location.href).href);
    ort.env.wasm.wasmPaths = new URL("runtime/", location.href).href;
    if (!crossOriginIsolated) ort.env.wasm.numThreads = 1; // several need shared memory, which needs two headers
    const providers = about.webgpu && navigator.gpu ? ["webgpu", "wasm"] : ["wasm"];
    const models = [];
    for (let i = 0; i < about.models.length; i++) models.push(await Model.load(ort, about, i, providers));
    return new LocalEngine(models);
  }

  constructor(models) {
    super();
    this.models = models;
    this.wanted = new Map(); // by panel and model: the latest request
    this.working = false;
    setTimeout(() => this.dispatchEvent(new Event("open"))); // when somebody listens
  }

  ask(request, done, failed) {
    this.wanted.set(`${request.panel} ${request.model}`, { request, done, failed, since: performance.now() });
    if (!this.working) this.work();
  }

  // One after the other; between two the browser draws.
  async work() {
    this.working = true;
    while (this.wanted.size) {
      const [key, { request, done, failed, since }] = this.wanted.entries().next().value;
      this.wanted.delete(key);
      try {
        done(await this.models[request.model].answer(request), performance.now() - since);
      } catch (error) {
        failed(error.message);
      }
    }
    this.working = false;
  }
}

class Model {
  static async load(ort, about, number, providers) {
    const file = async (name) => {
      const answer = await fetch(`${number}/${name}`);
      if (!answer.ok) throw new Error(`${number}/${name} is missing from this page's folder`);
      return answer.arrayBuffer();
    };
    const model = new Model();
    Object.assign(model, { ort, about: about.models[number], seeds: about.seeds });
    const open = async (name) => ort.InferenceSession.create(await file(name), { executionProviders: providers });
    model.style = await open("style.onnx");
    model.explore = await open("explore.onnx");
    model.z = new Float32Array(await file("z.bin"));
    model.vectors = new Float32Array(fromBase64(model.about.vectors).buffer);
    return model;
  }

  // w of points (n, d), as `Model.styles` of the server has it.
  async styles(points) {
    const { ort, about, z } = this;
    const n = points.length;
    const d = about.width;
    for (const p of points) {
      if (!(p.seed < this.seeds) && !p.w) throw new Error(`seed is ${p.seed}: this page has seeds 0 to ${this.seeds - 1}`);
      for (const c of [p.label, p.other ?? p.label]) if (!(c < about.classes.length)) throw new Error(`class is ${c}: must be below ${about.classes.length}`);
    }
    const noise = new Float32Array(2 * n * about.z_dim);
    const labels = new BigInt64Array(2 * n);
    points.forEach((p, i) => {
      const row = z.subarray((p.w ? 0 : p.seed) * about.z_dim, ((p.w ? 0 : p.seed) + 1) * about.z_dim);
      for (const [k, label] of [[i, p.label], [n + i, p.other ?? p.label]]) {
        noise.set(row, k * about.z_dim);
        labels[k] = BigInt(label);
      }
    });
    const found = await this.style.run({ z: new ort.Tensor("float32", noise, [2 * n, about.z_dim]), y: new ort.Tensor("int64", labels, [2 * n]) });
    const [w, mean] = [found.full.data, found.class_mean.data];
    const made = new Float32Array(n * d);
    points.forEach((p, i) => {
      const given = p.w ? new Float32Array(fromBase64(p.w).buffer) : null;
      if (given && given.length !== d) throw new Error(`style has ${given.length} numbers: must be ${d}`);
      const mix = p.mix ?? 0;
      const psi = p.psi ?? 1;
      for (let j = 0; j < d; j++) {
        const [a, b] = [i * d + j, (n + i) * d + j];
        const first = given ? given[j] : w[a];
        const second = given ? given[j] + mean[b] - mean[a] : w[b];
        const mixed = first + mix * (second - first);
        const middle = mean[a] + mix * (mean[b] - mean[a]);
        made[a] = psi === 1 ? mixed : middle + psi * (mixed - middle);
        (p.directions ?? []).forEach((amount, k) => (made[a] += (amount ?? 0) * this.vectors[k * d + j]));
      }
    });
    return made;
  }

  async answer({ points, to, at = 0, stages, model, panel }) {
    const d = this.about.width;
    const ms = {};
    const began = performance.now();
    let w = await this.styles(to ? [...points, to] : points);
    if (to) w = w.subarray(0, d).map((a, j) => a + at * (w[d + j] - a));
    ms.style = performance.now() - began;
    const found = await this.explore.run({ w: new this.ort.Tensor("float32", w, [points.length, d]) });
    ms.generator = performance.now() - began - ms.style;
    const [K1, n, ...shape] = found.h.dims;
    const size = shape.reduce((a, b) => a * b, 1);
    const h = found.h.data;
    const parts = { w: { shape: [n, d], data: w }, images: { shape: [n, ...shape], data: h.subarray((K1 - 1) * n * size) } };
    const alignment = {};
    if (stages) {
      parts.h = { shape: [K1, ...shape], data: h };
      for (let k = 0; k < K1; k++) parts[`x${k}`] = { shape: found[`x${k}`].dims, data: found[`x${k}`].data };
      if (found.alignment) MEASURES.forEach((name, m) => (alignment[name] = Array.from(found.alignment.data.subarray(m * (K1 - 1), (m + 1) * (K1 - 1)))));
    }
    return { model, panel, step: this.about.step, alignment, ms, parts };
  }
}
