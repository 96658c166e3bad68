"""The published benchmarks, and one's own: tasks, models and seeds as a grid whose results can be trusted."""

from importlib.util import find_spec

from mutbert.errors import MissingExtraError

for _module, _library in (("torch", "torch"), ("sklearn", "scikit-learn")):
    if find_spec(_module) is None:
        raise MissingExtraError(_library, "all")
