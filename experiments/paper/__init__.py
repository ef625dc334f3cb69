"""The paper's experiments, one a module or package; see `experiments.paper.experiment` for what each has."""

EXPERIMENTS = (
    "e1_discovery",
    "e2_layers",
    "e3_trajectories",
    "e4_vqa",
    "e5_static",
    "e6_dynamic",
    "e7_sweeps",
    "e8_natural",
    "e9_checkpoints",
    "e10_causes",
)
"""Their modules, in the order in which they run: the others steer the heads that the first one finds."""
ALL = (*EXPERIMENTS, "judge_calibration")
"""Those, and how far the judges of their answers can be trusted."""
