"""The scaling model against sums done by hand, its limits, and published runs."""

import json
from dataclasses import fields, replace

import pytest
from conftest import REPOSITORY

from rethink_pretrain.analysis.scaling import (
    SOURCES,
    Job,
    Machine,
    all_reduce_seconds,
    build_machine,
    compute_seconds,
    predict,
    ring_seconds,
    tree_seconds,
)
from rethink_pretrain.errors import UserError

# 8 GPUs a node; 10 GB/s and 100 us inside, 1 GB/s and 1 ms between: sums that fit in a head.
SLOW = Machine(intra_gb_s=10, intra_us=100, inter_gb_s=1, inter_us=1000)
FREE = Machine(
    intra_gb_s=1e9, intra_us=0, inter_gb_s=1e9, inter_us=0, encode_s=0, eval_share=0, ap_s=0, disk_gb_s=1e9
)
JOB = Job(
    images=8_640_000, images_per_gpu=2, seconds_per_image=0.17, parameters=50_000_000, trainable=50_000_000
)


class TestAllReduce:
    @pytest.mark.parametrize(
        ("size", "members", "seconds"),
        [
            (200e6, 1, 0.0),
            (200e6, 2, 0.2),  # 2 messages of 100 MB at 1 GB/s
            (200e6, 8, 0.35),  # 14 messages of 25 MB
            (0, 8, 0.0),
        ],
    )
    def test_ring(self, size, members, seconds):
        assert ring_seconds(size, members, 1e9, 0) == pytest.approx(seconds)

    def test_latencies(self):
        """Around a ring of 64 go 126 messages, up and down its tree 12."""
        assert ring_seconds(0, 64, 1e9, 1e-3) == pytest.approx(0.126)
        assert tree_seconds(0, 64, 1e9, 1e-3) == pytest.approx(0.012)
        assert tree_seconds(0, 5, 1e9, 1e-3) == pytest.approx(0.006)
        assert tree_seconds(1e9, 1, 1e9, 1e-3) == 0

    def test_many_members_send_everything_twice(self):
        assert ring_seconds(1e9, 100_000, 1e9, 0) == pytest.approx(2, rel=1e-4)

    def test_two_nodes(self):
        """200 MB: 14 x (25 MB / 10 GB/s + 100 us) inside, 2 x (100 MB / 1 GB/s + 1 ms) between."""
        inside, between = 14 * (0.0025 + 0.0001), 2 * (0.1 + 0.001)
        assert all_reduce_seconds(200e6, 16, 8, SLOW) == pytest.approx(inside + between)
        assert all_reduce_seconds(200e6, 8, 8, SLOW) == pytest.approx(inside)

    def test_small_messages_take_the_tree(self):
        """Without bytes: 6 messages inside 8 GPUs instead of 14, 6 between 8 nodes instead of 14."""
        assert all_reduce_seconds(0, 64, 8, SLOW) == pytest.approx(6 * 0.0001 + 6 * 0.001)

    @pytest.mark.parametrize(("gpus", "gpus_per_node"), [(12, 8), (0, 8), (8, 0)])
    def test_no_whole_nodes(self, gpus, gpus_per_node):
        with pytest.raises(UserError, match="no whole number of nodes"):
            all_reduce_seconds(1, gpus, gpus_per_node, SLOW)


class TestStep:
    def test_one_gpu_talks_to_nobody(self):
        step = predict(JOB._replace(synced_norms=50), 1, machine=SLOW).step
        assert step == {"compute": 0.34, "gradients": 0, "SyncBN": 0, "loading": 0}

    def test_gradients_hide_behind_backward(self):
        """50 M x 4 bytes take 36.4 ms on 8 GPUs, of which 80 % hide: backward takes 170 ms."""
        machine = replace(SLOW, overlap=0.8, backward_share=0.5)
        assert predict(JOB, 8, machine=machine).step["gradients"] == pytest.approx(0.2 * 0.0364)

    def test_no_more_hides_than_backward_takes(self):
        machine = replace(SLOW, overlap=1.0, backward_share=0.5)
        step = predict(JOB._replace(seconds_per_image=0.01), 8, machine=machine).step
        assert step["gradients"] == pytest.approx(0.0364 - 0.01)

    def test_half_the_bytes(self):
        machine = replace(SLOW, overlap=0, intra_us=0)
        full, half = (predict(JOB._replace(gradient_bytes=n), 8, machine=machine) for n in (4, 2))
        assert half.step["gradients"] == pytest.approx(full.step["gradients"] / 2)

    def test_sync_norms_wait(self):
        """53 layers x 4 messages x 6 x 100 us."""
        step = predict(JOB._replace(synced_norms=53), 8, machine=replace(SLOW, sync_kb=0)).step
        assert step["SyncBN"] == pytest.approx(53 * 4 * 600e-6)

    def test_loading_sets_the_pace(self):
        """2 images at 5 a second per core and 2 cores take 0.2 s, whatever the GPU."""
        machine = replace(FREE, loader_images_s=5, cores_per_gpu=2)
        for seconds in (0.01, 0.05):
            prediction = predict(JOB._replace(seconds_per_image=seconds), 8, machine=machine)
            assert prediction.seconds_per_iteration == pytest.approx(0.2)
            assert prediction.largest_loss[0] == "loading"

    def test_fixed_part(self):
        assert predict(JOB._replace(fixed_seconds=0.1), 1).step["compute"] == pytest.approx(0.1 + 2 * 0.17)


class TestRun:
    def test_free_communication_scales_perfectly(self):
        """6x: 540,000 iterations of 16 images on 8 GPUs, 0.34 s each, are 51 h; one GPU takes 408."""
        eight, one = (predict(JOB, gpus, machine=FREE) for gpus in (8, 1))
        assert (eight.iterations, eight.batch, eight.nodes) == (540_000, 16, 1)
        assert (eight.hours, one.hours) == (pytest.approx(51), pytest.approx(408))
        assert eight.gpu_hours == pytest.approx(one.gpu_hours)
        assert eight.efficiency == pytest.approx(1)

    def test_evaluation(self):
        """Every 80,000 images are 108 times; 625 of 5,000 images on each GPU, 0.05 + 0.02 s, and AP."""
        machine = replace(FREE, eval_share=0.5, encode_s=0.02, ap_s=10)
        run = predict(JOB._replace(seconds_per_image=0.1, eval_every=80_000), 8, machine=machine).run
        assert run["evaluation"] == pytest.approx(108 * (625 * 0.07 + 10))

    def test_serial_ap_is_what_remains_of_evaluation(self):
        machine = replace(FREE, eval_share=0.5, ap_s=10)
        run = predict(JOB._replace(eval_every=80_000), 8 * 625, machine=machine).run
        assert run["evaluation"] == pytest.approx(108 * (0.085 + 10))

    def test_checkpoints(self):
        """45.7 M parameters and as much momentum are 366 MB; without a period there is one, at the end."""
        job = JOB._replace(parameters=45_711_152, trainable=45_711_152)
        assert job.checkpoint_gb == pytest.approx(0.366, abs=0.001)
        machine = replace(FREE, disk_gb_s=job.checkpoint_gb / 2)
        assert predict(job, 8, machine=machine).run["checkpoints"] == pytest.approx(2)
        job = job._replace(checkpoint_every=80_000)
        assert predict(job, 8, machine=machine).run["checkpoints"] == pytest.approx(216)

    def test_parts_add_up(self):
        prediction = predict(JOB._replace(synced_norms=9, eval_every=1e6), 64, machine=SLOW)
        step = sum(prediction.step.values()) * prediction.iterations
        rest = prediction.run["evaluation"] + prediction.run["checkpoints"]
        assert prediction.hours * 3600 == pytest.approx(step + rest)

    def test_more_gpus_are_faster_and_less_efficient(self):
        job = JOB._replace(synced_norms=53, eval_every=80_000, checkpoint_every=80_000)
        sizes = [predict(job, gpus) for gpus in (1, 2, 4, 8, 16, 64, 512)]
        hours = [p.hours for p in sizes]
        efficiencies = [p.efficiency for p in sizes]
        assert hours == sorted(hours, reverse=True)
        assert efficiencies == sorted(efficiencies, reverse=True)

    @pytest.mark.parametrize(
        "better", ["intra_gb_s", "inter_gb_s", "overlap", "loader_images_s", "cores_per_gpu", "disk_gb_s"]
    )
    def test_a_better_machine_is_never_slower(self, better):
        worse = replace(SLOW, loader_images_s=3)
        job = JOB._replace(seconds_per_image=0.05)
        better = replace(worse, **{better: getattr(worse, better) * 1.1})
        assert predict(job, 64, machine=better).hours < predict(job, 64, machine=worse).hours + 1e-9


class TestBreaksFirst:
    def test_batch(self):
        """Detectron2 trained from scratch with 64 images; 66 nobody did."""
        job = JOB._replace(images_per_gpu=1)
        assert predict(job, 64, machine=FREE).breaks_first() == "nothing"
        assert predict(job, 66, 66, FREE).breaks_first() == "no published run above batch 64"

    def test_the_largest_loss(self):
        machine = replace(FREE, ap_s=3600.0)
        prediction = predict(JOB._replace(eval_every=864_000), 8, machine=machine)
        assert prediction.largest_loss == ("evaluation", pytest.approx(10 / 61))
        assert prediction.breaks_first() == "evaluation (16%)"


class TestMachine:
    def test_every_value_has_a_source(self):
        assert list(SOURCES) == [field.name for field in fields(Machine)]
        assert all(
            any(word in source for word in ("assumption", "measured", "COCO", "Detectron2", "layers/"))
            for source in SOURCES.values()
        )

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"bandwidth": 3}, "Nothing called 'bandwidth' is assumed"),
            ({"overlap": 1.1}, "a share of 0 to 1, not 1.1"),
            ({"backward_share": 1.0}, "a share of 0 to 0.99"),
            ({"inter_gb_s": 0}, "must be above 0"),
        ],
    )
    def test_impossible_values(self, values, message):
        with pytest.raises(UserError, match=message):
            build_machine(values)

    def test_values_replace_defaults(self):
        assert build_machine({"inter_gb_s": 50}) == replace(Machine(), inter_gb_s=50)


class TestCalibration:
    @pytest.mark.parametrize("seconds", [0.001, 0.01, 0.3])
    @pytest.mark.parametrize("gpus", [1, 8, 64])
    def test_is_the_inverse(self, seconds, gpus):
        job = JOB._replace(seconds_per_image=seconds, synced_norms=53)
        machine = replace(SLOW, loader_images_s=1e9)
        measured = predict(job, gpus, machine=machine).seconds_per_iteration
        assert compute_seconds(measured, job, gpus, machine=machine) == pytest.approx(2 * seconds)

    def test_too_little(self):
        with pytest.raises(UserError, match="less than communication takes"):
            compute_seconds(0.001, JOB, 64, machine=SLOW)


class TestPublished:
    """docs/scaling.md, "How far off": tensorpack's rows, and what the model can be held against."""

    IMAGES_2X, IMAGES_9X = 180_000 * 16, 810_000 * 16
    HOURS_8, HOURS_64 = (
        29,
        28,
    )  # R50 GN fine-tuned 2x on 8 V100; R101 GN scratch 9x, cascade, on 64; 1 image each

    def predict_64(self, seconds: float) -> float:
        job = Job(self.IMAGES_9X, 1, seconds, 94_968_478, 94_968_478, eval_every=80_000)
        return predict(job, 64).hours

    def test_by_gflops(self):
        """The row of 8 GPUs, x the GFLOPs of the two models, x Detectron's scratch / fine-tune at 3x."""
        golden = json.loads((REPOSITORY / "tests" / "golden" / "models.json").read_text())
        flops = [
            golden[f"{name}.yaml"]["gflops"]
            for name in ("finetune_2x", "paper/scratch_R101_gn_cascade_trainaug_9x")
        ]
        base = self.HOURS_8 * 3600 / (self.IMAGES_2X / 8)
        assert base == pytest.approx(0.29)
        seconds = base * flops[1] / flops[0] * 1.087 / 1.033
        assert seconds == pytest.approx(0.501, abs=0.001)
        hours = self.predict_64(seconds)
        assert f"{hours:.1f} h, {hours / self.HOURS_64 - 1:+.0%}" in doc()

    def test_by_published_ratios(self):
        """x Detectron's R101 scratch / R50 fine-tune, x the cascade of tensorpack's 16 GPUs, 4x in 36 h."""
        base = 0.29
        cascade = 36 * 3600 / (360_000 * 16 / 16) / base
        hours = self.predict_64(base * cascade * 1.243 / 1.033)
        assert f"{hours:.1f} h, {hours / self.HOURS_64 - 1:+.0%}" in doc()

    def test_by_detectron2(self):
        """From 0.338 s on 8 V100 and GFLOPs: another implementation, two images at a time."""
        hours = self.predict_64(0.1688 * 1039.3 / 632.45)
        assert f"{hours:.1f} h, {hours / self.HOURS_64 - 1:+.0%}" in doc()

    def test_what_the_model_adds(self):
        """Little to plain arithmetic, so the check says little: the document has to admit it."""
        alone = [self.IMAGES_9X / 64 * seconds / 3600 for seconds in (0.5015, 0.4332)]
        assert "gives {:.1f} and {:.1f} h".format(*alone) in doc()
        assert self.predict_64(0.5015) / alone[0] == pytest.approx(1.06, abs=0.005)


def doc() -> str:
    return (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
