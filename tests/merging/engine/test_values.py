"""Random numbers by their place, and stored types, beside torch's own."""

import numpy as np
import pytest
import torch

from alliage.merging.engine.values import narrowed, widened


@pytest.mark.parametrize("code", ["F64", "F32", "F16", "BF16"])
def test_types_are_widened_and_rounded_as_torch_does(code):
    dtype = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}.get(
        code, torch.bfloat16
    )
    if code in ("F16", "BF16"):  # every value there is
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        stored = every[every.isfinite()]
    else:
        draw = torch.Generator().manual_seed(0)
        stored = (torch.randn(10_000, generator=draw, dtype=torch.float64) ** 21).to(dtype)
    raw = stored.view(torch.uint8).numpy()
    wide = widened(raw, code)
    assert wide.tobytes() == stored.float().numpy().tobytes()
    # halves between two values of the type, and their neighbours
    close = np.concatenate([np.nextafter(wide, np.float32(s * np.inf)) for s in (-1, 1)])
    between = (wide[:-1].astype(np.float64) + wide[1:]) / 2
    values = np.concatenate([wide, close, between.astype(np.float32)])
    values = values[np.isfinite(values)]
    rounded = torch.from_numpy(values).to(dtype)
    assert narrowed(values, code).tobytes() == rounded.view(torch.uint8).numpy().tobytes()
