// Strokes made into an image as MNIST's were: the same steps as draw.prepare in Python, in mnist_helpers/course/draw.py.

const SIZE = 280; // of the canvas
const PEN = 30; // width of a line, once all drawings have one size
const SHARPER = 4; // drawn so many times larger, then reduced
const LONGER_SIDE = 200; // to which every drawing is brought
const MOST_ENLARGED = 4; // so that a dot stays one
const MOST_POINTS = 2000;

/** The strokes as pairs of numbers on the canvas, without those that are none, and not too many. */
export function cleaned(strokes) {
  const every = (list, step) => list.filter((_, i) => i % step === 0);
  const clamp = (value) => Math.min(Math.max(value, 0), SIZE);
  let kept = strokes.filter((stroke) => Array.isArray(stroke) && stroke.length);
  kept = every(kept, Math.ceil(kept.length / MOST_POINTS) || 1);
  const step = Math.ceil(kept.reduce((sum, stroke) => sum + stroke.length, 0) / MOST_POINTS) || 1;
  return kept
    .map((stroke) => (step > 1 ? [...every(stroke, step), stroke.at(-1)] : stroke)
      .filter((point) => Array.isArray(point) && point.length === 2 && point.every(Number.isFinite))
      .map(([x, y]) => [clamp(x), clamp(y)]))
    .filter((stroke) => stroke.length);
}

/** Left, top, right and bottom of cleaned strokes. */
export function extent(strokes) {
  const points = strokes.flat();
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

function sameSize(strokes) {
  const [left, top, right, bottom] = extent(strokes);
  const zoom = Math.min(MOST_ENLARGED, LONGER_SIDE / Math.max(right - left, bottom - top, 1));
  return strokes.map((stroke) => stroke.map(([x, y]) => [SIZE / 2 + zoom * (x - (left + right) / 2),
    SIZE / 2 + zoom * (y - (top + bottom) / 2)]));
}

// What is nearer to a line than half the pen is inked; a pixel is the share of its 4 by 4 parts that are.
function rasterize(strokes) {
  const side = SIZE * SHARPER;
  const radius = (PEN * SHARPER + 1) / 2; // half a part more, as the lines of PIL have
  const ink = new Uint8Array(side * side);
  const within = (value) => Math.min(Math.max(value, 0), side - 1);
  for (const stroke of strokes) {
    for (let i = 0; i < stroke.length; i++) {
      const [[ax, ay], [bx, by]] = [stroke[Math.max(i - 1, 0)], stroke[i]].map((point) => point.map((each) => each * SHARPER));
      const [dx, dy] = [bx - ax, by - ay];
      const length = dx * dx + dy * dy;
      for (let y = within(Math.ceil(Math.min(ay, by) - radius)); y <= within(Math.floor(Math.max(ay, by) + radius)); y++) {
        for (let x = within(Math.ceil(Math.min(ax, bx) - radius)); x <= within(Math.floor(Math.max(ax, bx) + radius)); x++) {
          const along = length ? Math.min(Math.max(((x - ax) * dx + (y - ay) * dy) / length, 0), 1) : 0;
          if ((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2 <= radius * radius) ink[y * side + x] = 1;
        }
      }
    }
  }
  const picture = new Float64Array(SIZE * SIZE);
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) picture[(y >> 2) * SIZE + (x >> 2)] += ink[y * side + x];
  }
  return picture.map((count) => Math.round((255 * count) / SHARPER ** 2));
}

// The weights of bilinear interpolation with anti-aliasing: which of `given` pixels make each of `made`.
function triangle(given, made) {
  const scale = given / made;
  const reach = Math.max(scale, 1);
  return Array.from({ length: made }, (_, i) => {
    const centre = scale * (i + 0.5);
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), given);
    const weights = Array.from({ length: end - first }, (_, j) => Math.max(0, 1 - Math.abs((j + first - centre + 0.5) / reach)));
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

// To even numbers at halves, as Python and PyTorch round.
function rounded(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

/** An image of 28 by 28, 0 to 255, like those of MNIST; null if nothing is drawn. */
export function prepare(strokes) {
  const clean = cleaned(strokes);
  if (!clean.length) return null;
  const picture = rasterize(sameSize(clean));
  let [left, top, right, bottom] = [SIZE, SIZE, -1, -1];
  picture.forEach((value, i) => {
    if (!value) return;
    const [x, y] = [i % SIZE, Math.floor(i / SIZE)];
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
  });
  const [width, height] = [right - left + 1, bottom - top + 1];
  const longer = Math.max(width, height);
  const [columns, rows] = [width, height].map((each) => Math.max(1, rounded((each * 20) / longer)));
  const [across, down] = [triangle(width, columns), triangle(height, rows)];
  const box = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      down[row].weights.forEach((tall, y) => across[column].weights.forEach((wide, x) => {
        box[row * columns + column] += tall * wide * picture[(top + down[row].first + y) * SIZE + left + across[column].first + x];
      }));
    }
  }
  const brightest = Math.max(...box);
  const grey = box.map((value) => rounded((value / brightest) * 255));
  // The centre of mass comes to pixel (14, 14), by whole pixels and never over the edge.
  const mass = grey.reduce((a, b) => a + b);
  const corner = (side, at) => Math.min(Math.max(0, rounded(14 - grey.reduce((sum, value, i) => sum + value * at(i), 0) / mass)), 28 - side);
  const [first, start] = [corner(rows, (i) => Math.floor(i / columns)), corner(columns, (i) => i % columns)];
  const page = new Uint8Array(784);
  grey.forEach((value, i) => { page[(first + Math.floor(i / columns)) * 28 + start + (i % columns)] = value; });
  return page;
}
