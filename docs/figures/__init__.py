"""The pictures of the pages "Strides and skip fusion" and "Grids", made by the library itself.

By hand, from the repository's folder; what it writes into `docs/pictures` is committed:

    python -m docs.figures --camvid CAMVID --lite0 LITE0.safetensors --vgg VGG.safetensors --work FOLDER
"""
