"""Fusion models by name; one new file and one line here add another."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping

from twin.fusion.blocks import Block
from twin.fusion.models.attention import Attention
from twin.fusion.models.base import FusionModel
from twin.fusion.models.blend import Blend
from twin.fusion.models.chained import ChainedEquations
from twin.fusion.models.early import Early
from twin.fusion.models.graph import GraphSmoothing
from twin.fusion.models.late import LateMean, LateStack
from twin.fusion.models.pattern import PatternSubmodels
from twin.fusion.models.product import ProductOfExperts
from twin.fusion.models.recurrent import Recurrent
from twin.fusion.models.select import OneStandardError
from twin.fusion.models.trees import Mixture, Trees
from twin.fusion.models.vae import ProductVae

Blocks = Mapping[str, Block]
MODELS: dict[str, Callable[[Blocks], FusionModel]] = {
    "blend": Blend,
    "early": Early,
    "late_mean": LateMean,
    "late_stack": LateStack,
    "product": ProductOfExperts,
    "graph": GraphSmoothing,
    "mixture": Mixture,
    "trees": Trees,
    "chained": ChainedEquations,
    "attention": Attention,
    "vae": ProductVae,
    "recurrent": Recurrent,
}
CANDIDATES = ("blend", "early", "late_stack", "product", "graph", "mixture", "trees")
"""What the default chooses among: all made of the same few regressions and trees. The mean of logits is for comparison only."""
SEEING = {"mixture": Mixture, "trees": Trees}
"""Candidates that can see which cells are empty."""
NETWORKS = ("attention", "vae", "recurrent")


def model(name: str, blocks: Blocks) -> FusionModel:
    """A model by name, within pattern submodels unless it handles missing blocks itself."""
    plain = MODELS[name](blocks)
    return plain if plain.native else PatternSubmodels(blocks, plain)


def default(blocks: Blocks, emptiness: str = "use") -> PatternSubmodels:
    """The shipped default: the simplest candidate within one standard error of the best, chosen anew for each pattern of blocks.

    So a patient without a block gets exactly the model that was made without it. emptiness (`study.EMPTINESS_WORDS`): "report": empty cells
    are filled; "cells": trees know them; "use": and where training rows that lack a block are judged better by the model of all blocks,
    which knows that they lack it, patients who lack it are too.
    """
    seeing = {name: made(blocks, emptiness != "report") for name, made in SEEING.items()}
    candidates = {name: MODELS[name](blocks) for name in CANDIDATES} | seeing
    return PatternSubmodels(blocks, OneStandardError(blocks, candidates), weigh=True, emptiness=emptiness == "use")


def available() -> list[str]:
    """Names of the models that can run here (the networks need torch)."""
    torch = importlib.util.find_spec("torch") is not None
    return [name for name in MODELS if torch or name not in NETWORKS]
