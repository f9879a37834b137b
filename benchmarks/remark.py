"""How good the live page's remark is: a drawing that the seven networks answer weakly "may be no digit".

    python -m benchmarks.remark            measures it (a minute)
    python -m benchmarks.remark --save     and keeps it, for the page, in results/remark.json

How strongly they answer is `live.strength`. The threshold is the level that 2 % of one half of the validation images
lie below; the other half tells how often a digit gets the remark. Letters, made digits and scribbles are no
handwriting: letters and digits are those of four stroke fonts (benchmarks/letters.json) with a wobble, a slant and a
turn drawn at random. Turned digits are validation images turned by a quarter, without 0, 1 and 8.
"""

import argparse
import itertools
import json
import math
import random

import torch

import mnist_helpers as mh
from mnist_helpers import data, files
from mnist_helpers.course import draw, live

SHARE = 0.02  # of the digits that may get the remark
EACH = 3  # drawings of each letter in each font; of each digit four times as many
SCRIBBLES = TURNED = 400
WOBBLE = 0.035  # of the drawing's size; each of three waves has at most so much
DENSE = 20  # points to which a line as long as the drawing is cut


def by_hand(strokes, chance: random.Random):
    """Strokes with a width, slant, turn and wobble as another hand may have them."""
    turn, slant, width = chance.gauss(0, 0.12), chance.gauss(0, 0.15), math.exp(chance.gauss(0, 0.12))
    waves = [[(chance.uniform(-WOBBLE, WOBBLE), chance.uniform(2, 6), chance.uniform(2, 6), chance.uniform(0, math.tau))
              for _ in range(3)] for _ in "xy"]

    def moved(x, y):
        x, y = (x - draw.SIZE / 2) / draw.LONGER_SIDE, (y - draw.SIZE / 2) / draw.LONGER_SIDE
        x = width * x - slant * y
        x, y = x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)
        shift = [sum(size * math.sin(a * x + b * y + phase) for size, a, b, phase in each) for each in waves]
        return [draw.SIZE / 2 + 180 * (x + shift[0]), draw.SIZE / 2 + 180 * (y + shift[1])]

    return [[moved(*point) for point in dense(stroke)] for stroke in strokes]


def dense(stroke):
    """The points of a stroke, and more of them between, so that a straight line can wobble."""
    points = stroke[:1]
    for (x, y), (to_x, to_y) in itertools.pairwise(stroke):
        steps = max(1, int(math.dist((x, y), (to_x, to_y)) / draw.LONGER_SIDE * DENSE))
        points += [[x + (to_x - x) * step / steps, y + (to_y - y) * step / steps] for step in range(1, steps + 1)]
    return points


def signs(font: str, digits: bool):
    """Images of a font's letters, or of its digits, uint8 ``(n, 1, 28, 28)``."""
    chance = random.Random(f"{font} {digits}")
    chosen = [strokes for sign, strokes in live.letters()[font].items() if sign.isdigit() == digits]
    return torch.cat([draw.prepare(by_hand(strokes, chance)) for strokes in chosen for _ in range(EACH * 4**digits)])


def smooth(points):
    """Points of the curve of E. Catmull and R. Rom through ``points``, eight for each part."""
    padded, curve = [points[0], *points, points[-1]], []
    for first, step in itertools.product(range(len(points) - 1), range(8)):
        u = step / 8
        curve.append([(2 * b + (c - a) * u + (2 * a - 5 * b + 4 * c - d) * u**2 + (3 * b - a - 3 * c + d) * u**3) / 2
                      for a, b, c, d in zip(*padded[first : first + 4], strict=True)])
    return curve


def scribbles(count=SCRIBBLES):
    """One to three smooth lines through four to nine random points each."""
    chance = random.Random("scribbles")
    drawn = []
    for _ in range(count):
        strokes = []
        for _ in range(chance.randint(1, 3)):
            points = [[chance.uniform(40, 240) for _ in "xy"] for _ in range(chance.randint(4, 9))]
            strokes.append(smooth(points))
        drawn.append(draw.prepare(strokes))
    return torch.cat(drawn)


@torch.no_grad()
def strengths(images, models):
    """`live.strength` of uint8 images, and the largest logits' digits ``(images, networks)``."""
    logits = torch.cat([torch.stack([model(data.normalize(batch)) for model in models.values()], 1)
                        for batch in images.split(500)])
    return live.strength(logits), logits.argmax(-1)


def measure(models) -> dict:
    """The threshold, and for each kind of drawing: how many are answered weakly, how many weakly or by different
    digits, and how many there are."""
    val = mh.load_mnist(verbose=False).val
    strength, digits = strengths(val.images, models)
    threshold = round(strength[::2].quantile(SHARE).item(), 2)

    def counted(strength, digits):
        weak, differ = strength < threshold, (digits != digits[:, :1]).any(1)
        return [weak.sum().item(), (weak | differ).sum().item(), len(weak)]

    turned = val.images[[label not in (0, 1, 8) for label in val.labels.tolist()]][:TURNED].rot90(1, (2, 3))
    kinds = {"digits": counted(strength[1::2], digits[1::2])}
    for font in live.letters():
        kinds[f"made digits, {font}"] = counted(*strengths(signs(font, digits=True), models))
        kinds[f"letters, {font}"] = counted(*strengths(signs(font, digits=False), models))
    kinds["scribbles"] = counted(*strengths(scribbles(), models))
    kinds["turned digits"] = counted(*strengths(turned, models))
    return {"threshold": threshold, "kinds": kinds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    measured = measure(live.models())
    kinds = ",\n  ".join(f"{json.dumps(name)}: {counts}" for name, counts in measured["kinds"].items())
    text = f'{{"threshold": {measured["threshold"]}, "kinds": {{\n  {kinds}}}}}'
    print(text)
    if options.save:
        files.replace_file(data.project_root() / "results" / "remark.json", text + "\n")


if __name__ == "__main__":
    main()
