// The seven lessons ranked by accuracy: on the images that were trained on, or on the test images.

import { announcer, make, written } from "./ui.js";

const WAYS = [["train", "on training images, as published"], ["test", "on test images"]];

export function mount(element, data) {
  const said = announcer();
  const values = data.lessons.flatMap((lesson) => [lesson.train.mean, lesson.test.mean]);
  const low = Math.floor(2 * Math.min(...values)) / 2 - 0.25;
  const high = 100;
  const across = (value) => `${(100 * (value - low)) / (high - low)}%`;
  const list = make("ol", { class: "live-ranks" });
  const axis = make("li", { class: "live-leak-axis", "aria-hidden": "true" },
    make("span", {}, make("span", {}, `${written(low, 1)} %`), make("span", {}, "100 %")));
  const told = make("p", { class: "live-readout" });

  const items = data.lessons.map((lesson) => {
    const rank = make("span", { class: "live-rank" });
    const value = make("span", { class: "live-value" });
    const [now, other] = ["live-dot live-dot-drawn", "live-dot live-dot-hidden"].map((name) => make("div", { class: name }));
    const bar = make("div", { class: "live-interval" });
    const item = make("li", {}, rank, make("span", { class: "live-lesson" }, make("strong", {}, `Lesson ${lesson.lesson}`), ` ${lesson.title}`),
      make("div", { class: "live-track", "aria-hidden": "true" }, bar, other, now), value);
    return { lesson, item, rank, value, now, other, bar };
  });

  function show(way, quiet = false) {
    const before = new Map(items.map((each) => [each, each.item.offsetTop]));
    const ranked = [...items].sort((a, b) => b.lesson[way].mean - a.lesson[way].mean);
    const others = way === "train" ? "test" : "train";
    ranked.forEach((each, i) => {
      const { mean, half } = each.lesson[way];
      each.rank.textContent = i + 1;
      each.value.textContent = `${written(mean)} %`;
      each.now.style.left = across(mean);
      each.other.style.left = across(each.lesson[others].mean);
      each.bar.style.left = across(mean - (half ?? 0));
      each.bar.style.width = `${(200 * (half ?? 0)) / (high - low)}%`;
    });
    list.replaceChildren(...ranked.map((each) => each.item), axis);
    if (!quiet && !matchMedia("(prefers-reduced-motion: reduce)").matches) {
      for (const each of items) {
        const from = before.get(each) - each.item.offsetTop;
        if (from) each.item.animate([{ transform: `translateY(${from}px)` }, { transform: "none" }], { duration: 500, easing: "ease-in-out" });
      }
    }
    told.textContent = `Ranking ${way === "train" ? "on training images" : "on test images"}: lessons ${
      ranked.map((each) => each.lesson.lesson).join(", ")}.`;
    if (!quiet) said.say(told.textContent);
  }

  const name = `live-leak-${Math.random().toString(36).slice(2)}`;
  const radios = WAYS.map(([way, text], i) => make("label", { class: "live-choice" },
    make("input", { type: "radio", name, checked: i ? null : "", onchange: () => show(way) }), make("span", {}, text)));
  element.append(
    make("fieldset", { class: "live-row live-switch" }, make("legend", {}, "Accuracy is measured"), ...radios),
    list,
    told,
    make("p", { class: "live-note" },
      `Means over ${data.seeds} seeds; the bar is the 95 % interval. A full dot is the accuracy measured now, a ring the other one.`),
    said.element);
  show("train", true);
  return { show };
}
