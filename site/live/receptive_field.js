// A unit of any layer, and what it sees: of each layer before it, and of the digit.

import { announcer, choice, field, grey, make, pixels } from "./ui.js";

/**
 * The first and the last row (or column) of the layer before that units of `stage` see, inside its picture. A stride of 0
 * is a layer whose units all see the same.
 */
export function back([first, last], stage, side) {
  const start = first * stage.stride - stage.padding;
  const end = last * stage.stride - stage.padding + stage.kernel - 1;
  return [Math.max(start, 0), Math.min(end, side - 1)];
}

/** For every layer from the image up to `layer`, the rows and columns that its unit at (row, column) sees. */
export function seen(stages, layer, row, column) {
  const found = [{ rows: [row, row], columns: [column, column] }];
  for (let at = layer; at > 0; at--) {
    const { rows, columns } = stages[at - 1];
    found.unshift({ rows: back(found[0].rows, stages[at], rows), columns: back(found[0].columns, stages[at], columns) });
  }
  return found;
}

export function mount(element, data) {
  const said = announcer();
  const picture = make("div", { class: "live-part live-seen-image" });
  const layers = make("div", { class: "live-layers" });
  const readout = make("p", { class: "live-readout" });
  const chooseNetwork = choice("Network", data.networks.map((each) => each.name), show);
  let fields = [];

  function show(index) {
    const stages = data.networks[index].stages;

    function look(layer, row, column) {
      const regions = seen(stages, layer, row, column);
      fields.forEach((each, number) => {
        const region = regions[number];
        each.frame("seen", null);
        each.frame("chosen", null);
        if (region) each.frame(number === layer ? "chosen" : "seen", { top: region.rows[0], left: region.columns[0],
          rows: region.rows[1] - region.rows[0] + 1, columns: region.columns[1] - region.columns[0] + 1 });
      });
      const { rows, columns } = regions[0];
      const size = `${rows[1] - rows[0] + 1} × ${columns[1] - columns[0] + 1}`;
      readout.textContent = layer
        ? `Layer ${layer}, ${stages[layer].name}, unit in row ${row}, column ${column}: it sees ${size} pixels, rows ${
          rows[0]} to ${rows[1]}, columns ${columns[0]} to ${columns[1]}.`
        : `The image, pixel in row ${row}, column ${column}: a pixel sees itself.`;
      said.say(readout.textContent);
    }

    fields = stages.map((stage, layer) => {
      const made = field({ rows: stage.rows, columns: stage.columns, onPlace: (row, column) => look(layer, row, column),
        label: `${layer ? `Layer ${layer}, ` : ""}${stage.name}, ${stage.rows} by ${stage.columns}. Arrow keys choose a unit.` });
      made.paint(pixels(stage.map), grey());
      return made;
    });
    const parts = fields.map((each, layer) => make("div", { class: "live-part" }, make("div", { class: "live-title" },
      `${layer ? `${layer}: ` : ""}${stages[layer].name}`), each.element));
    picture.replaceChildren(...parts[0].childNodes);
    layers.replaceChildren(...parts.slice(1));
    const first = stages.length - 3;
    look(first, Math.floor(stages[first].rows / 2), Math.floor(stages[first].columns / 2));
  }

  element.append(make("div", { class: "live-row" }, chooseNetwork.element),
    readout, make("div", { class: "live-reach" }, picture, layers),
    make("p", { class: "live-note" },
      "Each picture is the mean of a layer's channels for this digit, bright where it is large; the linear layer has one bar for each of its ten answers."),
    said.element);
  show(0);
  return { seen };
}
