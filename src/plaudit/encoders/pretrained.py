"""Networks of transformers, made around weights that are there already."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from plaudit.errors import ModelError

Network = TypeVar("Network", bound=PreTrainedModel)


def assembled(
    kind: type[Network], config: PretrainedConfig, state: Mapping[str, Tensor], built: re.Pattern[str] | None = None
) -> Network:
    """The network with the tensors of `state` themselves as weights, in evaluation mode and without gradients.

    Nothing is drawn at random first, which takes longer than reading the file. built: entries that may be missing,
    because they are not used or every network builds them for itself. ModelError where another is missing, unknown or
    misshapen.
    """
    with quiet():
        loaded: Any = kind.from_pretrained(None, config=config, state_dict=dict(state), output_loading_info=True)
    network, info = loaded
    if built is not None:
        info["missing_keys"] = {name for name in info["missing_keys"] if not built.match(name)}
    wrong = [f"{what.replace('_keys', '')} {key}" for what in sorted(info) for key in sorted(map(str, info[what]))]
    if wrong:
        raise ModelError(f"the weights do not fit {kind.__name__}: {'; '.join(wrong)}")
    made: Network = network.eval().requires_grad_(False)
    return made


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no remarks from transformers while it loads; what matters is raised."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
