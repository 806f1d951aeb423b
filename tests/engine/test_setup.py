import argparse
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
import yaml

from rethink_pretrain.config import load_config
from rethink_pretrain.engine import Processes, Trainer, prepare, start
from rethink_pretrain.engine.run_record import read_run_record
from rethink_pretrain.engine.setup import pick_device, write_config
from rethink_pretrain.errors import UserError, one_line_errors
from rethink_pretrain.files import write_json


def test_the_output_folder_is_named_after_the_config(short_cfg):
    short_cfg.OUTPUT_DIR = "./output"
    prepare(short_cfg, "configs/toy/scratch.yaml")
    assert short_cfg.OUTPUT_DIR == "output/scratch"


def test_another_run_in_the_folder_is_not_overwritten(short_cfg):
    folder = Path(short_cfg.OUTPUT_DIR)
    folder.mkdir()
    (folder / "metrics.json").write_text("{}\n")
    with pytest.raises(UserError, match=r"already holds a run \(metrics\.json\).*--resume"):
        prepare(short_cfg, "a.yaml")
    prepare(short_cfg, "a.yaml", resume=True)
    prepare(short_cfg, "a.yaml", resume=True, eval_only=True)


def test_a_checkpoint_alone_is_a_run(short_cfg):
    """A kill came between the file and the note of it."""
    Path(short_cfg.OUTPUT_DIR).mkdir()
    Path(short_cfg.OUTPUT_DIR, "model_0000009.pth").write_text("x")
    with pytest.raises(UserError, match=r"already holds a run \(model_0000009\.pth\)"):
        prepare(short_cfg, "a.yaml")


def test_a_folder_that_cannot_be_is_refused(short_cfg, tmp_path):
    (tmp_path / "file").write_text("")
    short_cfg.OUTPUT_DIR = str(tmp_path / "file" / "run")
    with pytest.raises(UserError, match=r"Cannot write into .*file/run'.* OUTPUT_DIR"):
        prepare(short_cfg, "a.yaml")


def test_a_resume_names_what_it_changes_and_keeps_the_config_until_it_trains(short_cfg, caplog, monkeypatch):
    args = argparse.Namespace(config_file="", opts=[], resume=False, eval_only=False)
    before = short_cfg.dump()
    changed = short_cfg.clone()
    start(short_cfg, args)
    changed.SOLVER.BASE_LR, args.resume = 0.5, True
    monkeypatch.setattr(logging.getLogger("rethink_pretrain"), "propagate", True)
    start(changed, args)
    file = Path(short_cfg.OUTPUT_DIR, "config.yaml")
    assert file.read_text() == before and "SOLVER.BASE_LR 0.0125 -> 0.5" in caplog.text
    write_config(changed)
    assert file.read_text() == changed.dump()


def test_a_full_disk_costs_lines_of_the_log_and_no_traceback(short_cfg, capsys):
    start(short_cfg, argparse.Namespace(config_file="", opts=[], resume=False, eval_only=False))
    logger = logging.getLogger("rethink_pretrain.test")
    for error, said in ((OSError(28, "No space left on device"), False), (ValueError("a bug"), True)):
        handler = next(h for h in logging.getLogger("rethink_pretrain").handlers if hasattr(h, "stream"))
        original, handler.format = handler.format, raiser(error)
        logger.info("a line")
        handler.format = original
        assert ("Logging error" in capsys.readouterr().err) == said


def raiser(error):
    def fail(record):
        raise error

    return fail


def test_a_batch_that_does_not_divide_is_refused(short_cfg):
    with pytest.raises(UserError, match="IMS_PER_BATCH 2 does not divide by 3"):
        prepare(short_cfg, "a.yaml", Processes(3, 1))


def test_more_processes_than_gpus_are_refused(short_cfg):
    short_cfg.MODEL.DEVICE, short_cfg.SOLVER.IMS_PER_BATCH = "auto", 99
    with pytest.raises(UserError, match=r"99 processes per machine, but (no|\d+) GPUs visible here"):
        prepare(short_cfg, "a.yaml", Processes(99, 99))
    short_cfg.MODEL.DEVICE = "cpu"
    prepare(short_cfg, "a.yaml", Processes(99, 99))


def test_images_per_gpu_make_the_batch(short_cfg):
    short_cfg.RETHINK.IMAGES_PER_GPU, short_cfg.RETHINK.SCHEDULE = 2, "40 images"
    prepare(short_cfg, "a.yaml", Processes(2, 2))
    assert (short_cfg.SOLVER.IMS_PER_BATCH, short_cfg.SOLVER.MAX_ITER) == (4, 10)


@pytest.mark.parametrize(
    ("variables", "job", "expected"),
    [
        ({"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "1"}, "", True),
        ({"SLURM_RESTART_COUNT": "2"}, "", True),
        ({"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "0"}, "torchrun a", True),
        ({"TORCHELASTIC_RUN_ID": "a", "TORCHELASTIC_RESTART_COUNT": "0"}, "torchrun b", False),
        ({"TORCHELASTIC_RUN_ID": "none"}, "torchrun none", False),
        ({}, "", False),
    ],
)
def test_a_job_that_starts_again_resumes_by_itself(short_cfg, monkeypatch, variables, job, expected):
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    folder = Path(short_cfg.OUTPUT_DIR)
    folder.mkdir()
    write_json(folder / "run.json", {"sessions": [{"job": job}]})
    assert prepare(short_cfg, "a.yaml") is expected


def test_a_resumed_run_keeps_the_seed_that_was_drawn(short_cfg):
    folder = Path(short_cfg.OUTPUT_DIR)
    folder.mkdir()
    write_json(folder / "run.json", {"sessions": [{"seed": 12345}]})
    short_cfg.SEED = -1
    start(short_cfg, argparse.Namespace(config_file="", eval_only=False, resume=True))
    assert short_cfg.SEED == 12345


def test_evaluation_of_nothing_is_refused(short_cfg):
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS FILE, or --resume"):
        prepare(short_cfg, "a.yaml", eval_only=True)
    short_cfg.MODEL.WEIGHTS = "model.pth"
    prepare(short_cfg, "a.yaml", eval_only=True)


def test_a_package_for_evaluations_is_missed_before_training(short_cfg, monkeypatch):
    short_cfg.RETHINK.SPEED.COCO_EVAL = "hotcoco"
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(UserError, match="`pip install hotcoco`"):
        prepare(short_cfg, "a.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused_and_auto_is_the_cpu(short_cfg):
    short_cfg.MODEL.DEVICE = "cuda"
    for precision in ("fp32", "auto"):
        short_cfg.RETHINK.SPEED.PRECISION = precision
        with pytest.raises(UserError, match="no GPU is visible"):
            prepare(short_cfg, "a.yaml")
    assert pick_device("auto") == "cpu" and pick_device("meta") == "meta"


def test_an_unknown_device_is_refused(short_cfg):
    short_cfg.MODEL.DEVICE = "gpu"
    with pytest.raises(UserError, match="'gpu' is none: choose auto, cpu"):
        prepare(short_cfg, "a.yaml")


def test_unknown_data_set_lists_the_registered_ones(short_cfg):
    short_cfg.DATASETS.TRAIN = ("coco_2018_train",)
    with pytest.raises(UserError, match=r"Unknown data set 'coco_2018_train'.*coco_2017_train.*toy_train"):
        prepare(short_cfg, "a.yaml")


def test_config_yaml_can_be_trained_from_again(short_cfg):
    """It keeps DEVICE auto for the next machine; the seed that was drawn is in it."""
    short_cfg.MODEL.DEVICE, short_cfg.SEED = "auto", -1
    start(short_cfg, argparse.Namespace(config_file="", eval_only=False, resume=False))
    assert short_cfg.is_frozen()
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert Trainer.build_model(short_cfg).device.type == expected
    path = Path(short_cfg.OUTPUT_DIR, "config.yaml")
    dumped = yaml.safe_load(path.read_text())
    assert dumped["MODEL"]["DEVICE"] == "auto" and dumped["SEED"] == short_cfg.SEED >= 0
    assert load_config(path).SOLVER == short_cfg.SOLVER


def test_brief_keeps_the_dump_of_the_config_off_the_screen(short_cfg, capsys):
    start(short_cfg, argparse.Namespace(config_file="", eval_only=False, resume=False), brief=True)
    logging.getLogger("detectron2.utils.events").info("progress")
    logging.getLogger("detectron2.data").warning("look out")
    shown = capsys.readouterr().out
    assert "progress" in shown and "look out" in shown and "Running with full config" not in shown
    assert "Running with full config" in Path(short_cfg.OUTPUT_DIR, "log.txt").read_text()


def test_one_line_errors_hides_users_mistakes_and_no_bug(capsys):
    with pytest.raises(SystemExit) as exit_info, one_line_errors():
        raise UserError("the folder is empty")
    assert exit_info.value.code == 1 and capsys.readouterr().err == "error: the folder is empty\n"
    with pytest.raises(ValueError, match="a bug"), one_line_errors():
        raise ValueError("a bug")


def test_write_json_replaces_whole_files(tmp_path):
    path = tmp_path / "run.json"
    assert read_run_record(path) == {"sessions": []}
    write_json(path, {"sessions": [1]})
    with pytest.raises(TypeError):
        write_json(path, {"sessions": object()})
    assert json.loads(path.read_text()) == {"sessions": [1]}
