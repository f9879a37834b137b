"""What the lessons import: data, batches, training, summaries, figures and results. One room each."""

try:
    from . import augment, checkpoint, cpu, data, device, loader, optim, plots, stats, train
    from .augment import Augment, Brightness, CenterCropResize, Contrast, Elastic, Rotation, Scale, Translation
    from .course.records import record
    from .course.tables import Table, compare, measures, scoreboard, table_so_far, trials
    from .data import Split, load_mnist, normalize
    from .device import fast_precision, get_device, set_seed
    from .loader import Loader
    from .summary import summary
    from .train import each_step, evaluate, fit, train_epoch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: run `pip install -r requirements.txt` in the course's folder, with the Python "
                              "that runs this", name=error.name) from error

__all__ = [
    "Augment", "Brightness", "CenterCropResize", "Contrast", "Elastic", "Loader", "Rotation", "Scale", "Split", "Table",
    "Translation", "augment", "checkpoint", "compare", "cpu", "data", "device", "each_step", "evaluate",
    "fast_precision", "fit", "get_device", "load_mnist", "loader", "measures", "normalize", "optim", "plots", "record",
    "scoreboard", "set_seed", "stats", "summary", "table_so_far", "train", "train_epoch", "trials",
]
