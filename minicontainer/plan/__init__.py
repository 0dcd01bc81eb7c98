"""Containers as lists of steps: the language of plans, how C is given one, one run of it, and its timeline.

The names of the language are here, so that a script says ``from minicontainer import plan as p``. What runs a plan is
in ``minicontainer.plan.spawn``, what a run took in ``minicontainer.plan.timeline``.
"""

from minicontainer.plan.language import *  # noqa: F403
from minicontainer.plan.language import __all__ as __all__
