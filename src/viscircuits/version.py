"""The version of the package; it stands nowhere else."""

__version__ = "0.1.0"
