"""Compares the found cell with random cells and with networks made by hand, in three commands (docs/compare.md).

    python -m stages.compare.plan SEEDS RANDOM    chooses the networks
    python -m stages.compare.train KEY            trains one of them with one seed
    python -m stages.compare.finish               compares the results

The flow pipelines/compare.py runs them. They know no task: the part ``comparison`` of a task's package offers the
networks (stages/contracts.py).
"""
