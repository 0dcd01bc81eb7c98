"""Plans: containers as lists of steps.

This package exports the language of plans (``from minicontainer import plan as p``). ``minicontainer.plan.spawn`` runs
a plan, ``minicontainer.plan.timeline`` reports the time that each step took.
"""

from minicontainer.plan.language import *  # noqa: F403
from minicontainer.plan.language import __all__ as __all__
