// Nine weights to change, and the map that they make of a digit.

import { announcer, choice, field, grey, make, paint, pixels, signed, written } from "./ui.js";

const SIDE = 28;
const OUT = SIDE - 2;
const STEP = 0.25;
const LARGEST = 9;
const DRAG = 10; // pixels of the pointer for one step

/** The sum of nine products at every place: 26 x 26 of an image of 28 x 28. */
export function convolve(image, weights) {
  const map = new Float64Array(OUT * OUT);
  for (let row = 0; row < OUT; row++) {
    for (let column = 0; column < OUT; column++) {
      let sum = 0;
      for (let i = 0; i < 9; i++) sum += weights[i] * image[(row + Math.floor(i / 3)) * SIDE + column + (i % 3)];
      map[row * OUT + column] = sum;
    }
  }
  return map;
}

export function mount(element, data) {
  const images = data.digits.map((digit) => Float64Array.from(pixels(digit.pixels), (value) => value / 255));
  let image = images[data.start];
  let weights = [...data.presets[0].weights];
  let map = convolve(image, weights);
  let at = [10, 5];
  let relu = false;

  const said = announcer();
  const digit = field({ rows: SIDE, label: "The digit. Arrow keys move the kernel.",
    onPlace: (row, column) => move(row - 1, column - 1) });
  const result = field({ rows: OUT, label: "The map. Arrow keys move the kernel.", onPlace: move });
  const cells = weights.map((_, i) => cell(i));
  const sum = make("p", { class: "live-readout" });
  const even = make("p", { class: "live-note" });

  const chooseDigit = choice("Digit", data.digits.map((each) => String(each.label)), (index) => {
    image = images[index];
    digit.paint(image, grey(1));
    update();
  });
  chooseDigit.list.selectedIndex = data.start;
  const cut = make("input", { type: "checkbox", onchange: () => { relu = cut.checked; update(); } });

  function cell(i) {
    const row = Math.floor(i / 3);
    const input = make("input", { type: "text", role: "spinbutton", autocomplete: "off", "aria-valuemin": -LARGEST,
      "aria-valuemax": LARGEST, "aria-label": `Weight in row ${row}, column ${i % 3}` });
    const pixel = make("span", { class: "live-pixel" });
    const box = make("div", { class: "live-weight" }, input, pixel);
    let drag = null;
    const set = (value) => {
      weights[i] = Math.min(Math.max(Math.round(100 * value) / 100, -LARGEST), LARGEST);
      update();
    };
    const keys = { ArrowUp: STEP, ArrowDown: -STEP, PageUp: 1, PageDown: -1 };
    input.addEventListener("keydown", (event) => {
      if (!(event.key in keys)) return;
      event.preventDefault();
      set(weights[i] + keys[event.key]);
    });
    input.addEventListener("change", () => {
      const typed = Number(input.value.trim().replace("−", "-").replace(",", "."));
      if (input.value.trim() && Number.isFinite(typed)) set(typed);
      else update(); // what is no number leaves the weight as it was
    });
    input.addEventListener("pointerdown", (event) => { drag = { y: event.clientY, value: weights[i], moved: false }; });
    input.addEventListener("pointermove", (event) => {
      if (!drag || !(event.buttons & 1)) return;
      const steps = Math.round((drag.y - event.clientY) / DRAG);
      if (!drag.moved && !steps) return;
      drag.moved = true;
      input.setPointerCapture(event.pointerId);
      set(drag.value + STEP * steps);
    });
    for (const end of ["pointerup", "pointercancel"]) input.addEventListener(end, () => { drag = null; });
    return { box, input, pixel };
  }

  function thumbnail(preset, caption) {
    const canvas = make("canvas", { width: 3, height: 3 });
    paint(canvas, preset.weights, signed(Math.max(...preset.weights.map(Math.abs))));
    return make("button", { type: "button", class: "live-thumb", "aria-label": `Kernel: ${preset.name}`, onclick: () => {
      weights = [...preset.weights];
      update();
    } }, canvas, make("span", { "aria-hidden": "true" }, caption));
  }

  function move(row, column) {
    at = [row, column].map((value) => Math.min(Math.max(value, 0), OUT - 1));
    digit.place(at[0] + 1, at[1] + 1);
    result.place(...at);
    look();
  }

  function look() {
    const [row, column] = at;
    const region = { top: row, left: column, rows: 3, columns: 3 };
    digit.frame("chosen", region);
    result.frame("chosen", { top: row, left: column, rows: 1, columns: 1 });
    cells.forEach((each, i) => {
      each.pixel.textContent = `× ${written(image[(row + Math.floor(i / 3)) * SIDE + column + (i % 3)])}`;
    });
    const value = map[row * OUT + column];
    const after = relu ? `, after ReLU ${written(Math.max(value, 0))}` : "";
    sum.textContent = `Rows ${row} to ${row + 2}, columns ${column} to ${column + 2}: the nine products sum to ${
      written(value)}${after}.`;
    said.say(sum.textContent);
  }

  function update() {
    map = convolve(image, weights);
    const shown = relu ? map.map((value) => Math.max(value, 0)) : map;
    result.paint(shown, signed(Math.max(...map.map(Math.abs))));
    cells.forEach(({ box, input }, i) => {
      input.value = written(weights[i]);
      input.setAttribute("aria-valuenow", weights[i]);
      box.style.setProperty("--share", `${weights[i] && Math.min(8 + 20 * Math.abs(weights[i]), 45)}%`);
      box.dataset.sign = Math.sign(weights[i]);
    });
    const total = weights.reduce((a, b) => a + b, 0);
    even.textContent = Math.abs(total) < 0.005
      ? "The nine weights sum to 0.00: on an even area, black or white, the map is 0."
      : `The nine weights sum to ${written(total)}: on an even white area, the map is ${written(total)}.`;
    look();
  }

  element.append(
    make("div", { class: "live-kernel" },
      make("div", { class: "live-part live-kernel-digit" }, make("div", { class: "live-title" }, "the digit, 28 × 28"), digit.element),
      make("div", { class: "live-part live-kernel-weights" }, make("div", { class: "live-title" }, "the kernel: weight × pixel"),
        make("div", { class: "live-weights", role: "group", "aria-label": "Nine weights" }, ...cells.map((each) => each.box))),
      make("div", { class: "live-part live-kernel-map" }, make("div", { class: "live-title" }, "the map, 26 × 26"), result.element)),
    sum, even,
    make("div", { class: "live-row" }, chooseDigit.element,
      make("label", { class: "live-choice" }, cut, make("span", {}, "ReLU: negative sums become 0"))),
    make("div", { class: "live-thumbs", role: "group", "aria-label": "Kernels made by hand" },
      ...data.presets.map((preset) => thumbnail(preset, preset.name))),
    make("div", { class: "live-title" }, data.learned_by),
    make("div", { class: "live-thumbs", role: "group", "aria-label": data.learned_by },
      ...data.learned.map((preset, i) => thumbnail(preset, String(i)))),
    make("p", { class: "live-note" }, "In the map, bright is positive, mid-grey is 0, dark is negative."),
    said.element);
  digit.paint(image, grey(1));
  update();
  move(...at);
  return { map: () => map, weights: () => weights };
}
