"""Which machines serve or train a model, how many, and what that costs. Pure functions over a catalogue's offers.

>>> from textnlp_fast.gpu.recommender import Workload, recommend, shape_of_parameters
>>> from textnlp_fast.gpu.catalog import Catalog
>>> catalog = Catalog.load()
>>> workload = Workload(shape=shape_of_parameters(8e9), requests_per_s=20)
>>> plan = recommend(workload, catalog.offers(), catalog.spec).best
"""

from textnlp_fast.gpu.recommender.batch import BatchJob, BatchPlan, plan_batch
from textnlp_fast.gpu.recommender.cheapest import Accelerators, cheapest
from textnlp_fast.gpu.recommender.config_json import ReadModel, parse_config, read_model
from textnlp_fast.gpu.recommender.fine_tune import FineTune, FineTunePlan, plan_fine_tune, training_memory
from textnlp_fast.gpu.recommender.layout import Layout, Memory
from textnlp_fast.gpu.recommender.mixed import mixed_fleet
from textnlp_fast.gpu.recommender.plans import Plan, Purchase, Recommendation, recommend
from textnlp_fast.gpu.recommender.serving import Point
from textnlp_fast.gpu.recommender.shape import LatentAttention, ModelShape, shape_of_parameters
from textnlp_fast.gpu.recommender.workload import Workload

__all__ = [
    "Accelerators",
    "BatchJob",
    "BatchPlan",
    "FineTune",
    "FineTunePlan",
    "LatentAttention",
    "Layout",
    "Memory",
    "ModelShape",
    "Plan",
    "Point",
    "Purchase",
    "ReadModel",
    "Recommendation",
    "Workload",
    "cheapest",
    "mixed_fleet",
    "parse_config",
    "plan_batch",
    "plan_fine_tune",
    "read_model",
    "recommend",
    "shape_of_parameters",
    "training_memory",
]
