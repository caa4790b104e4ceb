// Reads short text images in a browser, with a file of captcha-export and onnxruntime-web

// The Spec lies in the file, in an encoding of numbered fields (read/08_onnxfile explains it)
const METADATA = 14, KEY = 1, VALUE = 2;

function* fields(bytes) {
  let at = 0;
  const number = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = number();
    if (key % 8 === 0) number();                       // a version: nothing we need
    else {
      const end = number() + at;
      yield [Math.floor(key / 8), bytes.subarray(at, end)];
      at = end;
    }
  }
}

export function specOf(model) {
  for (const [field, entry] of fields(model)) {
    if (field !== METADATA) continue;
    const pair = Object.fromEntries(fields(entry));
    const text = bytes => new TextDecoder().decode(bytes);
    if (text(pair[KEY]) === 'spec') return JSON.parse(text(pair[VALUE]));
  }
  throw new Error('holds no captcha_fastai model');
}

// An image as rows of grey or coloured pixels, on white
function pixels(image, channels) {
  const canvas = document.createElement('canvas');
  canvas.width = image.naturalWidth ?? image.width;
  canvas.height = image.naturalHeight ?? image.height;
  const context = canvas.getContext('2d');
  context.fillStyle = 'white';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const at = (i, c) => rgba[4*i + c];
  const grey = i => Math.round(.299*at(i, 0) + .587*at(i, 1) + .114*at(i, 2));
  const value = channels === 1 ? grey : at;
  const plane = c => Array.from({length: canvas.height}, (_, y) =>
    Float32Array.from({length: canvas.width}, (_, x) => value(y*canvas.width + x, c)));
  return Array.from({length: channels}, (_, c) => plane(c));
}

// Rows in another length, as Pillow does it: every pixel within reach counts, the nearest most
export function resized(rows, to) {
  const from = rows[0].length, ratio = from/to, reach = Math.max(1, ratio);
  if (from === to) return rows;
  const parts = Array.from({length: to}, (_, i) => {
    const centre = (i + .5)*ratio;
    const first = Math.max(0, Math.trunc(centre - reach + .5)), end = Math.min(from, Math.trunc(centre + reach + .5));
    const weights = Array.from({length: end - first}, (_, k) => Math.max(0, 1 - Math.abs(first + k - centre + .5)/reach));
    const sum = weights.reduce((a, b) => a + b);
    return {first, weights: weights.map(w => w/sum)};
  });
  return rows.map(row => Float32Array.from(parts, p => Math.round(p.weights.reduce((a, w, k) => a + w*row[p.first + k], 0))));
}

export const turned = rows => Array.from(rows[0], (_, x) => Float32Array.from(rows, row => row[x]));

export function prepared(image, spec) {
  const planes = pixels(image, spec.channels).map(rows => turned(resized(turned(resized(rows, spec.width)), spec.height)));
  const flat = planes.flatMap(rows => rows.flatMap(row => Array.from(row, o => (o/255 - spec.mean)/spec.std)));
  return Float32Array.from(flat);
}

// The most likely symbol of each step; for CTC a symbol that is repeated counts once
export function decoded(logp, spec) {
  const symbols = ['', ...spec.chars], n = symbols.length;
  let text = '', confidence = 1, before = 0;
  for (let step = 0; step < logp.length/n; step++) {
    const p = Array.from(logp.slice(step*n, (step + 1)*n), o => Math.exp(o/spec.temperature));
    const best = p.indexOf(Math.max(...p));
    confidence *= p[best]/p.reduce((a, b) => a + b);
    if (spec.decoder === 'heads' || best !== before) text += symbols[best];
    before = best;
  }
  return {text, confidence, accepted: confidence >= spec.threshold};
}

export async function openReader(model, ort) {
  const spec = specOf(model);
  if (spec.rows > 1 || spec.rtl) throw new Error('reads one row, from left to right');
  const session = await ort.InferenceSession.create(model, {executionProviders: ['wasm']});
  return async image => {
    const input = new ort.Tensor('float32', prepared(image, spec), [1, spec.channels, spec.height, spec.width]);
    const {logp} = await session.run({image: input});
    return decoded(logp.data, spec);
  };
}
