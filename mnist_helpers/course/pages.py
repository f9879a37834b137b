"""Figures in the prose of pages and notebooks, tables between their markers, the picture on the first page.

A figure in prose carries a mark: an HTML comment right after the number and its unit, which a rendered page hides.

    99.55 %<!-- = lesson 5, published -->       0.05<!-- = lesson 4 - lesson 3, test, mean --> points

    mark       <!-- = SUBJECT[ - SUBJECT], MEASURE[, STATISTIC] -->
    SUBJECT    lesson N, or the class of a challenge's network, such as Strided
    MEASURE    test | test loss | same measure | published | validation | parameters | epochs
    STATISTIC  mean (the default) | half-width (of the mean's 95 % interval) | std | n | lowest | highest: over seeds

Accuracies are in percent. The difference of two subjects is taken seed by seed, in percentage points. In intervals of
test accuracies other images count, too (`records.over_all`).

In a notebook, ``<!-- = printed by TAG -->`` marks a figure that the cell with this tag printed.
"""

import io
import json
import re
from math import isnan

from PIL import Image

from ..data import project_root
from ..files import replace_file
from ..stats import mean_over_seeds
from . import (
    answers,
    catalogue,
    claims,
    contents,
    explain,
    ledger,
    live,
    notebooks,
    pieces,
    plan,
    records,
    second_test,
    tables,
)

PRINTED = "printed by "
NO_BREAK = "\N{NO-BREAK SPACE}"
MARK = re.compile(r"(?:([+−-]?\d[\d,]*(?:\.\d+)?)((?: ?%| points?)?\*{0,2} ?))?<!-- = (.*?) -->")
MEASURES = {"test": ("test_accuracy", 100), "test loss": ("test_loss", 1),
            "same measure": ("augmented_train_accuracy", 100), "validation": ("val_accuracy", 100),
            "parameters": ("parameters", 1), "epochs": ("epochs", 1)}
LESSONS = {f"lesson {network.lesson}": network.title for network in catalogue.lessons()}
# How the picture names and draws each measure, and where the name stands: lesson and accuracy.
NAMES = {"published": ("published, on training images", "x:", 4.75, 98.62),
         "same measure": ("ours, on training images", "s-", 4, 99.75),
         "test": ("ours, on test images", "o-", 4.4, 99.1)}
PICTURES = {"results/three_measures_light.png": ("#ffffff", "#1f2328", "#d1d9e0", "#6e7781", "#D55E00", "#0072B2"),
            "results/three_measures_dark.png": ("#0d1117", "#e6edf3", "#30363d", "#9ea7b3", "#F0914A", "#56B4E9")}


def measured():
    """``{subject: {measure: {seed: value}}}`` of the course's own records and of what was published; the records are
    ``"runs"``. Under ``"every"`` the same of all seeds, for comparisons with a network whose fresh seeds are not made
    (`records.together`)."""
    values, every = {}, records.all_seeds()
    for name, runs in records.by_seed().items():
        network = catalogue.network(name)
        own = values[f"lesson {network.lesson}" if network.lesson else name] = _measured(network, runs)
        own["every"] = _measured(network, every[name])
    return values


def _measured(network, runs):
    own = {measure: {seed: scale * run[key] for seed, run in sorted(runs.items()) if run.get(key) is not None}
           for measure, (key, scale) in MEASURES.items()}
    published = {"published": {0: 100 * network.published["accuracy"]}} if network.published else {}
    return own | published | {"runs": runs}


def recorded(values):
    """The function ``find(subject, measure, statistic="mean")`` of what `measured` returned. It raises `ValueError`
    for what the records cannot answer."""
    def find(subject, measure, statistic="mean"):
        first, _, second = subject.partition(" - ")
        try:
            one, other = values[first], values[second] if second else {}
            if second and "every" in one and not records.share_seeds(one["runs"], other["runs"]):
                one, other = one["every"], other["every"]
            numbers = one[measure]
            if second:
                numbers = {seed: numbers[seed] - other[measure][seed] for seed in numbers if seed in other[measure]}
            if measure == "test" and "runs" in one:
                mean = records.over_all(one["runs"], other.get("runs")).in_points()
            else:
                mean = mean_over_seeds(list(numbers.values()))
            value = {"mean": mean.mean, "half-width": mean.half, "std": mean.std, "n": mean.n,
                     "lowest": min(numbers.values()), "highest": max(numbers.values())}[statistic]
            if isnan(value):
                raise ValueError("one value has no spread")
            return value
        except (KeyError, ValueError) as error:
            raise ValueError(f"nothing is recorded for '{subject}, {measure}, {statistic}'") from error
    return find


def figures(text, find):
    """``text`` with every marked figure as ``find`` has it, in the decimals, sign and unit it is written with.
    Raises `ValueError` for a mark of another form, or without a figure before it."""
    def rewritten(match):
        number, unit, mark = match.groups()
        if number and mark.startswith(PRINTED):
            return match[0]
        if number is None or mark.count(", ") not in (1, 2):
            raise ValueError(f"the mark '{mark}' needs a figure right before it, and the form at the top of pages.py")
        sign, decimals = "+" if number[0] in "+−-" else "", len(number.partition(".")[2])
        return f"{find(*mark.split(', ')):{sign}z,.{decimals}f}".replace("-", "−") + unit + f"<!-- = {mark} -->"
    return MARK.sub(rewritten, text)


def notebook_figures(notebook, find) -> list[str]:
    """Rewrite the marked figures in a notebook's prose; return those that no cell printed, in words."""
    problems = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = figures(cell.source, find)
            problems += [f"{number} is not in what the cell tagged {tag!r} printed"
                         for number, _, mark in MARK.findall(cell.source) if mark.startswith(PRINTED)
                         and number not in printed(notebook, tag := mark.removeprefix(PRINTED))]
    return problems


def printed(notebook, tag):
    """The numbers in the stored text output of the cells with this tag, also without their sign."""
    cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    text = "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "")
                     for cell in cells for output in cell.get("outputs", []))
    numbers = re.findall(r"[+−-]?\d[\d,]*(?:\.\d+)?", text)
    return {number.replace("-", "−") for number in numbers} | {number.lstrip("+−-") for number in numbers}


def markdown(header, *rows):
    """A Markdown table of rows of text. A column whose header begins with ``>`` is set to the right."""
    names, rules = [name.lstrip(">") for name in header], ["--:" if name[0] == ">" else ":--" for name in header]
    return "\n".join("| " + " | ".join(row) + " |" for row in (names, rules, *rows))


def plus_minus(find, subject, sign=""):
    mean = find(subject, "test")
    text = f"{tables.signed(mean) if sign else f'{mean:.2f}'} ± {find(subject, 'test', 'half-width'):.2f}"
    return text.replace("-", "−").replace(" ", NO_BREAK)


def published(network, more=""):
    """A published figure, linked to its file, with ``more``; nothing where there is none."""
    found = network.published
    return ledger.cited(found, f"{100 * found['accuracy']:.2f}") + more if found else ""


def with_mark(*rows):
    """A table of ``rows``, the first of which is its header; below it what the mark of a stale row means, if any has
    it."""
    marked = any(tables.MARK in cell for row in rows[1:] for cell in row)
    return markdown(*rows) + f"\n\n{tables.MARKED}" * marked


def results_table(find):
    """The table of the seven lessons. A gain is bold if it is more than noise, by `Mean.verdict`."""
    rows, before, runs = [], None, records.by_seed()
    for network in catalogue.lessons():
        lesson, gain = f"lesson {network.lesson}", ""
        if before:
            found = records.over_all(runs[network.name], runs[before.name])
            bold = "**" * (found.verdict == "more than noise")
            gain = bold + plus_minus(find, f"{lesson} - lesson {before.lesson}", sign="+") + bold
        rows.append([f"{network.lesson}: {network.title}{tables.mark(runs[network.name])}", f"{network.parameters:,}",
                     f"{network.epochs}", published(network), f"{find(lesson, 'same measure'):.2f}",
                     f"[{plus_minus(find, lesson)}](site/{ledger.place(network)})", gain])
        before = network
    return with_mark(["lesson", ">parameters", ">epochs", ">published", ">same measure", ">test", ">gain"], *rows)


def scoreboard(find):
    """The table of the challenges. Whether 99.40 % is reached says `Mean.reached`."""
    rows, before, runs = [], "", records.by_seed()
    for network in catalogue.challenges():
        own = runs[network.name]
        rows.append([network.challenge * (network.challenge != before),
                     f"[{network.name}](../notebooks/{network.notebook_file}){tables.mark(own)}", network.size,
                     f"{network.epochs}", f"[{plus_minus(find, network.name)}]({ledger.place(network)})",
                     f"{min(own)} to {max(own)}".replace(" ", NO_BREAK), records.over_all(own).reached(tables.GOAL),
                     published(network, f": {network.published['images']}" if network.published else "")])
        before = network.challenge
    names = ["challenge", "network", ">parameters", ">epochs", ">test", ">seeds", "99.40 %", "published"]
    return with_mark(names, *rows)


def halves():
    """What both halves of the test set say: mistakes and goals counted, and of each network the mean accuracy on all
    images, on those that students wrote and on those that employees wrote."""
    rows, mistakes, reached, runs = [], [0, 0], [0, 0], records.by_seed()
    further = second_test.results()
    for name, own in runs.items():
        network, kinds = catalogue.network(name), [records.over_all(own, kind=kind) for kind in records.KINDS]
        everything = records.over_all(own)
        rows.append([f"[{network.label}]({ledger.place(network)}){tables.mark(own)}",
                     *(f"{100 * mean.mean:.2f} ± {100 * mean.half:.2f}".replace(" ", NO_BREAK)
                       for mean in (everything, *kinds)), *(mean.reached(tables.GOAL) for mean in kinds),
                     second_test.shown(further.get(name)).replace(" ", NO_BREAK)])
        right = records.outcomes(list(own.values()))
        for at, (kind, mean) in enumerate(zip(records.KINDS, kinds, strict=True)):
            mistakes[at] += round((1 - right[:, records.by_kind(kind)]).sum())
            reached[at] += mean.mean >= tables.GOAL
    count = sum(map(len, runs.values()))
    return "\n".join([
        f"Over {count} runs of {len(runs)} networks, {mistakes[0]:,} mistakes are on images that students wrote, "
        f"{mistakes[1]:,} on images that employees wrote: {mistakes[0] / mistakes[1]:.1f} times as many. The mean is "
        f"at least 99.40 % for {reached[0]} networks on the students' images, for {reached[1]} on the employees'.",
        "",
        with_mark(["network", ">all", ">students", ">employees", "99.40 % on students'", "on employees'", ">QMNIST"],
                  *rows), "", second_test.sentence()])


def three_measures(find, paper, ink, faint, *colors):
    """The figure of three accuracies of each lesson's network: published, ours measured the same way, ours on test
    images. It is drawn for a width of 400 pixels. What lies far below the test accuracies is written at the edge."""
    import matplotlib.pyplot as plt

    at, bottom = range(1, len(LESSONS) + 1), min(find(lesson, "test") for lesson in LESSONS) - 0.35
    with plt.rc_context({"font.size": 15, "font.family": "DejaVu Sans", "text.color": ink}):
        figure, axis = plt.subplots(figsize=(8, 5), layout="constrained", facecolor=paper)
        plt.close(figure)
        costs = [find("lesson 5 - lesson 7", measure) for measure in ("published", "test")]
        figure.suptitle("On training images, dropout costs {:.1f} points.\nOn test images, it costs {:.1f}.".format(
            *costs), x=0.02, ha="left", fontsize=18, weight="bold")
        for (measure, (name, style, x, y)), color in zip(NAMES.items(), colors, strict=True):
            values = [find(lesson, measure) for lesson in LESSONS]
            axis.plot(at, values, style, color=color, linewidth=3, markersize=9, markeredgewidth=3)
            axis.text(x, y, name, ha="center", color=color, weight="bold")
            axis.text(len(at) + 0.18, values[-1], f"{values[-1]:.1f}", color=color, va="center")
            if values[0] < bottom:  # beside the place where its line leaves the figure
                edge, right = 1 + (bottom - values[0]) / (values[1] - values[0]), measure == "published"
                axis.text(edge + (0.1 if right else -0.1), bottom + 0.05, f"↙ {values[0]:.1f} published" if right else
                          f"{values[0]:.1f} ↙", color=color, fontsize=13, ha="left" if right else "right")
        axis.set(facecolor=paper, ylim=(bottom, 99.95), xlim=(0.5, len(at) + 0.75))
        axis.set_xticks(at, [f"{lesson[-1]}\n" + name.replace(" ", "\n") for lesson, name in LESSONS.items()])
        axis.yaxis.set_major_locator(plt.MultipleLocator(0.5))
        axis.yaxis.set_major_formatter("{x:g} %")
        axis.tick_params(colors=ink, length=0, labelsize=13)
        axis.grid(axis="y", color=faint)
        axis.spines[:].set_visible(False)
    return figure


def shown(find):
    """The picture's figures as text, kept inside its file, so that a test sees when it is out of date."""
    return "; ".join(f"{lesson}, {measure}: {find(lesson, measure):.2f}" for lesson in LESSONS for measure in NAMES)


def picture(find):
    """The README's HTML for the picture in its two versions, with a text for who cannot see it."""
    levels = [find(lesson, measure) for measure in ("published", "test") for lesson in ("lesson 5", "lesson 7")]
    seen = ("Accuracies of the seven networks. On training images, published and ours, they rise to lesson 4 and fall "
            "with dropout: published from {:.2f} % in lesson 5 to {:.2f} % in lesson 7. On test images they stay "
            "nearly level: {:.2f} % and {:.2f} %.".format(*levels))
    light, dark = PICTURES
    return (f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{dark}">\n'
            f'<img src="{light}" width="560" alt="{seen}">\n</picture>')


def between(text, name, content):
    """``text`` with ``content`` between its markers ``<!-- name:start -->`` and ``<!-- name:end -->``."""
    markers = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    start, end = map(text.find, markers)
    if not 0 <= start < end:
        raise ValueError(f"the page needs the lines {' and '.join(markers)}, in this order")
    return text[: start + len(markers[0])] + "\n" + content + "\n" + text[end:]


def pages(find, root=None) -> dict:
    """``{path: text}`` of the README and the pages of ``site/`` as the records have them."""
    root, verdicts = root or project_root(), claims.verdicts()
    inside = {"README.md": {"picture": picture(find), "results": results_table(find),
                            "claims": f"**Is it true?** [{claims.counts(verdicts)}](site/claims.md)"},
              "site/challenges.md": {"scoreboard": scoreboard(find)},
              "site/halves.md": {"halves": halves()},
              "site/explanations.md": explain.findings(),
              "site/records.md": {"records": ledger.page()},
              "results/plan.md": {"came out": markdown(
                  ["claim", ">came out", ">n", ">p, corrected", "verdict by the plan's rule"], *plan.rows()),
                  "changes": markdown(["network", ">seeds 0 to 4", ">fresh", ">change"], *plan.changes())}}
    inside["site/draw.md"] = {"draw": live.finding()}
    inside["site/index.md"] = {"picture": picture(find).replace('"results/', '"../results/'),
                               "claims": inside["README.md"]["claims"].replace("](site/", "](")}
    texts = {}
    for path in [root / "README.md", root / "results" / "plan.md", *sorted((root / "site").glob("*.md"))]:
        text = claims.page_text(verdicts) if path.name == "claims.md" else path.read_text(encoding="utf-8")
        for name, content in inside.get(path.relative_to(root).as_posix(), {}).items():
            text = between(text, name, content)
        texts[path] = figures(text, find)
    return texts | {root / "notebooks" / contents.FILE: contents.content()}


def write_notebook(path, find) -> None:
    """Write the marked figures of a notebook's prose. Raises `ValueError` for one that no cell printed."""
    notebook = notebooks.read(path)
    before = json.dumps(notebook)
    if problems := notebook_figures(notebook, find):
        raise ValueError(f"{path.name}: {'; '.join(problems)}")
    if json.dumps(notebook) != before:
        replace_file(path, notebooks.as_json(notebook) + "\n")


def write_pages() -> None:
    """Write what `pages` returns, the figures in the notebooks' prose, what solutions quote, and the pictures if they
    show other figures than the records."""
    find, root = recorded(measured()), project_root()
    answers.write_quotes()
    for path in notebooks.every():
        write_notebook(path, find)
    for path, text in pages(find).items():
        if text != path.read_text(encoding="utf-8"):
            replace_file(path, text)
    for name, colors in PICTURES.items():
        if not (root / name).exists() or Image.open(root / name).info.get("Description") != shown(find):
            file = io.BytesIO()
            three_measures(find, *colors).savefig(file, format="png", dpi=150, metadata={"Description": shown(find)})
            replace_file(root / name, file.getvalue())
    pieces.write()
    live.write_still()
