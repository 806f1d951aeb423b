"""The kinds of problems: what each means, and whether training or evaluation is hurt by it."""

from .. import geometry

_DOCUMENT_ERRORS = {
    "nothing-listed": "there is no image or no category: nothing to learn from",
    "record-form": "an entry of images, annotations or categories is no object {...}",
    "id-form": "an id is missing or is no whole number",
    "id-type": 'an id is written as text or fraction: "7" or 7.0',
    "image-id-negative": "the compiled evaluation takes no negative id of an image",
    "image-id-twice": "an image has the id of an earlier one",
    "annotation-id-twice": "an annotation has the id of an earlier one",
    "annotation-id-below-1": "COCO's evaluation takes a match with such an id for no match",
    "category-id-twice": "a category has the id of an earlier one",
    "category-name-form": "the name of a category is missing or is no text",
    "category-name-twice": "a category has the name of an earlier one",
    "keypoint-names-form": "the keypoints of a category are not a list of names",
    "category-unknown": "an annotation is of a category that is not listed",
    "file-name-missing": "an image has no file_name",
    "file-name-unsafe": "a file name leads out of the folder of images",
    "image-size-form": "width or height is missing, or no whole number of px",
    "box-missing": "an annotation has no box",
    "area-form": "the area is no number of px^2",
    "iscrowd-form": "iscrowd is neither 0 nor 1",
    "ignore-set": '"ignore" is not supported: iscrowd 1 means the same',
    "num-keypoints-form": "num_keypoints is no whole number",
}
_DOCUMENT_WARNINGS = {
    "image-unlisted": "an annotation is of an image that is not listed",
    "image-without-objects": "an image has no annotations",
    "category-id-gap": "ids of categories are skipped; classes are numbered without gaps",
    "category-without-objects": "a category has no annotations",
    "file-name-twice": "an image has the file of an earlier one",
    "segmentation-missing": "other objects have masks: set MODEL.MASK_ON False",
    "keypoints-missing": "other objects have keypoints: set MODEL.KEYPOINT_ON False",
    "area-missing": "an annotation has no area; some tools need it",
    "area-wrong": "the area is more than 50 % off the mask, or beyond the box",
    "annotation-twice": "same image, category and box as an earlier one",
}
_FILE_ERRORS = {
    "image-missing": "the file of an image is not there",
    "image-empty": "the file has no bytes",
    "image-unreadable": "the file cannot be decoded, or its end is missing",
    "image-format": "no format of images that is read here",
    "image-huge": "more pixels than --max-pixels; it was not decoded",
    "image-size-differs": "the file has another width or height than the json says",
    "image-size-rotated": "as before, because the json does not heed the EXIF rotation",
}
_FILE_WARNINGS = {
    "image-extension": "the name ends like another format than the content has",
    "image-cmyk": "colours of print: converted to RGB roughly",
    "image-16-bit": "8-bit reading would clip or refuse it: use INPUT.FORMAT RAW",
    "image-raw-only": "readable with INPUT.FORMAT RAW alone",
    "image-alpha": "transparency is left out by 8-bit reading",
    "image-exif-rotation": "the camera's rotation is applied; boxes have to be drawn after it",
    "image-frames": "animated or of several pages: the first is read",
    "image-content-twice": "the same bytes as an earlier file",
}

ERRORS = frozenset(_DOCUMENT_ERRORS) | geometry.GRAVE | frozenset(_FILE_ERRORS)

# Kind -> meaning, in the order of the report.
KINDS = {
    **_DOCUMENT_ERRORS,
    **{kind: meaning for kind, meaning in geometry.KINDS.items() if kind in geometry.GRAVE},
    **_FILE_ERRORS,
    **_DOCUMENT_WARNINGS,
    **{kind: meaning for kind, meaning in geometry.KINDS.items() if kind not in geometry.GRAVE},
    **_FILE_WARNINGS,
}


def severity(kind: str) -> str:
    """ "error": refused, or hurts training or evaluation; "warning": odd, and can be trained on."""
    return "error" if kind in ERRORS else "warning"
