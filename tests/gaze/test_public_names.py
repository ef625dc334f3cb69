"""What the packages declare as public, tried in a fresh process."""

import subprocess
import sys

SHIPPED = ("qwen3vl_jax", "gaze", "convert", "experiments")


def test_packages_import_no_jax_and_their_public_names_no_transformers() -> None:
    lines = [
        f"import sys, {', '.join(SHIPPED)}",
        "assert 'jax' not in sys.modules",
        *[
            f"from {package} import *"
            for package in (*SHIPPED, "qwen3vl_jax.load", "qwen3vl_jax.processing", "gaze.testbed")
        ],
        "assert 'transformers' not in sys.modules",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
