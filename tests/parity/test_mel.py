"""The mel front-end against what the published ones compute."""

import json

import numpy as np
import pytest
import torch

from plaudit.codec.mel import MEL_16K, MEL_44K, MelSettings, log_mel
from tests.parity.folder import FOLDER, assert_equal

pytestmark = pytest.mark.skipif(
    not (FOLDER / "mel.npz").exists(), reason=f"no parity fixtures in {FOLDER}; set PLAUDIT_PARITY_DIR"
)


@pytest.mark.parametrize(("name", "settings"), [("44k", MEL_44K), ("16k", MEL_16K)])
def test_log_mel_equals_the_published_front_end(name: str, settings: MelSettings) -> None:
    arrays = np.load(FOLDER / "mel.npz")
    published = json.loads((FOLDER / "mel.json").read_text())["config"][name]
    assert (published["sampling_rate"], published["n_fft"], published["hop_size"], published["num_mels"]) == (
        settings.sample_rate,
        settings.n_fft,
        settings.hop,
        settings.bands,
    )
    assert (published["log"], published["fmin"], published["fmax"]) == (settings.log, 0, settings.sample_rate / 2)
    output = log_mel(torch.from_numpy(arrays["in.wav"]), settings)
    assert_equal(output, torch.from_numpy(arrays[f"out.mel_{name}"]), 1e-4)
