// Two networks under hidden names, one recorded run of each at a time: which one is better?

import { announcer, make, percent, written } from "./ui.js";

/** How many choices of `seeds` values have each sum: `Map {sum: count}`, exact below 2^53. */
function sums(values, seeds) {
  const found = Array.from({ length: seeds + 1 }, () => new Map());
  found[0].set(0, 1);
  for (const value of values) {
    for (let taken = seeds; taken > 0; taken--) {
      for (const [sum, count] of found[taken - 1]) {
        found[taken].set(sum + value, (found[taken].get(sum + value) ?? 0) + count);
      }
    }
  }
  return found[seeds];
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

/**
 * Of all pairs of `seeds` runs of one network and as many of the other: how many point away from the means over all
 * runs, how many are equal, and how many there are.
 */
export function misleading(a, b, seeds = 1) {
  const sign = Math.sign(mean(b) - mean(a));
  const counts = { wrong: 0, equal: 0, all: 0 };
  for (const [one, times] of sums(a, seeds)) {
    for (const [other, more] of sums(b, seeds)) {
      counts.all += times * more;
      if (one === other) counts.equal += times * more;
      else if (Math.sign(other - one) !== sign) counts.wrong += times * more;
    }
  }
  return counts;
}

export function shuffled(values) {
  const order = [...values];
  for (let i = order.length - 1; i > 0; i--) {
    const other = Math.floor(Math.random() * (i + 1));
    [order[i], order[other]] = [order[other], order[i]];
  }
  return order;
}

const points = (value) => written(value, Math.abs(value) < 0.005 ? 3 : 2);
const accuracy = (correct, images) => `${written((100 * correct) / images)} %`;

export function mount(element, data) {
  const said = announcer();
  let queue = [];
  let round = null;
  const score = { guesses: 0, right: 0 };

  const rows = ["A", "B"].map((letter) => {
    const name = make("div", { class: "live-seed-name" });
    const track = make("div", { class: "live-track" });
    const drawn = make("div", { class: "live-drawn" });
    return { letter, name, track, drawn, part: make("div", { class: "live-seed-row" }, name, track, drawn) };
  });
  const axis = make("div", { class: "live-seed-axis", "aria-hidden": "true" }, make("span"), make("span"));
  const verdict = make("div", { class: "live-verdict", tabindex: -1 });
  const tally = make("p", { class: "live-note" });
  const draw = make("button", { type: "button", onclick: drawOne }, "Draw one seed of each");
  const guesses = ["A is better", "B is better", "cannot tell"].map((text, guess) =>
    make("button", { type: "button", onclick: () => reveal(guess) }, text));
  const next = make("button", { type: "button", onclick: () => { begin(); draw.focus(); } }, "Next pair");

  function begin() {
    if (!queue.length) queue = shuffled(data.pairs);
    const pair = queue.pop();
    const sides = shuffled([pair.first, pair.second]);
    round = { pair, sides, orders: sides.map((side) => shuffled(side.correct)), seeds: 0, guessed: false };
    const all = [...pair.first.correct, ...pair.second.correct];
    round.low = Math.min(...all) - 5;
    round.high = Math.max(...all) + 5;
    axis.children[0].textContent = accuracy(round.low, data.images);
    axis.children[1].textContent = accuracy(round.high, data.images);
    verdict.replaceChildren(make("p", {}, "Two lessons hide behind A and B. Which one has the better recipe? Guess, or draw more seeds first."));
    show();
    drawOne();
  }

  function drawOne() {
    round.seeds += 1;
    show();
    said.say(rows.map((row, i) => `${row.letter}: ${accuracy(round.orders[i][round.seeds - 1], data.images)}`).join(", "));
  }

  function dot(correct, row, className) {
    const made = make("div", { class: `live-dot ${className}` });
    made.style.left = `${(100 * (correct - round.low)) / (round.high - round.low)}%`;
    row.track.append(made);
  }

  function show() {
    rows.forEach((row, i) => {
      const drawn = round.orders[i].slice(0, round.seeds);
      row.name.textContent = round.guessed ? `${row.letter}: lesson ${round.sides[i].lesson}, ${round.sides[i].title}` : row.letter;
      row.track.replaceChildren();
      if (round.guessed) round.orders[i].slice(round.seeds).forEach((correct) => dot(correct, row, "live-dot-hidden"));
      drawn.forEach((correct) => dot(correct, row, "live-dot-drawn"));
      if (round.guessed) dot(mean(round.orders[i]), row, "live-dot-mean");
      row.drawn.textContent = drawn.map((correct) => written((100 * correct) / data.images)).join("  ");
    });
    const most = Math.min(...round.orders.map((order) => order.length));
    draw.disabled = round.guessed || round.seeds >= most;
    guesses.forEach((button) => { button.disabled = round.guessed || !round.seeds; });
    next.disabled = !round.guessed;
    tally.textContent = score.guesses ? `${score.right} of ${score.guesses} guesses right.` : "";
  }

  function reveal(guess) {
    const { difference } = round.pair;
    const decided = difference.verdict === "more than noise";
    const better = mean(round.orders[0]) > mean(round.orders[1]) ? 0 : 1;
    const right = guess === (decided ? better : 2);
    round.guessed = true;
    score.guesses += 1;
    score.right += right;
    show();
    const names = rows.map((row, i) => `lesson ${round.sides[i].lesson} (${round.sides[i].title})`);
    const ends = difference.mean < 0 ? [-difference.high, -difference.low] : [difference.low, difference.high];
    const gap = `${points(Math.abs(difference.mean))} points, 95 % interval ${ends.map(points).join(" to ")}`;
    const ahead = difference.mean < 0 ? round.pair.first : round.pair.second;
    const answer = decided
      ? `${rows[better].letter} is better: ${names[better]} is ahead by ${gap}, over ${difference.n} seeds a side.`
      : `Nobody can tell yet: over ${difference.n} seeds a side, lesson ${ahead.lesson} is ahead by ${gap}. The interval holds 0.`;
    const { first, second } = round.pair;
    const most = Math.max(1, Math.floor(Math.min(first.correct.length, second.correct.length) / 2));
    const lines = [1, 2, 3, 5, 10].filter((seeds) => seeds <= most).map((seeds) => {
      const counts = misleading(first.correct, second.correct, seeds);
      return make("li", {}, `${seeds} ${seeds > 1 ? "seeds" : "seed"} a side: ${counts.wrong.toLocaleString("en")} of ${
        counts.all.toLocaleString("en")} pairs point to the other network (${percent(counts.wrong, counts.all)})${
        counts.equal ? `, ${counts.equal.toLocaleString("en")} are equal` : ""}.`);
    });
    verdict.replaceChildren(make("p", { class: "live-readout" }, make("strong", {}, right ? "Right. " : "Not so. "), answer),
      make("ul", {}, ...lines));
    said.say(verdict.textContent);
    next.focus();
  }

  element.append(make("div", { class: "live-seeds" }, ...rows.map((row) => row.part), axis),
    make("div", { class: "live-row" }, draw, ...guesses, next), verdict, tally,
    make("p", { class: "live-note" },
      "Test accuracies in percent. Full dots are drawn; after the guess, rings are the runs that were not, and a line is the mean of all."),
    said.element);
  begin();
  return { misleading };
}
