"""Frozen models by name, by folder, and by the name of a folder among the user's models."""

from __future__ import annotations

from pathlib import Path

import pytest

from plaudit import hub
from plaudit.codec.mel_codec_folder import save_mel_codec
from plaudit.errors import ModelError
from tests.codec.test_mel_codec import tiny_release


def test_a_codec_is_found_by_path_and_among_the_users_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    save_mel_codec(tmp_path / "tiny", tiny_release(), {})
    for name in (str(tmp_path / "tiny"), "tiny"):
        codec = hub.build(hub.CODECS, name)
        assert (codec.name, codec.hop, codec.latent_dim) == ("tiny", 12, 3)
    assert hub.build(hub.CODECS, "embedded").name == "embedded"


def test_what_is_not_there_or_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAUDIT_MODELS", str(tmp_path))
    save_mel_codec(tmp_path / "tiny", tiny_release(), {})
    with pytest.raises(ModelError, match="no model 'nowhere': give a model folder or one of embedded"):
        hub.build(hub.CODECS, "nowhere")
    with pytest.raises(ModelError, match="of kind 'mel-codec'; wanted here is"):
        hub.build(hub.TEXT_ENCODERS, "tiny")
