// A canvas whose drawings the lessons' networks answer, here in the browser. Canvas and table are those of the notebooks:
// canvas.js is mnist_helpers/course/draw.js.

import widget from "./canvas.js";
import { forward, readSafetensors, softmax } from "./nets.js";
import { cleaned, extent, prepare } from "./prepare.js";
import { choice, grey, make, paint } from "./ui.js";

const DOT = 10; // half a pen: a smaller drawing is a dot
const MOST_KEPT = 12;

async function load({ name, file, sha256, layers }) {
  try {
    const reply = await fetch(new URL(file, import.meta.url));
    if (!reply.ok) throw new Error(`the file is missing (${reply.status})`);
    const buffer = await reply.arrayBuffer();
    const weights = readSafetensors(buffer);
    if (globalThis.crypto?.subtle) { // only where the page came over https, or from this machine
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", buffer));
      const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
      if (hex !== sha256) throw new Error("the file is damaged: its checksum is another");
    }
    forward(layers, weights, new Float32Array(784)); // throws if a layer lacks its weights
    return { name, layers, weights };
  } catch (error) {
    return { name, problem: error.message };
  }
}

function looked(strokes, networks, { mean, std }) {
  const image = prepare(strokes);
  const pixels = image && Float32Array.from(image, (value) => (value / 255 - mean) / std);
  const maps = networks.map(({ layers, weights }) => image && forward(layers, weights, pixels));
  const logits = maps.map((found) => found && Array.from(found.at(-1).values));
  return {
    strokes, image, maps,
    answers: logits.map((each) => (each ? softmax(each) : [])),
    strength: image && networks.length ? logits.reduce((sum, each) => sum + Math.max(...each), 0) / networks.length : null,
  };
}

const best = (probabilities) => probabilities.indexOf(Math.max(...probabilities));

/** What can be said of a drawing, in a sentence or two: as draw.remark in Python, and how strongly the networks answer. */
export function remark({ strokes, answers, strength }, weak) {
  if (strength === null) return answers.length ? "Nothing is drawn yet: draw, or take an example." : "";
  const digits = answers.map(best);
  const count = (digit) => digits.filter((each) => each === digit).length;
  const digit = digits.reduce((top, each) => (count(each) > count(top) ? each : top));
  const said = `${count(digit)} of ${digits.length} networks answer ${digit}.`;
  const [left, top, right, bottom] = extent(cleaned(strokes));
  const level = strength.toFixed(1);
  if (Math.max(right - left, bottom - top) < DOT) return `${said} This is a dot, and no digit; but a network knows ten digits and always names one.`;
  if (strength < weak) return `${said} They answer weakly (${level}): this may be no digit. A network knows ten digits and always names one.`;
  if (count(digit) < digits.length) return `${said} They differ: is it a digit at all? A network knows ten of them and always names one.`;
  return `${said} They answer strongly (${level}), as they answer digits. Some letters get there, too.`;
}

// As much of anywidget's model as the widget uses. `keep(told)` answers what the widget sends.
function modelOf(look, keep) {
  const values = { strokes: [], answer: look([]), kept: { said: "", done: "" } };
  const heard = { "change:strokes": new Set(), "change:answer": new Set(), "change:kept": new Set() };
  const tell = (name) => heard[`change:${name}`].forEach((each) => each());
  return {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; },
    save_changes() {
      tell("strokes");
      values.answer = look(values.strokes);
      tell("answer");
    },
    send(told) {
      values.kept = keep(told);
      tell("kept");
    },
    on: (event, each) => heard[event].add(each),
    off: (event, each) => heard[event].delete(each),
  };
}

// Drawings with their digits, for a file that mh.drawings reads in a notebook: nothing of them leaves the page otherwise.
function collection() {
  const lines = [];
  const link = make("a", { download: "drawings.jsonl", hidden: "" }, "Download drawings.jsonl");
  function changed(said, done) {
    URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(new Blob(lines));
    link.hidden = !lines.length;
    return { said: `${said}: ${lines.length} drawing${lines.length === 1 ? "" : "s"} on this page.`, done };
  }
  return {
    link,
    keep({ keep: label, strokes, undo }) {
      if (undo) {
        lines.pop();
        return changed("Taken back", "undo");
      }
      const image = prepare(strokes);
      if (!image) return { said: "Not done: nothing is drawn. Draw a digit, then say which it is.", done: "" };
      lines.push(`${JSON.stringify({ label, image: btoa(String.fromCharCode(...image)) })}\n`);
      return changed(`Kept as ${label}`, "keep");
    },
  };
}

function picture(image, label) {
  const canvas = make("canvas", { width: 28, height: 28, role: "img", "aria-label": label });
  paint(canvas, image, grey());
  return canvas;
}

// The kept drawings, one below the other, with a column for each network.
function strips(names, weak, restore) {
  const rows = make("tbody");
  const head = make("tr", {}, make("th", {}, "drawing"), ...names.map((name) => make("th", { title: name }, name.split(":")[0])),
    make("th", {}, "strength"), make("th", {}, make("span", { class: "live-hidden" }, "remove")));
  const table = make("table", { class: "live-strips" }, make("caption", {}, "Kept drawings, and what networks ",
    `${names[0]?.split(":")[0]} to ${names.at(-1)?.split(":")[0]} answer`), make("thead", {}, head), rows);
  const element = make("div", { class: "live-kept-drawings", hidden: "" }, table);
  function changed() {
    element.hidden = !rows.children.length;
  }
  return {
    element,
    add({ strokes, image, answers, strength }) {
      const digits = answers.map(best);
      const usual = digits.toSorted((a, b) => digits.filter((each) => each === b).length - digits.filter((each) => each === a).length)[0];
      const row = make("tr", {},
        make("td", {}, make("button", { type: "button", class: "live-thumb", "aria-label": `Draw this ${usual} again`, onclick: () => restore(strokes) },
          picture(image, `a drawing, mostly read as ${usual}`))),
        ...answers.map((each, i) => make("td", { class: digits[i] === usual ? "" : "live-other" }, make("b", {}, String(digits[i])),
          make("small", {}, `${Math.round(100 * Math.max(...each))} %`))),
        make("td", {}, strength.toFixed(1), ...(strength < weak ? [make("small", {}, "weak")] : [])),
        make("td", {}, make("button", { type: "button", "aria-label": `Remove this ${usual}`, onclick: () => { row.remove(); changed(); } }, "×")));
      rows.prepend(row);
      if (rows.children.length > MOST_KEPT) rows.lastChild.remove();
      changed();
    },
  };
}

// The maps of one network, layer by layer, after each ReLU.
function inside(networks) {
  const shown = make("div", { class: "live-maps" });
  let [chosen, found] = [0, null];
  const list = choice("Inside network", networks.map(({ name }) => name), (index) => { chosen = index; show(); });
  function show() {
    list.list.selectedIndex = chosen;
    if (!found?.image) {
      shown.replaceChildren(make("p", { class: "live-note" }, "Draw something to see the maps that each layer makes of it."));
      return;
    }
    let number = 0;
    shown.replaceChildren(...networks[chosen].layers.flatMap(({ kind }, at) => {
      if (kind !== "relu") return [];
      const { channels, side, values } = found.maps[chosen][at];
      number += 1;
      const top = Math.max(...values, 1e-6);
      const maps = Array.from({ length: channels }, (_, channel) => {
        const canvas = make("canvas", { width: side, height: side });
        paint(canvas, values.slice(channel * side * side, (channel + 1) * side * side), grey(top));
        return canvas;
      });
      return [make("div", { class: "live-title" }, `convolution ${number}, after ReLU: ${channels} maps of ${side} × ${side}`),
        make("div", { class: "live-map-row", role: "img", "aria-label": `${channels} maps of layer ${number}` }, ...maps)];
    }));
  }
  show();
  return {
    element: make("div", { class: "live-inside" }, list.element, shown),
    update(look) { found = look; show(); },
    choose(index) {
      if (index === chosen || index < 0 || index >= networks.length) return;
      chosen = index;
      show();
    },
  };
}

export async function mount(element, data) {
  if (!document.querySelector('link[href$="canvas.css"]')) {
    document.head.append(make("link", { rel: "stylesheet", href: new URL("canvas.css", import.meta.url).href }));
  }
  const told = make("p", { class: "live-note", role: "status" }, "The networks are loading.");
  element.append(told);
  const loaded = await Promise.all(data.networks.map(load));
  const networks = loaded.filter(({ problem }) => !problem);
  const missing = loaded.filter(({ problem }) => problem).map(({ name, problem }) => `network ${name} (${problem})`);
  told.textContent = missing.length ? `Not loaded: ${missing.join(", ")}. ${networks.length ? "The others answer." : "Reload the page to try again."}` : "";
  told.hidden = !missing.length;

  let look = looked([], networks, data);
  const maps = inside(networks);
  const own = collection();
  const model = modelOf((strokes) => {
    look = looked(strokes, networks, data);
    return { image: look.image ? Array.from(look.image) : [], rows: networks.map(({ name }, i) => [name, look.answers[i]]),
      remark: remark(look, data.weak) };
  }, own.keep);
  const draw = (strokes) => {
    model.set("strokes", strokes);
    model.save_changes();
  };
  const kept = strips(networks.map(({ name }) => name), data.weak, draw);
  const keep = make("button", { type: "button", disabled: "", onclick: () => kept.add(look) }, "Keep to compare");
  model.on("change:answer", () => {
    keep.disabled = !look.image || !networks.length;
    maps.update(look);
  });

  const stage = make("div");
  widget.render({ model, el: stage });
  const clear = stage.querySelector(".draw-clear");
  const buttons = make("div", { class: "live-row" });
  clear.before(buttons);
  buttons.append(clear, keep);
  stage.querySelector(".draw-keep").append(own.link);
  const pick = (event) => maps.choose([...stage.querySelectorAll("tbody tr")].indexOf(event.target.closest("tr")));
  stage.querySelector("tbody").addEventListener("pointerover", pick);
  const examples = make("div", { class: "live-row" }, make("span", {}, "Examples:"), ...data.examples.map(({ name, strokes }) => make("button",
    { type: "button", onclick: () => draw(strokes) }, name)));
  element.append(stage, examples, kept.element, ...(networks.length ? [maps.element] : []));
  return { draw, look: () => look };
}
