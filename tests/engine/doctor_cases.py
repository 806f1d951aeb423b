"""What the tests of the doctor share."""

from conftest import TOY_CONFIG

from rethink_pretrain.config import load_config


def toy_cfg(*opts):
    cfg = load_config(TOY_CONFIG, opts=[str(opt) for opt in opts])
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def only(findings, severity, *words):
    """There is one finding, of that severity, that says these words."""
    assert [finding.severity for finding in findings] == [severity]
    text = str(findings[0])
    assert text.startswith(f"{severity}: ") and " Fix: " in text and text.endswith((".", ")"))
    for word in words:
        assert word in text
