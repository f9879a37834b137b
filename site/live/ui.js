// What the explanations share: elements, pictures of numbers with a place to move, sliders and choices, announcements.

/** An element with attributes, listeners (`onclick: function`) and children, elements or text. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** The numbers of an image, 0 to 255, from base64. */
export const pixels = bytes;

/** Numbers from base64 of float32, little-endian. */
export function floats(text) {
  const view = new DataView(bytes(text).buffer);
  return Float64Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/** A number as people read it: `digits` decimals, a true minus sign, no minus before a zero. */
export function written(value, digits = 2) {
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

/** A share in percent; only what is none or all is written 0 % or 100 %. */
export function percent(part, whole) {
  const share = (100 * part) / whole;
  if (part > 0 && share < 0.5) return "under 1 %";
  if (part < whole && share >= 99.5) return "over 99 %";
  return `${Math.round(share)} %`;
}

/** Black to white for 0 to `top`. */
export const grey = (top = 255) => (value) => Array(3).fill(255 * Math.min(Math.max(value / top, 0), 1));

const SIGNED = [[45, 0, 75], [105, 75, 150], [150, 150, 150], [250, 180, 90], [255, 244, 214]];

/** Dark purple below 0, grey at 0, bright orange above: its lightness alone tells the sign and the size. */
export const signed = (limit) => (value) => {
  const at = 2 + 2 * Math.min(Math.max(value / (limit || 1), -1), 1);
  const low = Math.min(Math.floor(at), 3);
  return SIGNED[low].map((part, i) => part + (at - low) * (SIGNED[low + 1][i] - part));
};

/** Paint numbers, row by row, on a canvas of as many pixels. */
export function paint(canvas, values, palette) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, i) => image.data.set([...palette(value), 255], 4 * i));
  context.putImageData(image, 0, 0);
}

/**
 * A grid of numbers as a picture in which pointer, finger and arrow keys choose a place.
 * `onPlace(row, column)` is called with it; `frame(name, {top, left, rows, columns})` draws a named frame, or with null
 * takes it away.
 */
export function field({ rows, columns = rows, label, onPlace }) {
  const canvas = make("canvas", { width: columns, height: rows });
  const element = make("div", { class: "live-field", tabindex: 0, role: "application", "aria-label": label }, canvas);
  const frames = new Map();
  let at = [Math.floor(rows / 2), Math.floor(columns / 2)];
  const clamp = (value, end) => Math.min(Math.max(value, 0), end - 1);

  function choose(row, column) {
    at = [clamp(row, rows), clamp(column, columns)];
    onPlace(...at);
  }
  function point(event) {
    const box = canvas.getBoundingClientRect();
    choose(Math.floor(((event.clientY - box.top) / box.height) * rows),
           Math.floor(((event.clientX - box.left) / box.width) * columns));
  }
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  element.addEventListener("pointerdown", point);
  element.addEventListener("pointermove", (event) => event.pointerType !== "touch" && point(event));
  element.addEventListener("keydown", (event) => {
    if (!steps[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // or the page scrolls
    choose(at[0] + steps[event.key][0], at[1] + steps[event.key][1]);
  });
  element.addEventListener("focus", () => element.matches(":focus-visible") && choose(...at));
  return {
    element,
    paint: (values, palette) => paint(canvas, values, palette),
    place: (row, column) => { at = [clamp(row, rows), clamp(column, columns)]; },
    frame(name, region) {
      frames.get(name)?.remove();
      frames.delete(name);
      if (!region) return;
      const share = (value, whole) => `${(100 * value) / whole}%`;
      const made = make("div", { class: `live-frame live-frame-${name}` });
      Object.assign(made.style, { top: share(region.top, rows), left: share(region.left, columns),
        height: share(region.rows, rows), width: share(region.columns, columns) });
      frames.set(name, made);
      element.append(made);
    },
  };
}

/** A labelled list to choose from: `options` are texts, `onChoose(index)` hears. */
export function choice(label, options, onChoose) {
  const list = make("select", { onchange: () => onChoose(list.selectedIndex) },
    ...options.map((text) => make("option", {}, text)));
  return { element: make("label", { class: "live-choice" }, make("span", {}, label), list), list };
}

/** A labelled slider, whose value is shown as `told(value)`. */
export function slider(label, { min, max, step, value }, told, onSlide) {
  const shown = make("output", { class: "live-shown" });
  const input = make("input", { type: "range", min, max, step, value });
  function show() {
    shown.textContent = told(Number(input.value));
    input.setAttribute("aria-valuetext", shown.textContent);
  }
  input.addEventListener("input", () => { show(); onSlide(Number(input.value)); });
  show();
  return {
    element: make("label", { class: "live-slider" }, make("span", {}, label), input, shown),
    set(to) { input.value = to; show(); },
  };
}

/** A place for what a screen reader is told once the reader's hand rests. */
export function announcer() {
  const element = make("p", { class: "live-hidden", "aria-live": "polite" });
  let waiting;
  return {
    element,
    say(text) {
      clearTimeout(waiting);
      waiting = setTimeout(() => { element.textContent = text; }, 700);
    },
  };
}
