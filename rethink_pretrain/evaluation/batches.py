"""Test loaders with several images at once, on every version of the host."""

from torch.utils.data import DataLoader

from ..errors import UserError


def in_batches(loader: DataLoader, size: int) -> DataLoader:
    """`loader`, of one image at a time, with `size` of them in the same order; the last may have fewer."""
    if size < 1:
        raise UserError(f"RETHINK.SPEED.TEST_BATCH is {size}. Set it to 1 or more.")
    if size == 1:
        return loader
    return DataLoader(
        loader.dataset,
        batch_size=size,
        sampler=loader.sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
    )
