// Pictures from the server of `catgan studio`, through one WebSocket. Of each panel and model one request is on its way, and the
// latest of those that came meanwhile follows; so a drag is as fast as pictures come, and never late.

import { fromBase64 } from "./picture.js";

export class ServerEngine extends EventTarget {
  constructor() {
    super();
    this.underway = new Map(); // key: { id, request, done, failed, since, next }
    this.number = 0;
    this.wait = 250;
    this.connect();
  }

  connect() {
    const address = new URL("pictures", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.hash = "";
    address.search = "";
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = async () => {
      this.wait = 250;
      if (this.lost) this.dispatchEvent(new CustomEvent("models", { detail: await (await fetch("models.json")).json() }));
      this.lost = false;
      this.dispatchEvent(new Event("open"));
    };
    this.socket.onmessage = (event) => this.received(event.data);
    this.socket.onclose = () => {
      this.lost = true;
      this.underway.clear();
      this.dispatchEvent(new Event("lost"));
      setTimeout(() => this.connect(), this.wait);
      this.wait = Math.min(2 * this.wait, 5000);
    };
  }

  // Asks for pictures; `done` gets the answer, unless a later request of the same panel and model replaces it.
  ask(request, done, failed) {
    const key = `${request.panel} ${request.model}`;
    const wanted = { request, done, failed };
    const current = this.underway.get(key);
    if (current && performance.now() - current.since < 10_000) current.next = wanted;
    else this.send(key, wanted);
  }

  send(key, wanted) {
    if (this.socket.readyState !== WebSocket.OPEN) return; // when it opens again, the page asks anew
    const id = this.number++;
    this.underway.set(key, { ...wanted, id, since: performance.now(), next: null });
    this.socket.send(JSON.stringify({ ...wanted.request, id }));
  }

  received(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.models) this.dispatchEvent(new CustomEvent("models", { detail: message }));
      else if (message.id !== undefined) this.finished(message.panel, message.model, message.id, message.error);
      else this.refused(message.error);
      return;
    }
    const length = new DataView(data).getUint32(0, true);
    const answer = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    let start = 4 + length;
    const parts = {};
    for (const { name, shape, type } of answer.parts) {
      const size = shape.reduce((a, b) => a * b, 1);
      parts[name] = { shape, data: type === "float32" ? new Float32Array(data, start, size) : new Uint8Array(data, start, size) };
      start += size * (type === "float32" ? 4 : 1);
    }
    this.finished(answer.panel, answer.model, answer.id, null, { ...answer, parts });
  }

  finished(panel, model, id, error, answer) {
    const key = `${panel} ${model}`;
    const current = this.underway.get(key);
    if (!current || current.id !== id) return;
    this.underway.delete(key);
    if (current.next) this.send(key, current.next);
    if (error) current.failed(error);
    else current.done(answer, performance.now() - current.since);
  }

  // The studio could not even tell whose request it refuses.
  refused(error) {
    const waiting = [...this.underway.values()];
    this.underway.clear();
    for (const { failed } of waiting) failed(error);
  }

  // Projects a picture file; `tell` gets { target }, { done, total, picture }, { waiting }. Returns the result.
  async project(model, file, steps, tell, signal) {
    const answer = await fetch(`project?model=${model}&steps=${steps}`, { method: "POST", body: file, signal });
    if (!answer.ok) throw new Error(await reason(answer));
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the studio stopped before it was done");
      text += value;
      const lines = text.split("\n");
      text = lines.pop();
      for (const line of lines.map((l) => JSON.parse(l))) {
        if (line.error) throw new Error(line.error);
        for (const found of [line, line.result ?? {}])
          for (const name of ["picture", "target"]) if (found[name]) found[name] = unpacked(found[name]);
        if (line.result) return line.result;
        tell(line);
      }
    }
  }

  async film(request) {
    const answer = await fetch("film", { method: "POST", body: JSON.stringify(request) });
    if (!answer.ok) throw new Error(await reason(answer));
    return answer.blob();
  }
}

function unpacked({ shape: [height, width, channels], pixels }) {
  return { pixels: fromBase64(pixels), height, width, channels };
}

async function reason(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error;
  } catch {
    return text.slice(0, 200);
  }
}
