// The page's side of draw.Canvas: a canvas for mouse, pen, finger and keys, the image the networks see, a table of
// answers, and digits to keep a drawing as.

const SIZE = 280; // units of the strokes, as in draw.py
const PEN = 20;
const MOST_POINTS = 2000; // of a stroke: an idle hand may lie on the pen for long
const STEP = 10; // of an arrow key; with Shift, four times as far
const REST = 600; // milliseconds after which a screen reader is told where the pen is
// The keys of a numeric keypad without its lock move in eight directions.
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
  Home: [-1, -1], PageUp: [1, -1], End: [-1, 1], PageDown: [1, 1] };
const KEYS = "The arrows move the pen, with Shift farther; Home, End, Page Up and Page Down move it diagonally. " +
  "Space puts the pen down and lifts it. Backspace removes the last stroke, Delete all of them. 0 to 9 keep the drawing as that digit.";

function element(tag, className, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// JupyterLab takes keys for its own shortcuts wherever it is not told to leave them.
function control(tag, className, text, attributes = {}) {
  return element(tag, className, text, { "data-lm-suppress-shortcuts": "true", ...attributes });
}

function canvas(make, pixels, role, label) {
  const made = make("canvas", "draw-canvas", "", { role, "aria-label": label });
  made.width = made.height = pixels;
  return made;
}

function ink(context, strokes) {
  context.clearRect(0, 0, SIZE, SIZE);
  Object.assign(context, { lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "white" });
  for (const stroke of strokes) {
    if (!stroke?.length) continue;
    context.beginPath();
    context.moveTo(...stroke[0]);
    for (const point of stroke) context.lineTo(...point); // to its own first point: a dot, if it is the only one
    context.stroke();
  }
}

// The keys' pen: a ring that can be seen on black and on white, filled while the pen is down.
function ring(context, [x, y], down) {
  for (const [width, colour] of [[5, "black"], [3, "#f0914a"]]) {
    context.beginPath();
    context.arc(x, y, PEN / 2, 0, 2 * Math.PI);
    Object.assign(context, { lineWidth: width, strokeStyle: colour, fillStyle: "#f0914a" });
    context.stroke();
  }
  if (down) context.fill();
}

function row(name, probabilities) {
  const made = element("tr", "");
  const best = probabilities.indexOf(Math.max(...probabilities));
  made.append(element("th", "", name, { scope: "row" }), element("td", "draw-digit", probabilities.length ? best : ""));
  for (let digit = 0; digit < 10; digit++) {
    const share = probabilities[digit] ?? 0;
    const told = `${digit}: ${(100 * share).toFixed(1)} %`;
    const cell = element("td", "draw-bar", "", { title: told });
    const bar = element("div", "", "", { role: "img", "aria-label": told });
    bar.style.height = `${100 * share}%`;
    cell.append(bar);
    made.append(cell);
  }
  const sure = probabilities.length ? `${(100 * probabilities[best]).toFixed(1)} %` : "";
  made.append(element("td", "draw-sure", sure));
  return made;
}

// Ten digits to keep a drawing as, and what became of it. Whoever keeps it answers in `kept`; the canvas is then cleared
// for the next one. `draw(strokes)` puts strokes on it.
function keeping(model, draw) {
  const undo = control("button", "draw-button", "Undo", { type: "button", "aria-label": "Take back the drawing kept last" });
  const said = element("p", "draw-said", "", { role: "status" });
  const digits = element("div", "draw-digits", "", { role: "group", "aria-label": "Keep the drawing" });
  let asked = null; // the drawing that is to be kept, or was kept last
  function keep(digit) {
    asked = model.get("strokes");
    model.send({ keep: digit, strokes: asked });
  }
  for (let digit = 0; digit < 10; digit++) {
    const button = control("button", "draw-button", digit, { type: "button", "aria-label": `Keep as ${digit}` });
    button.addEventListener("click", () => keep(digit));
    digits.append(button);
  }
  undo.addEventListener("click", () => model.send({ undo: true }));
  const line = element("div", "draw-line");
  line.append(said, undo);
  const part = element("div", "draw-keep");
  part.append(element("div", "", "Which digit is it? Keep it as"), digits, line);
  function show() {
    const { said: text, done } = model.get("kept");
    said.textContent = text;
    undo.hidden = done !== "keep";
    if (asked && done) draw(done === "keep" ? [] : asked);
  }
  undo.hidden = true;
  return { part, keep, show };
}

function render({ model, el }) {
  const root = element("div", "draw");
  const paper = canvas(control, 2 * SIZE, "application", "Draw a digit here with mouse, pen, finger or keys");
  const seen = canvas(element, 28, "img", "The image of 28 by 28 pixels that the networks see");
  const clear = control("button", "draw-button draw-clear", "Clear", { type: "button" });
  const kept = keeping(model, send);
  const help = element("span", "", KEYS, { id: `draw-keys-${Math.random().toString(36).slice(2)}` });
  const keys = element("details", "draw-keys");
  keys.append(control("summary", "", "Drawing with keys"), help);
  paper.tabIndex = 0;
  paper.setAttribute("aria-describedby", help.id);
  const header = element("tr", "");
  for (const title of ["network", "answer", ..."0123456789", "sure"]) header.append(element("th", "", title, { scope: "col" }));
  const head = element("thead", "");
  const rows = element("tbody", "");
  const table = element("table", "");
  head.append(header);
  table.append(head, rows);
  const remark = element("p", "draw-remark", "", { "aria-live": "polite" });
  const where = element("p", "draw-where", "", { "aria-live": "polite" });
  const left = element("div", "draw-part");
  const middle = element("div", "draw-part");
  const right = element("div", "draw-part");
  seen.classList.add("draw-seen");
  left.append(element("div", "", "Draw a digit"), paper, keys, where, clear);
  middle.append(element("div", "", "What the networks see"), seen);
  right.append(table, remark, kept.part);
  root.append(left, middle, right);
  el.append(root);

  const context = paper.getContext("2d");
  context.scale(2, 2); // twice the resolution, for screens that have it
  let current = null; // the stroke under the pointer, or under the pen that keys move
  let pen = null; // where the keys' pen is; null while they are not used
  const inside = (value) => Math.round(10 * Math.min(Math.max(value, 0), SIZE)) / 10;
  function redraw() {
    ink(context, [...model.get("strokes"), ...(current ? [current] : [])]);
    if (pen) ring(context, pen, Boolean(current));
  }

  function point(event) {
    const box = paper.getBoundingClientRect();
    return [inside(((event.clientX - box.left) / box.width) * SIZE),
            inside(((event.clientY - box.top) / box.height) * SIZE)];
  }

  function send(strokes) {
    model.set("strokes", strokes);
    model.save_changes();
  }

  function lifted() {
    if (!current) return;
    const stroke = current;
    current = null;
    send([...model.get("strokes"), stroke]);
  }

  paper.addEventListener("pointerdown", (event) => {
    if ((current && !pen) || event.button) return; // a second finger, or not the main button
    event.preventDefault();
    paper.focus({ preventScroll: true }); // so that a digit's key keeps what was drawn by hand
    leave();
    paper.setPointerCapture(event.pointerId); // so that the stroke goes on outside
    current = [point(event)];
    redraw();
  });
  paper.addEventListener("pointermove", (event) => {
    if (!current || !paper.hasPointerCapture(event.pointerId)) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      if (current.length < MOST_POINTS) current.push(point(each));
    }
    redraw();
  });
  paper.addEventListener("lostpointercapture", lifted); // after pointerup and pointercancel alike
  clear.addEventListener("click", () => send([]));

  // ---------------------------------------------------------------- keys

  let waiting;
  function tell(text) { // once the hand rests
    clearTimeout(waiting);
    waiting = setTimeout(() => { where.textContent = text; }, REST);
  }

  function move([right, down], far) {
    pen = [inside(pen[0] + right * far), inside(pen[1] + down * far)];
    if (current && current.length < MOST_POINTS) current.push(pen);
    redraw();
    tell(`Pen ${current ? "down" : "up"}, ${Math.round(pen[0] / STEP)} across, ${Math.round(pen[1] / STEP)} down, of 28.`);
  }

  function toggle() {
    if (current) lifted();
    else current = [pen];
    redraw();
    tell(current ? "Pen down." : "Pen up.");
  }

  function remove(last) {
    const strokes = model.get("strokes");
    const unfinished = last && current;
    current = null;
    send(unfinished ? strokes : last ? strokes.slice(0, -1) : []);
    redraw();
    tell(last ? "The last stroke is removed." : "Cleared.");
  }

  function leave() { // the keys' pen: what it drew stays
    if (pen) lifted();
    pen = null;
    redraw();
  }

  paper.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [way, digit] = [MOVES[event.key], /^[0-9]$/.test(event.key)];
    if (!way && !digit && ![" ", "Backspace", "Delete"].includes(event.key)) return;
    event.preventDefault(); // or the page scrolls
    event.stopPropagation();
    if (event.repeat && !way) return;
    if (way || event.key === " ") pen ??= [SIZE / 2, SIZE / 2];
    if (way) move(way, event.shiftKey ? 4 * STEP : STEP);
    else if (event.key === " ") toggle();
    else if (!digit) remove(event.key === "Backspace");
    else {
      lifted();
      kept.keep(Number(event.key));
    }
  });
  paper.addEventListener("blur", leave);

  function show() {
    const answer = model.get("answer");
    const pixels = seen.getContext("2d");
    const image = pixels.createImageData(28, 28);
    for (let i = 0; i < 784; i++) image.data.set([...Array(3).fill(answer.image?.[i] ?? 0), 255], 4 * i);
    pixels.putImageData(image, 0, 0);
    rows.replaceChildren(...(answer.rows ?? []).map(([name, probabilities]) => row(name, probabilities)));
    remark.textContent = answer.remark ?? "";
  }

  const heard = { "change:strokes": redraw, "change:answer": show, "change:kept": kept.show };
  for (const [event, listener] of Object.entries(heard)) model.on(event, listener);
  redraw();
  show();
  return () => {
    clearTimeout(waiting);
    for (const [event, listener] of Object.entries(heard)) model.off(event, listener);
  };
}

export default { render };
