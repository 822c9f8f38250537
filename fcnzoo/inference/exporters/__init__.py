"""Networks as one file that takes a picture and gives labels: ONNX, or PyTorch's `.pt2`."""
