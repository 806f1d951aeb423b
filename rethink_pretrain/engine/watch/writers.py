"""When metrics.json, TensorBoard and the like are written."""

from detectron2.engine import hooks

from .evaluations import measured_now


class PromptWriter(hooks.PeriodicWriter):
    """The host's hook, which also writes right after an evaluation.

    Otherwise one could be lost: to a kill before the period is over, or to the next evaluation. Runs
    that are resumed look the earlier ones up in metrics.json.
    """

    def after_step(self) -> None:
        """At the end of a period, as in the host, and after evaluations. Writing twice does no harm."""
        super().after_step()
        if measured_now(self.trainer.storage):
            for writer in self._writers:
                writer.write()
