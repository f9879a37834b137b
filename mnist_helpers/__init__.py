"""What the lessons import: data, augmentation, training, summaries, figures and results. One room each."""

try:
    from . import augment, data, optim, plots, results, scoreboard, stats, training
    from .augment import Augment, Brightness, CenterCropResize, Contrast, Elastic, Rotation, Scale, Translation
    from .data import load_mnist, normalize
    from .results import compare, measures, record, table_so_far
    from .summary import summary
    from .training import evaluate, fit, get_device, set_seed
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: run `pip install -r requirements.txt` in the course's folder, with the Python "
                              "that runs this", name=error.name) from error

__all__ = [
    "Augment", "Brightness", "CenterCropResize", "Contrast", "Elastic", "Rotation", "Scale", "Translation",
    "augment", "compare", "data", "evaluate", "fit", "get_device", "load_mnist", "measures", "normalize", "optim",
    "plots", "record", "results", "scoreboard", "set_seed", "stats", "summary", "table_so_far", "training",
]
