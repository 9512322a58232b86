"""From install to a learned order on your own images.

``docs/tutorial.md`` and ``docs/tutorial.ipynb`` are made from this file by
``python docs/build_tutorial.py``. Run it from the root of the repository.
"""

# %% [markdown]
# # Tutorial: a learned order on your own images
#
# You will train a policy that decides where to look in your images. All of it takes about half a
# minute on one CPU core. You need no GPU and no download.
#
# This tutorial exists in three forms with the same content: this page, the script
# `docs/tutorial.py`, and the notebook `docs/tutorial.ipynb`.
#
# ## 1. Install
#
# You need Python 3.11 or newer. In a terminal, in the root of the repository:
#
# ```
# python3 -m venv .venv
# source .venv/bin/activate
# python -m pip install --editable ".[dev]"
# ```
#
# On Linux, pip installs PyTorch with CUDA by default, about 5 GB. If you have no GPU, install
# PyTorch's CPU version first ([troubleshooting](troubleshooting.md) shows the command).
#
# Then start `python docs/tutorial.py`, or type along, or open the notebook with Jupyter
# (`python -m pip install notebook`).

# %%
import json
import runpy
import shlex
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from foveate.data import load_data
from foveate.orders import ordering

# %% [markdown]
# ## 2. Your images in a folder
#
# foveate reads a folder with one subfolder for each class:
#
# ```
# my_images/
#   cats/  1.png  2.png  ...
#   dogs/  1.png  2.png  ...
# ```
#
# If you have such a folder, write `work, folder = Path("runs"), Path("my_images")` and skip this
# step. Here we draw 600 small pictures instead. Each has a textured square at a random place on a
# smooth background.

# %%
work = Path(tempfile.mkdtemp())
folder = work / "my_images"
draw = np.random.default_rng(0)


def picture(texture: str) -> Image.Image:
    """Draw one gray picture: a textured square of 12 x 12 pixels on a smooth background."""
    shades = Image.fromarray(draw.uniform(100, 150, (2, 2)).astype(np.uint8))
    pixels = np.array(shades.resize((32, 32), Image.Resampling.BICUBIC))
    row, column = np.mgrid[:12, :12]
    is_bright = {
        "stripes": column // 2 % 2 == 0,
        "checks": (row // 3 + column // 3) % 2 == 0,
        "rings": np.hypot(row - 5.5, column - 5.5) // 2 % 2 == 0,
    }[texture]
    top, left = draw.integers(0, 21, 2)
    pixels[top : top + 12, left : left + 12] = np.where(is_bright, 250, 5)
    return Image.fromarray(pixels)


for texture in ("stripes", "checks", "rings"):
    (folder / texture).mkdir(parents=True)
    for number in range(200):
        picture(texture).save(folder / texture / f"{number:03}.png")

# %% [markdown]
# `load_data` reads the folder. It puts about a tenth of the images aside for validation and another
# tenth for the test. All images get the same size, here 32 x 32 pixels.

# %%
train = load_data(str(folder), "train", image_size=32)
test = load_data(str(folder), "test", image_size=32)
print(len(train), "training images,", len(test), "test images, classes:", train.class_names)

# %% [markdown]
# ## 3. An order is a rank
#
# We cut each image into patches of 8 x 8 pixels, which makes a grid of 4 x 4. An order gives every
# patch a number, its *rank*: the step at which the patch is seen. Two orders that look at no image:

# %%
images = test.batch(torch.arange(3))
print("raster:", ordering("raster", (4, 4))(images)[0].view(4, 4).tolist())
print("center first:", ordering("center_out", (4, 4))(images)[0].view(4, 4).tolist())

# %% [markdown]
# ## 4. Learn an order
#
# A *policy* chooses an order for each image, one *fixation* at a time. It sees a blurred thumbnail
# of the whole image, the *periphery*, and all patches that it has fixated so far. The number of
# fixations is the *budget*, here 5 of 16 patches. After each fixation a transformer predicts the
# patches that are still unseen. The policy is rewarded if that prediction is good.
#
# One command trains both. In a terminal you type `python -m experiments.train demo ...`. Here we
# call the same command from Python:


# %%
def run(command: str) -> None:
    """Do what ``python -m COMMAND`` does in a terminal, without loading everything again."""
    sys.argv = shlex.split(command)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


out = work / "run"
run(
    f"experiments.train demo --data {folder} --image-size 32 --out {out} --no-report "
    "--patch-size 8 --budget 5 --embed-dim 32 --depth 1 --decoder-depth 1 --threads 1 "
    "--warmup-iterations 150 --iterations 80 --warmup-batch-size 64 "
    "--policy-every 2 --policy-lr 4e-3 --random-share 0.5"
)

# %% [markdown]
# `demo` is a preset; every option after it changes one thing. `--embed-dim`, `--depth` and
# `--decoder-depth` make the model tiny. The last line lets the policy learn faster. The first 150
# iterations train the transformer alone, in random orders. The other 80 train it together with the
# policy.
#
# The run folder now holds `metrics.jsonl`, one line for every tenth iteration. `auc` is the area
# under the error curve: the mean error after each fixation, as a share of the error before the
# first. Lower is better. The [glossary](metrics.md) explains every name.

# %%
lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
for line in [line for line in lines if "auc" in line][::3]:
    print(f"iteration {line['iteration']:>3}: area under the error curve {line['auc']:.3f}")

# %% [markdown]
# ## 5. Compare
#
# Is the learned order any good? Compare it with other orders, on test images that neither the
# policy nor the transformer has seen.

# %%
run(f"experiments.compare --run {out} --oracle-limit 60 --threads 1")

# %% [markdown]
# Look at four rows first:
#
# * `random` fixates patches at random.
# * `best_fixed` fixates the same patches in every image: those that the policy fixates early on
#   average. A policy that does not beat it ignores the image.
# * `policy` is what you trained.
# * `oracle` tries every patch on the true image at each step and takes the best. It cheats, and
#   shows how much better a choice could be.

# %%
orders = json.loads((out / "compare.json").read_text())["orders"]
for name in ("random", "best_fixed", "policy", "oracle"):
    print(f"{name:<12} area under the error curve {orders[name]['auc']:.3f}")

# %% [markdown]
# Where this page was written, that printed 0.814 for `random`, 0.669 for `best_fixed`, 0.368 for
# `policy` and 0.302 for `oracle`. Your numbers differ a little. `saliency`, which sees the whole
# image and looks at edges, is better than the policy here: the edges are in the textured square.
#
# ## 6. Draw the scanpaths
#
# A *scanpath* is the sequence of fixations in an image. Left: the numbered fixations. Above: the
# patches seen so far. Below: the true pixels there, and the prediction elsewhere.

# %%
run(f"experiments.scanpaths --run {out} --index 0 1 2 --heatmap-limit 60 --threads 1")
plt.figure(figsize=(10, 8))
plt.imshow(Image.open(out / "scanpaths.png"))
plt.axis("off")
plt.show()
print("all files of the run:", sorted(path.name for path in out.iterdir()))

# %% [markdown]
# ![Scanpaths of this tutorial](tutorial.png)
#
# ## Where to go from here
#
# * Train longer and larger: `python -m experiments.train demo --data my_images --image-size 32`
#   trains for 6 to 13 minutes; comparison, probe and pictures take two to three more.
# * Images of another size: `--image-size 64 --patch-size 8` gives 64 patches.
# * Ask what the transformer has learned: `python -m experiments.probe --run RUN`
#   ([probing](probing.md)).
# * Use an order, a reward or an agent of your own ([contributing](../CONTRIBUTING.md)).
# * Something went wrong: [troubleshooting](troubleshooting.md).
