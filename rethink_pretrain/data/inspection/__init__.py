"""What is wrong with a COCO-format data set, found before a run meets it, and a repaired copy of its json."""

from .document import check_document
from .image_files import ImageFile, check_images, examine_file
from .kinds import ERRORS, KINDS
from .outcome import check_paths, fix, summary, write
from .repair import Repaired, repair
from .report import Report
from .values import read_document

__all__ = [
    "ERRORS",
    "KINDS",
    "ImageFile",
    "Repaired",
    "Report",
    "check_document",
    "check_images",
    "check_paths",
    "examine_file",
    "fix",
    "read_document",
    "repair",
    "summary",
    "write",
]
