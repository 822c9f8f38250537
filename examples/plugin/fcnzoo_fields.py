"""Models for pictures of fields: a plug-in of fcnzoo.

    import fcnzoo                                   # nothing of this module is imported yet

    fcnzoo.list_models("*fields*")                  # ["fcn32s_fields", "fcn8s_fields"]
    model = fcnzoo.create("fcn8s_fields")           # or fcnzoo train folder --set model.name=fcn8s_fields

A model is a record, so this module imports no torch, and listing models stays fast. To bring trained weights, put the
folder that `fcnzoo.save` or `fcnzoo train` wrote (`best`) beside this file, into the wheel, and add to a spec

    weights=(
        fcnzoo.Weights(
            tag="v1",
            dataset="My fields",
            license="CC-BY-4.0",
            packaged=str(Path(__file__).parent / "fcn8s_fields_v1"),
            sha256="…",                             # of its model.safetensors: `fcnzoo verify FOLDER` prints it
        ),
    ),

for `fcnzoo.create("fcn8s_fields", pretrained=True)`. Weights may lie on the Hub instead: `hub=` and `revision=` in the
place of `packaged=`.
"""

import fcnzoo
from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig

LABELS = fcnzoo.LabelSet(
    name="fields",
    names=("soil", "crop", "weed"),
    palette=((121, 85, 61), (92, 163, 73), (214, 71, 92)),
)

SPECS = tuple(
    fcnzoo.ModelSpec(
        name=f"fcn{stride}s_fields",
        config=FCNConfig(
            backbone=BackboneConfig("timm/mobilenetv3_small_100"),
            head=SkipHeadConfig(stride=stride, hidden_channels=64, dropout=0.1),
            num_classes=len(LABELS),
            label_set=LABELS,
        ),
        description=f"FCN-{stride}s for fields, small enough for a tractor",
    )
    for stride in (32, 8)
)
"""What the entry point names: a `ModelSpec`, an iterable of them, or a function that returns either."""
