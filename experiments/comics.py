"""Old place of `experiments.data.comics`."""

import warnings

from experiments.data.comics import Comics, HubRows, PanelFolders, RawPages

__all__ = ["Comics", "HubRows", "PanelFolders", "RawPages"]

warnings.warn("experiments.comics has moved: import from experiments.data.comics", DeprecationWarning, stacklevel=2)
