"""What is wrong with a COCO-format data set, found before a run meets it, and a repaired copy of its json."""

from .document import check_document
from .image_files import ImageFile, check_images, examine_file
from .kinds import ERRORS, KINDS
from .outcome import check_paths, describe_repair, repair_as_dict, summary, write, write_repaired
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
    "describe_repair",
    "examine_file",
    "read_document",
    "repair",
    "repair_as_dict",
    "summary",
    "write",
    "write_repaired",
]
