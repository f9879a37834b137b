// What ReLU keeps of activations that are shifted and scaled: without batch norm, and with it.

import { announcer, choice, field, floats, grey, make, percent, slider, written } from "./ui.js";

const BARS = 32;
const REACH = 8; // the axis goes from -8 to 8; what lies outside is counted in the last bar

/** Batch norm in training mode: the mean and the biased variance are those of these values. */
export function normalized(values, { weight, bias }, eps) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
  return values.map((value) => ((value - mean) / Math.sqrt(variance + eps)) * weight + bias);
}

export const kept = (values) => values.reduce((count, value) => count + (value > 0), 0);

export function mount(element, data) {
  const channels = data.channels.map((channel) => ({ ...channel, values: floats(channel.values) }));
  const size = data.side * data.side;
  const said = announcer();
  let [channel, digit, shift, scale] = [0, data.start, 0, 1];

  const panels = ["without batch norm", "with batch norm"].map((title) => {
    const bars = Array.from({ length: BARS }, (_, i) => make("div", { class: i < BARS / 2 ? "live-cut" : "live-kept" }));
    const share = make("p", { class: "live-share" });
    const picture = make("canvas", { width: data.side, height: data.side, role: "img" });
    const part = make("div", { class: "live-part" }, make("div", { class: "live-title" }, title), share,
      make("div", { class: "live-bars", "aria-hidden": "true" }, ...bars),
      make("div", { class: "live-axis", "aria-hidden": "true" }, make("span", {}, `−${REACH} or less`), make("span", {}, "0"),
        make("span", {}, `${REACH} or more`)),
      make("div", { class: "live-after" }, picture, make("span", { class: "live-note" }, "this channel's map after ReLU")));
    return { title, bars, share, picture, part };
  });

  function update() {
    const moved = channels[channel].values.map((value) => scale * value + shift);
    const outputs = [moved, normalized(moved, channels[channel], data.eps)];
    const told = panels.map((panel, i) => {
      const counts = new Array(BARS).fill(0);
      for (const value of outputs[i]) {
        const bar = Math.ceil(((value + REACH) / (2 * REACH)) * BARS) - 1; // 0 itself is cut: it ends the bars on the left
        counts[Math.min(Math.max(bar, 0), BARS - 1)] += 1;
      }
      // The root of a count: one full bar would otherwise flatten all the others.
      panel.bars.forEach((bar, at) => { bar.style.height = `${100 * Math.sqrt(counts[at] / outputs[i].length)}%`; });
      const map = outputs[i].slice(digit * size, (digit + 1) * size).map((value) => Math.max(value, 0));
      const context = panel.picture.getContext("2d");
      const image = context.createImageData(data.side, data.side);
      map.forEach((value, at) => image.data.set([...grey(data.white)(value), 255], 4 * at));
      context.putImageData(image, 0, 0);
      const share = percent(kept(outputs[i]), outputs[i].length);
      panel.share.textContent = `ReLU keeps ${share}`;
      panel.picture.setAttribute("aria-label", `Map of the ${data.digits[digit]} after ReLU, ${panel.title}: ${
        percent(kept(map), size)} of its places are above 0`);
      return `${panel.title} ReLU keeps ${share}`;
    });
    said.say(`${told.join("; ")}.`);
    return outputs;
  }

  const sliders = [
    slider("Shift", { min: -8, max: 8, step: 0.25, value: 0 }, (value) => (value > 0 ? "+" : "") + written(value),
      (value) => { shift = value; update(); }),
    slider("Scale", { min: -1, max: 1, step: 0.05, value: 0 }, (value) => `× ${written(10 ** value)}`,
      (value) => { scale = 10 ** value; update(); }),
  ];
  const chooseChannel = choice("Channel", channels.map((each) => each.name), (index) => { channel = index; update(); });
  const chooseDigit = choice("Map of digit", data.digits.map(String), (index) => { digit = index; update(); });
  chooseDigit.list.selectedIndex = digit;
  const back = make("button", { type: "button", onclick: () => {
    [shift, scale] = [0, 1];
    sliders.forEach((each) => each.set(0));
    update();
  } }, "As the network has it");

  element.append(
    make("div", { class: "live-sliders" }, ...sliders.map((each) => each.element)),
    make("div", { class: "live-pair" }, ...panels.map((panel) => panel.part)),
    make("div", { class: "live-row" }, chooseChannel.element, chooseDigit.element, back),
    make("p", { class: "live-note" },
      "Hatched bars are values that ReLU sets to 0, full bars are values that it keeps. A bar's height is the root of its share."),
    said.element);
  update();
  return { outputs: update };
}
