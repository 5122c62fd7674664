"""Files in the layout and the format of Fashion-MNIST, which torchvision reads: ten noisy classes, 28x28, in bytes."""

import struct

import numpy as np
import torch
from torch.nn.functional import interpolate


def write_fashion_files(root, n_train, n_test, noise=0.5):
    """Write the four files of ``FashionMNIST/raw`` under ``root``.

    Each class is a coarse pattern; an image is its class's pattern, shifted by up to two pixels, under noise.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(10, 1, 7, 7, generator=generator)
    patterns = interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=False)[:, 0]
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", n_train), ("t10k", n_test)):
        labels = torch.randint(10, (count,), generator=generator)
        shifts = torch.randint(5, (count, 2), generator=generator).tolist()
        clean = [patterns[y, i : i + 28, j : j + 28] for y, (i, j) in zip(labels, shifts, strict=True)]
        images = torch.stack(clean) + noise * torch.randn(count, 28, 28, generator=generator)
        pixels = (images.clamp(0, 1) * 255).to(torch.uint8)
        _write_idx(raw / f"{part}-images-idx3-ubyte", pixels.numpy())
        _write_idx(raw / f"{part}-labels-idx1-ubyte", labels.to(torch.uint8).numpy())


def _write_idx(path, array):
    """Write bytes in the IDX format: two zeros, the type, the number of dimensions, each dimension, the data."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + np.ascontiguousarray(array).tobytes())
