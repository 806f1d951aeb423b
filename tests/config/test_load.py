"""load_config on files written here: what it refuses, with which words, and who wins over whom."""

import os

import pytest
import yaml
from detectron2.config import get_cfg

from rethink_pretrain.config import find_configs, load_config
from rethink_pretrain.errors import UserError

# The host's default freezes two stages of random weights, which validate() refuses.
GOOD = "MODEL: {BACKBONE: {FREEZE_AT: 0}, RESNETS: {NORM: GN}}\n"


@pytest.fixture
def write(tmp_path):
    """(name, text) -> the path of that file in a folder of its own."""

    def _write(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return _write


def refusal(config_file, overlays=(), opts=()) -> str:
    """The message of the one error that a tool shows."""
    with pytest.raises(UserError) as info:
        load_config(config_file, overlays, opts)
    message = str(info.value)
    assert "\n" not in message
    return message


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("text", "key", "suggestion", "valid"),
        [
            ("SOLVER: {MAX_ITR: 5}", "SOLVER.MAX_ITR", "SOLVER.MAX_ITER", "BASE_LR"),
            ("SOLVER: {max_iter: 5}", "SOLVER.max_iter", "SOLVER.MAX_ITER", "BASE_LR"),
            ("MODEL: {RESNETS: {DEPHT: 18}}", "MODEL.RESNETS.DEPHT", "MODEL.RESNETS.DEPTH", "NORM"),
            ("RETHNK: {SCHEDULE: 1x}", "RETHNK", "RETHINK", "SOLVER"),
            ("RETHINK: {SHEDULE: 1x}", "RETHINK.SHEDULE", "RETHINK.SCHEDULE", "REFERENCE_LR"),
        ],
    )
    def test_in_a_file(self, write, text, key, suggestion, valid):
        path = write("a.yaml", (GOOD if "MODEL" not in text else "") + text)
        message = refusal(path)
        assert message.startswith(f"{path}: unknown config key {key}.")
        assert f"Did you mean {suggestion}?" in message
        assert valid in message.partition("Valid here:")[2]

    def test_on_the_command_line(self, write):
        message = refusal(write("a.yaml", GOOD), opts=["MODEL.RESNETS.DEPHT", "18"])
        assert message.startswith("command line: unknown config key MODEL.RESNETS.DEPHT.")
        assert "Did you mean MODEL.RESNETS.DEPTH?" in message
        assert "STRIDE_IN_1X1" in message.partition("Valid here:")[2]

    def test_in_an_overlay(self, write):
        overlay = write("extra.yaml", "TEST: {EVAL_PERIODS: 1}")
        message = refusal(write("a.yaml", GOOD), [overlay])
        assert message.startswith(f"{overlay}: unknown config key TEST.EVAL_PERIODS.")

    def test_nothing_close(self, write):
        message = refusal(write("a.yaml", GOOD + "RETHINK: {QQQQQQ: 1}"))
        assert "Did you mean" not in message
        known = sorted(load_config(write("good.yaml", GOOD)).RETHINK)
        assert f"Valid here: {', '.join(known)}." in message

    def test_number_as_key(self, write):
        assert "unknown config key SOLVER.1." in refusal(write("a.yaml", GOOD + "SOLVER: {1: 2}"))

    @pytest.mark.parametrize("key", ["_BASE_", "SOLVER._BASE_", "", ".", "SOLVER."])
    def test_strange_keys_on_the_command_line(self, write, key):
        assert "unknown config key" in refusal(write("a.yaml", GOOD), opts=[key, "x"])


def test_a_flag_behind_the_pairs_is_told_where_to_go(write):
    message = refusal(write("a.yaml", GOOD), opts=["SEED", "1", "--resume"])
    assert message == "--resume stands behind KEY VALUE pairs. Put it before them."


class TestWrongValues:
    @pytest.mark.parametrize("value", ["5", "null", "[1]", "text"])
    def test_group_in_a_file(self, write, value):
        path = write("a.yaml", GOOD + f"SOLVER: {value}")
        message = refusal(path)
        assert message.startswith(f"{path}: SOLVER is a group of keys (")
        assert "MAX_ITER" in message

    def test_group_on_the_command_line(self, write):
        message = refusal(write("a.yaml", GOOD), opts=["MODEL.BACKBONE", "0"])
        assert message.startswith("command line: MODEL.BACKBONE is a group of keys (NAME, FREEZE_AT)")

    def test_group_for_a_value_in_a_file(self, write):
        path = write("a.yaml", GOOD + "SOLVER: {MAX_ITER: {A: 1}}")
        message = refusal(path)
        assert message.startswith(f"{path}: ")
        assert "SOLVER.MAX_ITER" in message

    @pytest.mark.parametrize("key", ["SOLVER.MAX_ITER.FOO", "MODEL.WEIGHTS.FOO", "MODEL.DEVICE.cuda"])
    def test_key_below_a_value_on_the_command_line(self, write, key):
        message = refusal(write("a.yaml", GOOD), opts=[key, "1"])
        assert message.startswith("command line: ")
        assert key in message

    @pytest.mark.parametrize("opts", [["SOLVER.MAX_ITER"], ["SOLVER.MAX_ITER", "5", "SEED"]])
    def test_odd_number_of_options(self, write, opts):
        assert refusal(write("a.yaml", GOOD), opts=opts) == (
            f"Command-line options come as KEY VALUE pairs; {opts[-1]!r} has no partner."
        )

    def test_type_in_a_file(self, write):
        path = write("a.yaml", GOOD + "SOLVER: {MAX_ITER: many}")
        message = refusal(path)
        assert message.startswith(f"{path}: ")
        assert "(int vs. str)" in message
        assert "many" in message
        assert "SOLVER.MAX_ITER" in message

    def test_type_on_the_command_line(self, write):
        message = refusal(write("a.yaml", GOOD), opts=["SOLVER.MAX_ITER", "many"])
        assert message.startswith("command line: SOLVER.MAX_ITER many: ")
        assert "int" in message
        assert "str" in message


class TestUnreadableFiles:
    def test_missing_file(self, tmp_path):
        path = tmp_path / "none.yaml"
        assert refusal(path).startswith(f"Config file {str(path)!r} does not exist.")

    def test_folder(self, tmp_path):
        assert str(tmp_path) in refusal(tmp_path)

    def test_missing_base(self, write, tmp_path):
        path = write("a.yaml", "_BASE_: [good.yaml, gone.yaml]")
        write("good.yaml", GOOD)
        assert refusal(path) == f"{path}: its _BASE_ file {str(tmp_path / 'gone.yaml')!r} does not exist."

    @pytest.mark.parametrize("base", ["''", ".", "a.yaml", "[a.yaml]", "5", "[5]", "null", "{A: 1}"])
    def test_impossible_base(self, write, base):
        """A folder, the file itself, and what is no name at all."""
        path = write("a.yaml", f"_BASE_: {base}\n{GOOD}")
        assert path in refusal(path)

    def test_bases_in_a_circle(self, write):
        path = write("a.yaml", "_BASE_: b.yaml")
        write("b.yaml", "_BASE_: a.yaml")
        assert path in refusal(path)

    @pytest.mark.parametrize("text", ["", "# a comment\n", "- a\n- b\n", "just words", "5"])
    def test_not_a_mapping(self, write, text):
        path = write("a.yaml", text)
        assert refusal(path).startswith(f"{path}: not a config of KEY: VALUE lines")

    @pytest.mark.parametrize("text", ["", "- a\n", "just words"])
    def test_base_is_not_a_mapping(self, write, text):
        write("base.yaml", text)
        path = write("a.yaml", f"_BASE_: base.yaml\n{GOOD}")
        assert refusal(path).startswith(f"{path}: not a config of KEY: VALUE lines")

    @pytest.mark.parametrize("content", [b"\xff\xfe\xff", b"MODEL: \x00", b"\x89PNG\r\n\x1a\n"])
    def test_not_text(self, tmp_path, content):
        path = tmp_path / "a.yaml"
        path.write_bytes(content)
        assert str(path) in refusal(path)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("SOLVER:\n  STEPS: [1\nSEED: 1\n", 3),
            ("SOLVER:\n\tMAX_ITER: 1\n", 2),
            ("SOLVER:\n  MAX_ITER: 1\n BASE_LR: 1\n", 3),
            ("SEED: 1\nMODEL: a: b\n", 2),
        ],
    )
    def test_syntax_error(self, write, text, line):
        path = write("a.yaml", text)
        assert refusal(path).startswith(f"{path}, line {line}: not valid YAML (")

    def test_syntax_error_in_a_base(self, write):
        base = write("base.yaml", "SOLVER:\n  STEPS: [1\nSEED: 1\n")
        message = refusal(write("a.yaml", "_BASE_: base.yaml\n"))
        assert message.startswith(f"{base}, line 3: not valid YAML (")


class TestCodeInYaml:
    """The host's own merge_from_file would run each of these."""

    RUNNING = [
        "!!python/object/apply:os.system ['touch {marker}']",
        "!!python/object/apply:subprocess.check_call [[touch, '{marker}']]",
        "!!python/object/apply:eval [\"__import__('pathlib').Path('{marker}').touch()\"]",
        "!!python/object/new:tuple [!!python/object/new:map [!!python/name:os.mkdir , ['{marker}']]]",
    ]
    OTHERS = [
        "!!python/object:rethink_pretrain.errors.UserError {}",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
        "!anything 5",
    ]
    PLACES = ["file", "base", "second base", "overlay", "base of an overlay"]

    @pytest.mark.parametrize("tag", RUNNING)
    def test_unsafe_loading_runs_it(self, tmp_path, tag):
        """Or the test after this one would prove nothing."""
        marker = tmp_path / "marker"
        yaml.unsafe_load(tag.replace("{marker}", str(marker)))
        assert marker.exists()

    @pytest.mark.parametrize("tag", RUNNING + OTHERS)
    @pytest.mark.parametrize("place", PLACES)
    def test_refused(self, write, tmp_path, tag, place):
        marker = tmp_path / "marker"
        text = "# line 1\nSEED: 1\nOUTPUT_DIR: " + tag.replace("{marker}", str(marker))
        overlays = []
        if place == "file":
            bad = path = write("a.yaml", text)
        elif place == "base":
            bad, path = write("bad.yaml", text), write("a.yaml", f"_BASE_: bad.yaml\n{GOOD}")
        elif place == "second base":
            write("good.yaml", GOOD)
            bad, path = write("sub/bad.yaml", text), write("a.yaml", "_BASE_: [good.yaml, sub/bad.yaml]")
        else:
            bad, path = write("bad.yaml", text), write("a.yaml", GOOD)
            overlays = [bad if place == "overlay" else write("over.yaml", "_BASE_: bad.yaml")]
        message = refusal(path, overlays)
        assert message.startswith(f"{bad}, line 3: ")
        assert "tags that build objects are refused" in message
        assert not marker.exists()

    @pytest.mark.parametrize(
        "value",
        ["!!python/object/apply:os.system ['touch {marker}']", "__import__('os').system('touch {marker}')"],
    )
    def test_a_value_of_the_command_line_is_text(self, write, tmp_path, value):
        marker = tmp_path / "marker"
        value = value.format(marker=marker)
        cfg = load_config(write("a.yaml", GOOD), opts=["OUTPUT_DIR", value])
        assert cfg["OUTPUT_DIR"] == value
        assert not marker.exists()

    def test_a_quoted_value_is_text(self, write, tmp_path):
        marker = tmp_path / "marker"
        value = f"__import__('os').system('touch {marker}')"
        cfg = load_config(write("a.yaml", f'{GOOD}OUTPUT_DIR: "{value}"'))
        assert cfg["OUTPUT_DIR"] == value
        assert not marker.exists()


class TestHarm:
    """What a config of a stranger could do besides; tests/test_plain_yaml.py has the rest."""

    @pytest.mark.parametrize(
        "url", ["https://example.org/a.yaml", "http://example.org/a.yaml", "s3://b/a.yaml"]
    )
    @pytest.mark.parametrize("form", ["{}", "[{}]", "[good.yaml, {}]"])
    def test_bases_are_not_fetched(self, write, url, form, monkeypatch):
        from detectron2.utils.file_io import PathManager

        write("good.yaml", GOOD)
        monkeypatch.setattr(PathManager, "open", lambda *args, **kwargs: pytest.fail("fetched"))
        message = refusal(write("a.yaml", f"_BASE_: {form.format(url)}"))
        assert f"{url}: configs are files, and never fetched" in message

    def test_a_base_that_never_ends(self, write):
        assert "/dev/zero is a device" in refusal(write("a.yaml", "_BASE_: /dev/zero"))

    def test_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "a.yaml")
        assert "is a device or a pipe" in refusal(tmp_path / "a.yaml")

    def test_bases_that_multiply(self, write):
        """Ten files of ten bases each would be ten thousand million files to read."""
        for level in range(10):
            write(f"{level}.yaml", f"_BASE_: [{', '.join([f'{level + 1}.yaml'] * 10)}]\n{GOOD}")
        write("10.yaml", GOOD)
        path = write("a.yaml", "_BASE_: 0.yaml")
        assert refusal(path) == f"{path}: more than 100 files by _BASE_. Is there a circle?"

    @pytest.mark.parametrize("place", ["file", "base", "overlay"])
    def test_a_key_twice(self, write, place):
        bad, *args = self.place(write, f"{GOOD}SEED: 1\nSEED: 2", place)
        assert refusal(*args) == f"{bad}, line 3: key 'SEED' stands in line 2 already."

    @pytest.mark.parametrize("value", ["true", "True", "yes", "'True'", "1", "[]", "null"])
    @pytest.mark.parametrize("place", ["file", "base", "overlay"])
    def test_no_file_can_trust_pickles(self, write, value, place):
        _, *args = self.place(write, f"RETHINK: {{TRUST_PICKLE: {value}}}\n{GOOD}", place)
        message = refusal(*args)
        assert "RETHINK.TRUST_PICKLE lets weights run code, so no file can set it" in message

    def place(self, write, text, place):
        """A file with `text`, and the arguments of load_config by which it comes in."""
        bad = write("bad.yaml", text)
        if place == "file":
            return bad, bad
        if place == "base":
            return bad, write("a.yaml", "_BASE_: bad.yaml")
        return bad, write("a.yaml", GOOD), [bad]

    def test_the_command_line_can(self, write):
        path = write("a.yaml", GOOD + "RETHINK: {TRUST_PICKLE: false}")
        assert load_config(path).RETHINK.TRUST_PICKLE is False
        cfg = load_config(path, opts=["RETHINK.TRUST_PICKLE", "True"])
        assert cfg.RETHINK.TRUST_PICKLE is True

    def test_a_dumped_config_loads(self, write):
        dumped = load_config(write("a.yaml", GOOD)).dump()
        assert "&id" in dumped  # aliases are allowed, if they do not multiply
        again = load_config(write("config.yaml", dumped)).dump()
        assert yaml.safe_load(again) == yaml.safe_load(dumped)

    @pytest.mark.parametrize(
        "value",
        [
            "2001-13-41",
            "!!int abc",
            "!!float x",
            "!!bool maybe",
            "!!timestamp x",
            "!!binary '###'",
            "!!binary é",
            "!!omap [1]",
            "9" * 5000,
            "'" + "-" * 100_000 + "1'",
            "[[[1]]]",
            ".inf",
        ],
        ids=lambda value: value[:20],
    )
    def test_values_that_are_none(self, write, value):
        path = write("a.yaml", f"{GOOD}SEED: {value}")
        assert path in refusal(path)

    def test_deep_values_on_the_command_line(self, write):
        deep = "1" + "+-" * 50_000 + "1"
        message = refusal(write("a.yaml", GOOD), opts=["OUTPUT_DIR", deep])
        assert message.endswith("a value is nested too deeply.")


class TestOrder:
    def test_later_base_wins(self, write):
        write("one.yaml", GOOD + "SEED: 1\nTEST: {EVAL_PERIOD: 1}")
        write("two.yaml", "SEED: 2\nTEST: {DETECTIONS_PER_IMAGE: 2}")
        cfg = load_config(write("a.yaml", "_BASE_: [one.yaml, two.yaml]"))
        assert (cfg.SEED, cfg.TEST.EVAL_PERIOD, cfg.TEST.DETECTIONS_PER_IMAGE) == (2, 1, 2)
        assert load_config(write("b.yaml", "_BASE_: [two.yaml, one.yaml]")).SEED == 1

    def test_file_wins_over_its_bases(self, write):
        write("base.yaml", GOOD + "SEED: 1")
        assert load_config(write("a.yaml", "_BASE_: base.yaml\nSEED: 7")).SEED == 7

    def test_overlays_then_command_line(self, write):
        path = write("a.yaml", GOOD + "SEED: 1")
        one, two = write("one.yaml", "SEED: 2"), write("two.yaml", "SEED: 3")
        assert load_config(path).SEED == 1
        assert load_config(path, [one, two]).SEED == 3
        assert load_config(path, [two, one]).SEED == 2
        assert load_config(path, [two, one], ["SEED", "4"]).SEED == 4
        assert load_config(path, [two, one], ["SEED", "4", "SEED", "5"]).SEED == 5

    def test_values_are_evaluated_as_in_the_host(self, write):
        cfg = load_config(write("a.yaml", GOOD + 'SOLVER: {STEPS: "(10_000, 20000)", WEIGHT_DECAY: 1e-4}'))
        assert cfg.SOLVER.STEPS == (10000, 20000)
        assert cfg.SOLVER.WEIGHT_DECAY == 0.0001

    def test_result(self, write):
        """Resolved, not frozen, and the host's defaults are as before."""
        cfg = load_config(write("a.yaml", GOOD + "RETHINK: {SCHEDULE: 6x}"))
        assert cfg.SOLVER.MAX_ITER == 540_000
        cfg.SEED = 3  # a frozen config would raise
        assert "RETHINK" not in get_cfg()
        assert get_cfg().SEED == -1


class TestOverlayNames:
    def test_by_name(self, write):
        """Beside the config file, or beside one of its parent folders."""
        write("_overlay/seven.yaml", "SEED: 7")
        for name in ("a.yaml", "toy/a.yaml", "toy/deeper/a.yaml"):
            assert load_config(write(name, GOOD), ["seven"]).SEED == 7

    def test_nearest_folder_wins(self, write):
        write("_overlay/seven.yaml", "SEED: 7")
        write("toy/_overlay/seven.yaml", "SEED: 77")
        assert load_config(write("toy/a.yaml", GOOD), ["seven"]).SEED == 77

    @pytest.mark.parametrize("name", ["sevn", "seven.yaml", "gone/seven.yaml"])
    def test_unknown(self, write, name):
        write("_overlay/seven.yaml", "SEED: 7")
        write("_overlay/eight.yaml", "SEED: 8")
        message = refusal(write("toy/a.yaml", GOOD), [name])
        assert message.startswith(f"Overlay {name!r} is neither a file nor one of: ")
        assert "eight, seven" in message


def test_find_configs(tmp_path):
    for name in (
        "b.yaml",
        "a/c.yaml",
        "_overlay/o.yaml",
        "a/_overlay/p.yaml",
        "sweeps/s.yaml",
        "a/x.txt",
    ):
        path = tmp_path / "sweeps" / name  # the name of a folder above does not count
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    root = tmp_path / "sweeps"
    assert find_configs(root) == [root / "a/c.yaml", root / "b.yaml"]
