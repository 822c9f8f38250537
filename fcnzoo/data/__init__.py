"""Data sets of images and masks, and the joint transforms for training.

A data set is a `torch.utils.data.Dataset` of pairs, whose files are all checked when it is made:

    data = fcnzoo.data.CamVid("camvid", "train")
    data.transform = fcnzoo.data.make_transform(model.preprocess, train=True, crop_size=(288, 384))
    image, target = data[0]                      # float (3, 288, 384), int64 (288, 384)
"""

from fcnzoo.data.ade20k import ADE20K
from fcnzoo.data.camvid import CamVid
from fcnzoo.data.cityscapes import Cityscapes
from fcnzoo.data.dataset import SegmentationDataset
from fcnzoo.data.folder import SegmentationFolder
from fcnzoo.data.frequencies import class_frequencies, median_frequency_weights
from fcnzoo.data.geometry import JointTransform, RandomPad, RandomScaleCrop, ResizeImage
from fcnzoo.data.layouts import Layout, open_dataset
from fcnzoo.data.masks import LabelTable
from fcnzoo.data.transforms import Normalize, PhotometricJitter, RandomIllumination, ToTensors, make_transform
from fcnzoo.data.voc import VOCSegmentation

__all__ = [
    "ADE20K",
    "CamVid",
    "Cityscapes",
    "JointTransform",
    "LabelTable",
    "Layout",
    "Normalize",
    "PhotometricJitter",
    "RandomIllumination",
    "RandomPad",
    "RandomScaleCrop",
    "ResizeImage",
    "SegmentationDataset",
    "SegmentationFolder",
    "ToTensors",
    "VOCSegmentation",
    "class_frequencies",
    "make_transform",
    "median_frequency_weights",
    "open_dataset",
]
