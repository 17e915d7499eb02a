"""The steps of an experiment, each keeping its results in the experiment's folder.

    out/model/                      the trained model                            (`train_model`)
    out/vocabulary/                 of a new translation model
    out/train/                      the last training states
    out/epochs/NN/                  the model of each epoch, on request
    out/importance/                 sums of head importance                      (`importance`)
    out/importance_gradients/       each example's gate gradients, on request
    out/linear/SPLIT/               the linear map of every example of a split   (`map_splits`)
    out/ablation/SPLIT/SET/         every mask on every example of a split       (`ablate`)
    out/estimates/SPLIT/SET/        the same of some examples, on request
    out/pruning/ORDER/ranking/      scores and masks of each step                (`prune_orders`)
    out/pruning/ORDER/test/         the curve's masks on every test example
    out/pruning/ORDER/RECOVERY/     on request, for `calibrate`, `repair`, `rescale` and `retrain`:
                                    a test, and a ranking if it is another one
    out/pruning/ORDER/RECOVERY/models/NN/   the recovered model without NN heads
    out/pruning/oracle/select/      the ablations behind the oracle order, if out/ablation has them
                                    on another split
    out/pruning/shapley/values/     the Shapley values of each draw

    out/pruning/ORDER-PER/          the same for each reduction of importance in `pruning.per`
    out/epochs/NN/pruning/          curves of the model of an epoch              (`hp_jax.paper`)
    out/seeds/N/                    the same experiment with another seed
    out/halves/N/                   the scores of each order's first step, from either half of the
                                    examples (and draws)                         (`compare_orders`)
    out/half/, out/speed/           the model without half of its heads, and how fast that is

With pruning restricted to one type of attention, ORDER is the order's name and the type's, such as
`one_shot.cross`; so it is with SET, such as `one_off.cross`.

All but models and training states are stores (`hp_jax.storage.store`).  A step that is finished is
not done again; one that was interrupted goes on; one whose input has changed is refused.
"""

from hp_jax.experiment.ablation import ablate, ablation
from hp_jax.experiment.mapping import map_splits
from hp_jax.experiment.orders import compare_orders
from hp_jax.experiment.pruning import Curve, prune_orders
from hp_jax.experiment.scoring import importance
from hp_jax.experiment.setup import Setup, check_removes, load
from hp_jax.experiment.training import train_if_needed, train_model

__all__ = [
    "Curve",
    "Setup",
    "ablate",
    "ablation",
    "check_removes",
    "compare_orders",
    "importance",
    "load",
    "map_splits",
    "prune_orders",
    "train_if_needed",
    "train_model",
]
