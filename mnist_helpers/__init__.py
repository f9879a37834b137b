"""What the lessons import: data, batches, training, summaries, figures and results. One room each.

A room is imported when something of it is first used: a lesson waits for what it needs, and ``--help`` for nothing.
"""

import importlib
from typing import TYPE_CHECKING

from .version import __version__ as __version__

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    # isort: off
    from . import (
        augment as augment, checkpoint as checkpoint, cpu as cpu, data as data, device as device, loader as loader,
        optim as optim, plots as plots, stats as stats, train as train)
    from .augment import (
        Augment as Augment, Brightness as Brightness, CenterCropResize as CenterCropResize, Contrast as Contrast,
        Elastic as Elastic, Rotation as Rotation, Scale as Scale, Translation as Translation)
    from .course.answers import (
        check_answers as check_answers, count_weights as count_weights, variables_after as variables_after)
    from .course.draw import drawings as drawings
    from .course.grading import hand_in as hand_in
    from .course.ideas import ideas as ideas, recipe_of as recipe_of, test_idea as test_idea
    from .course.networks import network as network
    from .course.records import record as record
    from .course.tables import (
        Table as Table, compare as compare, measures as measures, scoreboard as scoreboard,
        table_so_far as table_so_far, trials as trials)
    from .data import Split as Split, load_mnist as load_mnist, normalize as normalize
    from .device import (
        fast_precision as fast_precision, get_device as get_device, set_seed as set_seed, set_threads as set_threads)
    from .idea import try_idea as try_idea
    from .loader import Loader as Loader
    from .layers import summary as summary
    from .train import each_step as each_step, evaluate as evaluate, fit as fit, train_epoch as train_epoch
    from .version import require as require
    # isort: on

ROOMS = ("augment", "checkpoint", "cpu", "data", "device", "loader", "optim", "plots", "stats", "train")
SHOWN = {
    "augment": ("Augment", "Brightness", "CenterCropResize", "Contrast", "Elastic", "Rotation", "Scale", "Translation"),
    "course.answers": ("check_answers", "count_weights", "variables_after"),
    "course.draw": ("drawings",),
    "course.grading": ("hand_in",),
    "course.ideas": ("ideas", "recipe_of", "test_idea"),
    "course.networks": ("network",),
    "course.records": ("record",),
    "course.tables": ("Table", "compare", "measures", "scoreboard", "table_so_far", "trials"),
    "data": ("Split", "load_mnist", "normalize"),
    "device": ("fast_precision", "get_device", "set_seed", "set_threads"),
    "idea": ("try_idea",),
    "loader": ("Loader",),
    "layers": ("summary",),
    "train": ("each_step", "evaluate", "fit", "train_epoch"),
    "version": ("require",),
}
ROOM_OF = {name: room for room, names in SHOWN.items() for name in names}
# For a star import: without the rooms, since `optim` would take the place of torch's.
__all__ = sorted(ROOM_OF)

if not TYPE_CHECKING:  # they would believe any name
    def __getattr__(name):
        if name not in ROOM_OF and name not in ROOMS:
            raise AttributeError(f"mnist_helpers has no {name}")
        try:
            room = importlib.import_module(f"{__name__}.{ROOM_OF.get(name, name)}")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(f"{error}: run `pip install -r requirements.txt` in the course's folder, with "
                                      "the Python that runs this", name=error.name) from error
        value = getattr(room, name) if name in ROOM_OF else room
        globals()[name] = value
        return value


def __dir__():
    return sorted((*ROOMS, *ROOM_OF))
