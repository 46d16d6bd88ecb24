"""Aes-R1: judge the beauty of a photograph, with reasons. Importing this package loads no model library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Scorer", "__version__", "reward_function"]

if TYPE_CHECKING:
    from aesr1.app.reward import reward_function
    from aesr1.app.score import Scorer


def __getattr__(name: str) -> Any:
    """Load a name on first use, so that `import aesr1` stays instant."""
    if name == "Scorer":
        from aesr1.app.score import Scorer

        return Scorer
    if name == "reward_function":
        from aesr1.app.reward import reward_function

        return reward_function
    raise AttributeError(f"module 'aesr1' has no attribute {name!r}")
