"""Peak memory of distilling a population: `python -m benchmarks.memory MODELS IMAGES BATCH`."""

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.training import PopulationTraining
from sublab import devices


def peak_in_a_process(models: int, images: int, batch: int) -> float:
    """Megabytes that a fresh process takes at most while `models` students train one epoch."""
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, (models, images, batch))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    devices.use_every_core()
    size, examples, step = map(int, sys.argv[1:])
    PopulationTraining("distillation", size, devices.population_mesh(), examples, step).epoch()
    # Not getrusage: a child there inherits the peak of the process that started it.
    status = Path("/proc/self/status").read_text()
    print(int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024)
