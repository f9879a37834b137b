// The lessons' networks in plain JavaScript: a reader of safetensors files, the layers, the forward pass. A map is
// {channels, side, values}, its values channel by channel and row by row.

/**
 * The tensors of a safetensors file, {name: {shape, values}}, float32. Throws an Error that says what is wrong with a
 * damaged file.
 */
export function readSafetensors(buffer) {
  const wrong = (what) => new Error(`the file is damaged: ${what}`);
  if (buffer.byteLength < 8) throw wrong("it is too short");
  const view = new DataView(buffer);
  const length = Number(view.getBigUint64(0, true));
  const start = 8 + length;
  if (start > buffer.byteLength) throw wrong("it ends in its header");
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  } catch {
    throw wrong("its header is not JSON");
  }
  const tensors = {};
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { dtype, shape, data_offsets: [from, to] = [] } = entry ?? {};
    const count = Array.isArray(shape) ? shape.reduce((product, side) => product * side, 1) : NaN;
    if (dtype !== "F32" || to - from !== 4 * count) throw wrong(`${name} is not float32 of its shape`);
    if (from < 0 || start + to > buffer.byteLength) throw wrong(`${name} is cut off`);
    const values = Float32Array.from({ length: count }, (_, i) => view.getFloat32(start + from + 4 * i, true));
    if (!values.every(Number.isFinite)) throw wrong(`${name} holds what is no number`);
    tensors[name] = { shape, values };
  }
  return tensors;
}

function tensor(weights, name) {
  if (!weights[name]) throw new Error(`the file is damaged: it lacks ${name}`);
  return weights[name];
}

function conv(map, { name, stride, padding }, weights) {
  const { shape: [made, given, kernel], values: weight } = tensor(weights, `${name}.weight`);
  const bias = tensor(weights, `${name}.bias`).values;
  if (given !== map.channels) throw new Error(`the file is damaged: ${name} does not fit the layer before it`);
  const side = Math.floor((map.side + 2 * padding - kernel) / stride) + 1;
  const values = new Float32Array(made * side * side);
  for (let out = 0; out < made; out++) {
    const to = out * side * side;
    values.fill(bias[out], to, to + side * side);
    for (let channel = 0; channel < given; channel++) {
      const from = channel * map.side * map.side;
      for (let y = 0; y < kernel; y++) {
        for (let x = 0; x < kernel; x++) {
          const w = weight[((out * given + channel) * kernel + y) * kernel + x];
          // The rows and columns whose pixel under this weight lies inside the map.
          const first = (at) => Math.max(0, Math.ceil((padding - at) / stride));
          const last = (at) => Math.min(side - 1, Math.floor((map.side - 1 + padding - at) / stride));
          for (let row = first(y); row <= last(y); row++) {
            const pixels = from + (row * stride + y - padding) * map.side + x - padding;
            const end = last(x);
            for (let column = first(x); column <= end; column++) {
              values[to + row * side + column] += w * map.values[pixels + column * stride];
            }
          }
        }
      }
    }
  }
  return { channels: made, side, values };
}

function norm(map, { name, eps }, weights) {
  const [weight, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"].map(
    (part) => tensor(weights, `${name}.${part}`).values);
  const area = map.side * map.side;
  const values = map.values.map((value, i) => {
    const channel = Math.floor(i / area);
    return ((value - mean[channel]) / Math.sqrt(variance[channel] + eps)) * weight[channel] + bias[channel];
  });
  return { ...map, values };
}

function pool(map, { size }) {
  const side = Math.floor(map.side / size);
  const values = new Float32Array(map.channels * side * side).fill(-Infinity);
  for (let channel = 0; channel < map.channels; channel++) {
    for (let row = 0; row < side * size; row++) {
      for (let column = 0; column < side * size; column++) {
        const at = (channel * side + Math.floor(row / size)) * side + Math.floor(column / size);
        values[at] = Math.max(values[at], map.values[(channel * map.side + row) * map.side + column]);
      }
    }
  }
  return { channels: map.channels, side, values };
}

function linear(map, { name }, weights) {
  const { shape: [made, given], values: weight } = tensor(weights, `${name}.weight`);
  if (given !== map.values.length) throw new Error(`the file is damaged: ${name} does not fit the layer before it`);
  const values = Float32Array.from(tensor(weights, `${name}.bias`).values, (bias, out) => {
    let sum = bias;
    for (let i = 0; i < given; i++) sum += weight[out * given + i] * map.values[i];
    return sum;
  });
  return { channels: made, side: 1, values };
}

const LAYERS = { conv, norm, pool, linear, relu: (map) => ({ ...map, values: map.values.map((value) => Math.max(value, 0)) }) };

/** The maps that a network makes of an image of 28 by 28 normalised pixels, a map for each layer; the last is the logits. */
export function forward(layers, weights, pixels) {
  const maps = [];
  let map = { channels: 1, side: 28, values: pixels };
  for (const layer of layers) {
    map = LAYERS[layer.kind](map, layer, weights);
    maps.push(map);
  }
  return maps;
}

/** The probabilities of logits. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
