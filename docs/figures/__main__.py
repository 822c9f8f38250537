"""Make every figure: train the small networks that are not in the work folder yet, and draw."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

import fcnzoo
from docs.figures import draw, networks
from fcnzoo.weights.folder import read_record

PICTURES = Path(__file__).parents[1] / "pictures"

GRIDS = (
    ("fcn8s_resnet18", "fcn8s_resnet18", None),
    ("fcn32s_resnet34", "fcn32s_resnet34", None),
    ("fcn8s_vgg16, same", "fcn8s_vgg16", "same"),
    ("fcn8s_vgg16, paper", "fcn8s_vgg16", "paper"),
    ("fcn32s_vgg16, paper", "fcn32s_vgg16", "paper"),
)


def main() -> None:
    """Read the arguments and write every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid: {train,val}/{images,masks}")
    parser.add_argument("--lite0", type=Path, required=True, help="ImageNet weights of timm's tf_efficientnet_lite0")
    parser.add_argument("--vgg", type=Path, required=True, help="ImageNet weights of torchvision's vgg16().features")
    parser.add_argument("--work", type=Path, required=True, help="folder for the trained networks")
    options = parser.parse_args()
    torch.manual_seed(0)
    PICTURES.mkdir(exist_ok=True)
    photo = draw.load_photo()
    shipped = fcnzoo.create("fcn8s_tf_efficientnet_lite0", pretrained=True).eval()
    draw.home(PICTURES)
    draw.grids(GRIDS, 500, PICTURES / "grids.svg")
    draw.save_panels(draw.receptive_fields(shipped, photo), PICTURES / "receptive-fields.webp", columns=2)
    stages = networks.train_stages(options.camvid, options.lite0, options.work)
    models = {name: fcnzoo.load(folder) for name, folder in stages.items()}
    shown = {
        name.replace("fcn", "FCN-"): (models[name], f"{100 * _mean_iou(stages[name]):.1f} mIoU")
        for name in ("fcn32s", "fcn16s", "fcn8s")
    }
    draw.save_panels(draw.strides(shown, photo), PICTURES / "strides.webp", columns=2)
    panels = draw.checkerboard(models["fcn32s"], models["deconv"], "road", photo)
    draw.save_panels(panels, PICTURES / "checkerboard.webp", columns=2)
    classifier, names = _classifier(options.camvid, options.vgg, options.work / "classifier.pt")
    panels = draw.heat_maps(classifier, names, ("road", "building", "tree", "sky", "car"), photo)
    draw.save_panels(panels, PICTURES / "heat-maps.webp", columns=2)
    print(json.dumps({file.name: file.stat().st_size for file in sorted(PICTURES.iterdir())}, indent=1))


def _mean_iou(folder: Path) -> float:
    """Return what training measured on the validation split and kept with the weights."""
    return next(one.value for one in read_record(folder).metrics if one.name == "mean_iou")


def _classifier(camvid: Path, vgg: Path, file: Path) -> tuple[torch.nn.Module, list[str]]:
    """Return the VGG-16 that classifies crops, trained if it is not there yet; print how often it is right."""
    data = networks.camvid_split(camvid, "train")
    network = networks.vgg_classifier(vgg, len(data.label_set))
    if file.is_file():
        network.classifier.load_state_dict(torch.load(file, weights_only=True))
    else:
        networks.train_classifier(network, *networks.sample_crops(data, 1))
        torch.save(network.classifier.state_dict(), file)
        crops, classes = networks.sample_crops(networks.camvid_split(camvid, "val"), 1)
        with torch.no_grad():
            found = torch.cat([network(networks.enlarge(part)).argmax(1) for part in crops.split(8)])
        print(f"the classifier is right for {(found == classes).float().mean():.2f} of {len(crops)} crops of val")
    return network.eval(), list(data.label_set.names)


if __name__ == "__main__":
    main()
