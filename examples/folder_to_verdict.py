"""From a folder of images to a verdict, in ten lines.

Two frozen networks turn each image into vectors, once. Cross-validation over whole patients then says what each
network is worth, what fusing them is worth, and how sure that is. They are EfficientNet-Lite 0 and 1 with the
ImageNet weights that come with featstore; nothing is fetched.

    python examples/folder_to_verdict.py FOLDER     # a folder for each class, or a CSV file
    python examples/folder_to_verdict.py            # generated slices of 24 patients
"""

import sys

import featstore
from featstore.reporting.verdict import summary

data = sys.argv[1] if len(sys.argv) > 1 else featstore.make_phantoms("runs/phantoms", patients=24)
networks = ["EfficientNetLite0", "EfficientNetLite1"]

for part in featstore.extract(data, backbones=networks).keys:
    print(f"{part.backbone} with the weights {part.weights[:19]}: {part.stored_now} vectors")

strategies = ["concat_logreg", "soft_vote"]
comparison = featstore.compare(data, strategies=strategies, out="runs/verdict", overwrite=True)
print(summary(comparison))
print("For others to read:", featstore.write_report("runs/verdict"))
