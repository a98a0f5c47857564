"""A second reader: a small 1-D convolutional classifier, taught by the rules alone; it may know words that they miss.

Weak supervision: in each sentence the rules say which concepts are asserted as present; the network learns that from hashed words and
pieces of words, on half of the reports, and reads the other half. So it never reads what it was taught on. Where the two differ, both are
shown and nothing is resolved: the rules' facts stay as they are.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twin.errors import InputError
from twin.extras import torch_for
from twin.records.text.lexicon import CONCEPTS
from twin.records.text.sentences import sentences

BUCKETS, LONGEST, WIDTH, STEPS, SEED = 4096, 40, 16, 200, 0
SURE = 0.5
LEAST = 8
"""A concept that the rules found in fewer teaching sentences than this is not judged (chosen here)."""
_WORD = re.compile(r"[A-Za-z]+|\d+|[^\w\s]")
NAMES = tuple(CONCEPTS)


@dataclass(frozen=True)
class Sentence:
    """One sentence: which report, where in its text, and the concepts that the rules found present, (len(NAMES),) 0/1."""

    report: int
    start: int
    end: int
    words: NDArray[np.int64]
    present: NDArray[np.float32]


def _torch() -> Any:
    return torch_for("extract", ", or leave --second-reader out")


def hashed(text: str) -> NDArray[np.int64]:
    """Words as bucket numbers, (LONGEST, 2): the word and its first four letters; 0 is padding."""
    out = np.zeros((LONGEST, 2), np.int64)
    for k, word in enumerate(_WORD.findall(text.lower())[:LONGEST]):
        for column, part in enumerate((word, word[:4])):
            out[k, column] = 1 + zlib.crc32(f"{column}{part}".encode()) % (BUCKETS - 1)
    return out


def split(texts: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[Sentence]:
    """Every sentence of the reports with what the rules found in it."""
    out = []
    for k, (text, found) in enumerate(zip(texts, facts, strict=True)):
        spans = [s for s in found["spans"] if s["key"] == "entity" and s["status"] == "present"]
        for start, end in sentences(text):
            present = np.zeros(len(NAMES), np.float32)
            for span in spans:
                if start <= span["start"] < end:
                    present[NAMES.index(span["value"])] = 1.0
            out.append(Sentence(k, start, end, hashed(text[start:end]), present))
    return out


def _network(torch: Any) -> Any:
    class Reader(torch.nn.Module):  # type: ignore[misc]
        """Hashed words -> embedding -> two convolutions -> the strongest answer anywhere in the sentence -> one logit per concept."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(BUCKETS, WIDTH, padding_idx=0)
            self.first = torch.nn.Conv1d(2 * WIDTH, 2 * WIDTH, 3, padding=1)
            self.second = torch.nn.Conv1d(2 * WIDTH, 2 * WIDTH, 5, padding=2)
            self.head = torch.nn.Linear(2 * WIDTH, len(NAMES))

        def forward(self, words: Any) -> Any:
            """Logits (n, concepts) of words (n, LONGEST, 2)."""
            x = self.embed(words).flatten(2).transpose(1, 2)
            x = torch.relu(self.second(torch.relu(self.first(x))))
            return self.head(x.amax(dim=2))

    return Reader()


def teach(known: Sequence[Sentence]) -> Any:
    """A reader taught on sentences; the same sentences give the same reader."""
    torch = _torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        reader = _network(torch)
        words = torch.as_tensor(np.stack([s.words for s in known]))
        target = torch.as_tensor(np.stack([s.present for s in known]))
        weight = ((len(known) - target.sum(0)) / target.sum(0).clamp(min=1.0)).clamp(max=20.0)
        loss_of = torch.nn.BCEWithLogitsLoss(pos_weight=weight)
        optimiser = torch.optim.AdamW(reader.parameters(), lr=0.01, weight_decay=0.01)
        draw = torch.Generator().manual_seed(SEED)
        for _ in range(STEPS):
            batch = torch.randint(len(known), (min(128, len(known)),), generator=draw)
            optimiser.zero_grad()
            loss_of(reader(words[batch]), target[batch]).backward()
            optimiser.step()
    return reader.eval()


def read(reader: Any, unknown: Sequence[Sentence]) -> NDArray[np.float64]:
    """Probability of each concept in each sentence, (n, concepts)."""
    torch = _torch()
    with torch.no_grad():
        return np.asarray(torch.sigmoid(reader(torch.as_tensor(np.stack([s.words for s in unknown])))).numpy(), np.float64)


def compare(texts: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """Agreement of rules and second reader, and per report where they differ: concept, place, what the rules say, the reader's probability.

    Raises InputError for fewer than 20 reports, and where torch is missing.
    """
    if len(texts) < 20:
        raise InputError("extract", "--second-reader", f"{len(texts)} reports are too few to teach it", "give at least 20, or leave it out")
    parts = split(texts, facts)
    conflicts: list[list[dict[str, Any]]] = [[] for _ in texts]
    both = np.zeros((len(NAMES), 2, 2), np.int64)
    # copies of one text stay in one half: else the reader would be asked what it was taught
    first = {text: k for k, text in enumerate(dict.fromkeys(texts))}
    half_of = [first[text] % 2 for text in texts]
    for half in (0, 1):
        known, unknown = ([s for s in parts if (half_of[s.report] == half) is teaching] for teaching in (True, False))
        judged = np.stack([s.present for s in known]).sum(axis=0) >= LEAST
        for sentence, p in zip(unknown, read(teach(known), unknown), strict=True):
            for k in np.flatnonzero(judged):
                rules, reader = bool(sentence.present[k]), bool(p[k] >= SURE)
                both[k, int(rules), int(reader)] += 1
                if rules != reader:
                    conflicts[sentence.report].append(
                        {
                            "concept": NAMES[k],
                            "start": sentence.start,
                            "end": sentence.end,
                            "rules": "present" if rules else "not present",
                            "second_reader": round(float(p[k]), 3),
                        }
                    )
    return _agreement(both), conflicts


def _agreement(both: NDArray[np.int64]) -> dict[str, Any]:
    """Cohen's kappa over all judged sentences and concepts, and by concept the counts of the four cases."""
    total = both.sum(axis=0).astype(float)
    n = total.sum()
    if not n:
        return {"kappa": None, "judged_concepts": 0, "by_concept": {}}
    same, chance = np.trace(total) / n, float(total.sum(axis=1) @ total.sum(axis=0)) / n**2
    rows = {
        name: {"both": int(b[1, 1]), "rules_only": int(b[1, 0]), "reader_only": int(b[0, 1])}
        for name, b in zip(NAMES, both, strict=True)
        if b.sum()
    }
    return {"kappa": round(float((same - chance) / max(1 - chance, 1e-12)), 3), "judged_concepts": len(rows), "by_concept": rows}
