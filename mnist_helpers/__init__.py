"""What the lessons import: data, batches, training, summaries, figures and results. One room each.

A room is imported when something of it is first used: a lesson waits for what it needs, and ``--help`` for nothing.
"""

import importlib

from .version import __version__ as __version__

ROOMS = ("augment", "checkpoint", "cpu", "data", "device", "loader", "optim", "plots", "stats", "train")
SHOWN = {
    "augment": ("Augment", "Brightness", "CenterCropResize", "Contrast", "Elastic", "Rotation", "Scale", "Translation"),
    "course.answers": ("check_answers", "count_weights", "variables_after"),
    "course.grading": ("hand_in",),
    "course.networks": ("network",),
    "course.records": ("record",),
    "course.tables": ("Table", "compare", "measures", "scoreboard", "table_so_far", "trials"),
    "data": ("Split", "load_mnist", "normalize"),
    "device": ("fast_precision", "get_device", "set_seed", "set_threads"),
    "loader": ("Loader",),
    "layers": ("summary",),
    "train": ("each_step", "evaluate", "fit", "train_epoch"),
    "version": ("require",),
}
ROOM_OF = {name: room for room, names in SHOWN.items() for name in names}
__all__ = sorted((*ROOMS, *ROOM_OF))


def __getattr__(name):
    if name not in ROOM_OF and name not in ROOMS:
        raise AttributeError(f"mnist_helpers has no {name}")
    try:
        room = importlib.import_module(f"{__name__}.{ROOM_OF.get(name, name)}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: run `pip install -r requirements.txt` in the course's folder, with the "
                                  "Python that runs this", name=error.name) from error
    value = getattr(room, name) if name in ROOM_OF else room
    globals()[name] = value
    return value


def __dir__():
    return __all__
