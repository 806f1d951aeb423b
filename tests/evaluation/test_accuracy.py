"""Top-1 and top-5 by hand, in one process and in two."""

import torch
from two_processes import run_on_two_ranks

from rethink_pretrain.evaluation.classification import ClassificationEvaluator

# Scores of 7 classes, and the rank of each label among them: 1, 3, 6, 1.
SCORES = torch.tensor(
    [
        [0.7, 0.1, 0.05, 0.05, 0.04, 0.03, 0.03],
        [0.3, 0.25, 0.2, 0.1, 0.08, 0.05, 0.02],
        [0.3, 0.25, 0.2, 0.1, 0.08, 0.05, 0.02],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
    ]
)
LABELS = [0, 2, 5, 6]


def evaluate(rows):
    evaluator = ClassificationEvaluator()
    evaluator.reset()
    evaluator.process([{"label": LABELS[i]} for i in rows], [{"scores": SCORES[i]} for i in rows])
    return evaluator.evaluate()


def evaluate_share(rank):
    return evaluate([0] if rank == 0 else [1, 2, 3])


def test_by_hand():
    assert evaluate(range(4)) == {"classification": {"top1": 50.0, "top5": 75.0}}


def test_no_top5_of_few_classes():
    evaluator = ClassificationEvaluator()
    evaluator.reset()
    evaluator.process([{"label": 1}], [{"scores": torch.tensor([0.2, 0.8])}])
    assert evaluator.evaluate() == {"classification": {"top1": 100.0}}


def test_two_processes_are_one(tmp_path):
    first, second = run_on_two_ranks(evaluate_share, tmp_path)
    assert first == evaluate(range(4)) and second == {}
