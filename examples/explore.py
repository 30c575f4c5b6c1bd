"""Look into a comparison with pandas: a notebook in cells.

A run leaves JSON and CSV behind, and vectors are an array: all of it opens in pandas. Run this file whole, or
cell by cell in an editor that knows ``# %%``. The images are generated slices of 24 patients from two scanners.
The networks are EfficientNet-Lite 0 and 1 with the ImageNet weights that come with featstore; nothing is
fetched.

    pip install pandas
    python examples/explore.py
"""

# %% Stage one
import numpy as np
import pandas as pd

import featstore

data = featstore.make_phantoms("runs/phantoms", patients=24)
extraction = featstore.extract(data, backbones=["EfficientNetLite0", "EfficientNetLite1"])
networks = pd.DataFrame(extraction.to_json()["cells"])[["backbone", "weights", "stored_now"]]
print(networks.to_string(index=False))

# %% Who is ahead? Intervals that overlap as widely as these say that the order means nothing yet.
run = "runs/explore"
featstore.compare(data, strategies=["concat_logreg", "soft_vote"], positive="covid", out=run, overwrite=True)
results = pd.read_csv(f"{run}/results.csv", index_col="contestant")
print(results[["auc", "auc_low", "auc_high", "sensitivity", "specificity"]].round(3))

# %% Which patients are answered wrong, by a model that had not seen them? A patient's slices are averaged.
predictions = pd.read_csv(f"{run}/predictions.csv").query("contestant == 'soft_vote'")
patients = predictions.groupby(["group", "label"], as_index=False)["p(covid)"].mean()
is_wrong = (patients["p(covid)"] > 0.5) != (patients["label"] == "covid")
print(patients[is_wrong].sort_values("p(covid)").round(3))

# %% Does it depend on the scanner? Share of right answers, by scanner and class.
sites = pd.read_csv(data)[["path", "site"]]
by_site = predictions.merge(sites, on="path").assign(right=lambda rows: rows["predicted"] == rows["label"])
print(by_site.pivot_table("right", "site", "label").round(2))

# %% The vectors themselves: a row for each image, a column for each value of each network.
matrix = featstore.load_matrix(data)
images = pd.Index([record.path.name for record in matrix.records], name="image")
columns = pd.MultiIndex.from_tuples([(block.name, n) for block in matrix.blocks for n in range(block.width)])
vectors = pd.DataFrame(matrix.features[0], images, columns)
print(vectors.iloc[:3, [0, 1, -2, -1]].round(3))

# %% Do both networks find the same images alike? Correlation of the similarities of all pairs of images.
pairs = np.triu_indices(len(images), k=1)
similarity = pd.DataFrame({name: np.corrcoef(vectors[name])[pairs] for name in matrix.backbones})
print(similarity.corr().round(2))
