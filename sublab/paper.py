"""Numbers that the paper published, to be set beside ours."""

from sublab.statistics import Published

__all__ = ["FIGURE_10B", "Published"]

# Cloud et al. 2025, arXiv:2507.14805v1, figure 10b: MNIST, m = 3, test accuracy.
FIGURE_10B: dict[str, Published] = {
    "reference": Published(0.0998, 0.0047),
    "teacher": Published(0.9434, 0.0004),
    "student_aux": Published(0.5284, 0.0221),
    "student_all": Published(0.9126, 0.0019),
    "cross_model_aux": Published(0.1061, 0.0104),
    "cross_model_all": Published(0.7427, 0.0103),
}
