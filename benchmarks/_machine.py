"""Where and when a measurement was taken: hardware, versions, date, and how busy the machine was."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """The name of the GPU, or that of the processor with its cores and the instructions that PyTorch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def processor() -> str:
    """The name of the CPU where Linux gives it, otherwise that of the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> str:
    return f"torch {torch.__version__}, Python {platform.python_version()}"


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def load() -> str:
    """The load average of the last minute: how many processes wanted a core, this one included."""
    return f"{os.getloadavg()[0]:.1f}"
