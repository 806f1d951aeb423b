"""The host's PreciseBN, each time over the same images."""

from detectron2.engine import hooks


class RepeatedPreciseBN(hooks.PreciseBN):
    """Measures BatchNorm's statistics on the first images of its loader at every call.

    The host goes on where the last call ended, so that a resumed run would measure others.
    """

    def update_stats(self) -> None:
        """As in the host, from the loader's first batch on."""
        self._data_iter = None
        super().update_stats()
