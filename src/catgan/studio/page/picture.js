// Pixels to canvases and files.

// Draws uint8 pixels (height, width, 1 or 3) in their own size; style sheets make them large.
export function draw(canvas, { pixels, height, width, channels }) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  canvas.classList.toggle("smooth", width >= 128);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const to = image.data;
  for (let i = 0, j = 0; j < to.length; i += channels, j += 4) {
    to[j] = pixels[i];
    to[j + 1] = pixels[channels === 3 ? i + 1 : i];
    to[j + 2] = pixels[channels === 3 ? i + 2 : i];
    to[j + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// Picture number i of a part (n, height, width, channels) of an answer.
export function picture(part, i = 0) {
  const [, height, width, channels] = part.shape;
  const size = height * width * channels;
  return { pixels: part.data.subarray(i * size, (i + 1) * size), height, width, channels };
}

// The canvas as a PNG file with words in it (tEXt chunks after the header): what was made, and the link to it.
export async function png(canvas, words) {
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const header = 8 + 25; // signature, IHDR
  const chunks = Object.entries(words).map(([key, text]) => chunk("tEXt", latin(`${key}\0${text}`)));
  return new Blob([bytes.subarray(0, header), ...chunks, bytes.subarray(header)], { type: "image/png" });
}

function latin(text) {
  return Uint8Array.from(text, (c) => (c.charCodeAt(0) < 256 ? c.charCodeAt(0) : 63));
}

function chunk(type, data) {
  const made = new Uint8Array(12 + data.length);
  const view = new DataView(made.buffer);
  view.setUint32(0, data.length);
  made.set(latin(type), 4);
  made.set(data, 8);
  view.setUint32(8 + data.length, crc(made.subarray(4, 8 + data.length)));
  return made;
}

function crc(bytes) {
  let c = ~0;
  for (const b of bytes) {
    c ^= b;
    for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xedb88320 : c >>> 1;
  }
  return ~c >>> 0;
}

// Styles as a file of catgan: safetensors with the fingerprint of their generator.
export function styleFile(w, name, fingerprint) {
  const header = JSON.stringify({
    __metadata__: { catgan: JSON.stringify({ generator: fingerprint, names: [name] }) },
    w: { dtype: "F32", shape: [1, w.length], data_offsets: [0, 4 * w.length] },
  });
  const text = new TextEncoder().encode(header.padEnd(Math.ceil(header.length / 8) * 8));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setUint32(0, text.length, true);
  return new Blob([length, text, w], { type: "application/octet-stream" });
}

export function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
}
