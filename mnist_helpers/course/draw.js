// The page's side of draw.Canvas: a canvas for mouse, pen and finger, the image the networks see, a table of answers.

const SIZE = 280; // units of the strokes, as in draw.py
const PEN = 20;
const MOST_POINTS = 2000; // of a stroke: an idle hand may lie on the pen for long

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function canvas(pixels, label) {
  const made = element("canvas", "draw-canvas");
  made.width = made.height = pixels;
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", label);
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

function row(name, probabilities) {
  const made = element("tr", "");
  const best = probabilities.indexOf(Math.max(...probabilities));
  made.append(element("th", "", name), element("td", "draw-digit", probabilities.length ? best : ""));
  for (let digit = 0; digit < 10; digit++) {
    const share = probabilities[digit] ?? 0;
    const cell = element("td", "draw-bar");
    const bar = element("div", "");
    bar.style.height = `${100 * share}%`;
    cell.title = `${digit}: ${(100 * share).toFixed(1)} %`;
    cell.append(bar);
    made.append(cell);
  }
  const sure = probabilities.length ? `${(100 * probabilities[best]).toFixed(1)} %` : "";
  made.append(element("td", "draw-sure", sure));
  return made;
}

function render({ model, el }) {
  const root = element("div", "draw");
  const paper = canvas(2 * SIZE, "Draw a digit here with mouse, pen or finger");
  const seen = canvas(28, "The image of 28 by 28 pixels that the networks see");
  const clear = element("button", "draw-clear", "Clear");
  clear.type = "button";
  const header = element("tr", "");
  for (const title of ["network", "answer", ..."0123456789", "sure"]) header.append(element("th", "", title));
  const head = element("thead", "");
  const rows = element("tbody", "");
  const table = element("table", "");
  head.append(header);
  table.append(head, rows);
  const remark = element("p", "draw-remark");
  remark.setAttribute("aria-live", "polite");
  const left = element("div", "draw-part");
  const middle = element("div", "draw-part");
  const right = element("div", "draw-part");
  seen.classList.add("draw-seen");
  left.append(element("div", "", "Draw a digit"), paper, clear);
  middle.append(element("div", "", "What the networks see"), seen);
  right.append(table, remark);
  root.append(left, middle, right);
  el.append(root);

  const context = paper.getContext("2d");
  context.scale(2, 2); // twice the resolution, for screens that have it
  let current = null; // the stroke under the pointer
  const redraw = () => ink(context, [...model.get("strokes"), ...(current ? [current] : [])]);

  function point(event) {
    const box = paper.getBoundingClientRect();
    const inside = (value) => Math.round(10 * Math.min(Math.max(value, 0), SIZE)) / 10;
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
    if (current || event.button) return; // a second finger, or not the main button
    event.preventDefault();
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

  function show() {
    const answer = model.get("answer");
    const pixels = seen.getContext("2d");
    const image = pixels.createImageData(28, 28);
    for (let i = 0; i < 784; i++) image.data.set([...Array(3).fill(answer.image?.[i] ?? 0), 255], 4 * i);
    pixels.putImageData(image, 0, 0);
    rows.replaceChildren(...(answer.rows ?? []).map(([name, probabilities]) => row(name, probabilities)));
    remark.textContent = answer.remark ?? "";
  }

  model.on("change:strokes", redraw);
  model.on("change:answer", show);
  redraw();
  show();
  return () => {
    model.off("change:strokes", redraw);
    model.off("change:answer", show);
  };
}

export default { render };
