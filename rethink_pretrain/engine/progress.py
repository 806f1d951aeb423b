"""Training progress on the screen: a live bar on a terminal, the host's log lines elsewhere."""

from detectron2.utils.events import CommonMetricPrinter, EventStorage, EventWriter, get_event_storage

from ..progress import Task, on_terminal, start

_LOSS_WINDOW = 20  # iterations whose median is shown, as in the host's log lines


def build_progress_writer(max_iter: int) -> EventWriter:
    """The bar where standard output is a terminal, else the host's lines."""
    return ProgressBar(max_iter) if on_terminal() else LinePrinter(max_iter)


class LinePrinter(CommonMetricPrinter):
    """The host's lines, one for each iteration: of a second in its first steps it divides by zero."""

    _written = -1

    def write(self) -> None:
        """Nothing for an iteration that has its line."""
        now = get_event_storage().iter
        if now != self._written:
            self._written = now
            super().write()


class ProgressBar(EventWriter):
    """One line: iterations, ETA, total loss, the losses it is made of, and the latest AP."""

    def __init__(self, max_iter: int):
        self._max_iter = max_iter
        self._task: Task | None = None

    def write(self) -> None:
        """Show the state of the current event storage; the first call puts the bar on the screen."""
        storage = get_event_storage()
        if self._task is None:
            self._task = start("training", self._max_iter, done=storage.iter)
        self._task.move_to(min(storage.iter + 1, self._max_iter), status=describe(storage))

    def close(self) -> None:
        """Leave the last state on the screen and give the log its stream back."""
        if self._task is not None:
            self._task.stop()
        self._task = None


def describe(storage: EventStorage) -> str:
    """Losses and AP so far in words, e.g. "loss 1.234 (cls 0.51 mask 0.30) box AP 12.3 mask AP 10.1"."""
    histories = storage.histories()
    words = []
    if "total_loss" in histories:
        words.append(f"loss {histories['total_loss'].median(_LOSS_WINDOW):.3f}")
    parts = [
        f"{key.removeprefix('loss_')} {history.median(_LOSS_WINDOW):.2f}"
        for key, history in histories.items()
        if key.startswith("loss_")
    ]
    if parts:
        words.append(f"({' '.join(parts)})")
    for key, label in (("bbox/AP", "box AP"), ("segm/AP", "mask AP")):
        if key in histories:
            words.append(f"{label} {histories[key].latest():.1f}")
    return " ".join(words)
