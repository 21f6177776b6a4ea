"""From trained weak heads to the weights file: the base's tensors as they are, the heads beside them, and what each is worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from retsam.segmentation.weak import WeakHeads
from retsam.segmentation.weights import load_state, read_card, save_weights
from retsam.training.export import LICENCES
from retsam.training.weak import judge
from retsam.training.weak.config import WeakConfig
from retsam.training.weak.features import Features, content_hashes, load_features, trunk_digest
from retsam.training.weak.words import labelled

_LEARNED = "words and paint"
_NO_CONFIDENCE = "no pixel masks exist that could calibrate an expected Dice"


def export_weak(config: WeakConfig, out: Path) -> Path:
    """Write the base's weights with the weak heads added, their card, and the list of the photographs that they learned from.

    Tensors of the base are copied bit by bit. Weak heads that it had are replaced. Heads are judged on held-out photographs through
    the whole of prediction; one whose area under the curve is below ``config.least_auc`` ships as not available.

    Parameters
    ----------
    config : WeakConfig
    out : Path
        ``.safetensors``; ``.json`` and ``.learned.csv`` go beside it. May be the base itself.

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    FileNotFoundError
        If nothing was trained.
    ValueError
        If the heads were trained on another trunk than the base's.
    """
    source = config.out / "weak.safetensors"
    if not source.exists():
        raise FileNotFoundError(f"{source}: no trained heads; run `retsam train` with this configuration first")
    heads, trained = load_state(source)
    if trained["trunk"] != trunk_digest(config.base):
        raise ValueError(f"{source}: the heads were trained on another trunk than {config.base}'s; train them on it (a new `out`)")
    base, metadata = load_state(config.base)
    card = read_card(config.base)
    model = WeakHeads(trained["weak"])
    model.load_state_dict(heads, strict=False)
    rows, words = labelled(config)
    features = load_features(config)
    entries = judge.choose_thresholds(config, model, features)
    tensors = _without_weak(base) | {f"weak.{n}": v for n, v in heads.items()}
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    kept = _supervised(card)
    # For the judging every head is available; the card of this state is never what ships.
    trial = config.out / "judged" / "trial.safetensors"
    trial.parent.mkdir(parents=True, exist_ok=True)
    save_weights(trial, nn.Module(), {**metadata, "weak": trained["weak"]}, tensors)
    weak = {t: {"status": "weak", **entry} for t, entry in entries.items()}
    trial.with_suffix(".json").write_text(json.dumps({"name": "trial", "heads": {**kept, **weak}}))
    picked = judge.judged_rows(config, rows, words)
    held, held_words = rows.iloc[picked].reset_index(drop=True), words.iloc[picked].reset_index(drop=True)
    areas = judge.mask_areas(config, held, trial, tuple(weak))
    areas.to_csv(config.out / "judged" / "areas.csv", index=False)
    scores = judge.score(config, held, held_words, areas)
    for target, by_dataset in judge.score_outlines(config, trial).items():
        scores.setdefault(target, {}).update(by_dataset)
    (config.out / "judged" / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    judge.examples(config, held, held_words, areas, trial, config.out / "judged" / "pictures")
    card["heads"] = kept | {t: _entry(config, t, entry, scores.get(t, {}), features, rows) for t, entry in entries.items()}
    card["weak"] = {
        "steps": trained["step"],
        "trunk": trained["trunk"],
        "split": f"by hash of the subject; held out: {config.holdout}; {config.tuning:.0%} of the rest sets thresholds only",
        "learned_from": _learned_text(out),
        "myopic": {"areas": "union of tessellation and myopic atrophies", "scores": scores.get("myopic", {})},
    }
    return _write(out, {**metadata, "weak": trained["weak"]}, tensors, card, learned_from(config, features, rows))


def rejudge(config: WeakConfig, weights: Path) -> dict[str, dict]:
    """Judge the weak heads of finished weights again and write their scores into the card.

    Their masks follow the disc, so that another disc changes what they are worth, without any training of theirs. Heads that ship as not
    available have no masks and keep what was found when they were trained; one that falls below ``config.least_auc`` becomes so.

    Parameters
    ----------
    config : WeakConfig
        That they were trained with: it says which photographs were held out.
    weights : Path
        ``.safetensors``; the card beside it is rewritten.

    Returns
    -------
    dict
        Of :func:`retsam.training.weak.judge.score`.

    Raises
    ------
    ValueError
        If the weights have no weak head, or one of another configuration.
    """
    card = read_card(weights)
    listed = [target for word in config.words.values() for target in word.targets]
    own = {target for target, entry in card["heads"].items() if entry.get("learned") == _LEARNED}
    if own != set(listed):
        raise ValueError(f"{weights}: its weak heads are {sorted(own)}, those of the configuration {sorted(listed)}")
    shipped = tuple(target for target in listed if card["heads"][target]["status"] == "weak")
    rows, words = labelled(config)
    picked = judge.judged_rows(config, rows, words)
    held, held_words = rows.iloc[picked].reset_index(drop=True), words.iloc[picked].reset_index(drop=True)
    scores = judge.score(config, held, held_words, judge.mask_areas(config, held, weights, shipped))
    for target, by_dataset in judge.score_outlines(config, weights).items():
        scores.setdefault(target, {}).update(by_dataset)
    for target in shipped:
        card["heads"][target] |= {"scores": scores[target], **_status(config, scores[target])}
    card["weak"]["myopic"]["scores"] = scores.get("myopic", {})
    Path(weights).with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    return scores


def merge_weak(heads: Path, into: Path, out: Path) -> Path:
    """Put the weak heads of one weights file, with their card and list of learned photographs, into a copy of another of the same trunk.

    Parameters
    ----------
    heads : Path
        Weights (``.safetensors``) that :func:`export_weak` wrote.
    into : Path
        Weights whose weak heads, if any, are replaced; every other tensor and entry of the card stays.
    out : Path
        ``.safetensors``; ``.json`` and ``.learned.csv`` go beside it. May be ``into`` itself.

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    FileNotFoundError
        If a file has no card, or the heads no list of learned photographs.
    ValueError
        If ``heads`` has no weak heads, or they read another trunk than the whole-frame view's of ``into``.
    """
    given, about = load_state(heads)
    given_card, card = read_card(heads), read_card(into)
    learned = Path(heads).with_suffix(".learned.csv")
    if not about.get("weak") or "weak" not in given_card:
        raise ValueError(f"{heads}: has no weak heads; expected weights that `retsam train export` wrote for stage `weak`")
    if not learned.exists():
        raise FileNotFoundError(f"{learned}: expected the list of photographs that the heads learned from")
    if (trunk := trunk_digest(into)) != given_card["weak"]["trunk"]:
        raise ValueError(f"{heads}: the heads read the trunk {given_card['weak']['trunk']}, that of {into} is {trunk}; train them on it")
    state, metadata = load_state(into)
    tensors = _without_weak(state) | {name: value for name, value in given.items() if name.startswith("weak.")}
    listed = pd.read_csv(learned, dtype=str)
    card["heads"] = _supervised(card) | {t: e for t, e in given_card["heads"].items() if e.get("learned") == _LEARNED}
    card["weak"] = given_card["weak"] | {"learned_from": _learned_text(Path(out))}
    return _write(Path(out), {**metadata, "weak": about["weak"]}, tensors, card, listed)


def _write(out: Path, metadata: dict, tensors: dict, card: dict, learned: pd.DataFrame) -> Path:
    """Weights with card and list of learned photographs; the list first, because heads without it must not be used."""
    out.parent.mkdir(parents=True, exist_ok=True)
    learned.to_csv(out.with_suffix(".learned.csv"), index=False)
    save_weights(out, nn.Module(), metadata, tensors)
    out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")
    return out


def _without_weak(state: dict) -> dict:
    return {name: value for name, value in state.items() if not name.startswith("weak.")}


def _supervised(card: dict) -> dict:
    """Entries of the heads that did not learn from words."""
    return {t: e for t, e in card["heads"].items() if e.get("learned") != _LEARNED}


def _learned_text(out: Path) -> str:
    return f"{out.stem}.learned.csv: content hash of every photograph whose words taught or tuned a head, and the heads"


def _entry(config: WeakConfig, target: str, entry: dict, scores: dict, features: Features, rows: pd.DataFrame) -> dict:
    """A head's part of the card."""
    name, word = next((n, w) for n, w in config.words.items() if target in w.targets)
    column = list(config.words).index(name)
    plain = (features.table["version"] == 0).to_numpy()
    labels, part = features.words[plain, column], features.table["part"].to_numpy()[plain]
    of = rows.iloc[features.table["row"].to_numpy()[plain]]
    datasets = [rule.dataset for rule in word.rules] or sorted(config.negatives)
    counts = {
        dataset: {
            "with_word": int(((labels == 1) & of["dataset"].eq(dataset).to_numpy() & (part == "fit")).sum()),
            "without": int(((labels == 0) & of["dataset"].eq(dataset).to_numpy() & (part == "fit")).sum()),
            "tuning": int((~np.isnan(labels) & of["dataset"].eq(dataset).to_numpy() & (part == "tune")).sum()),
            "subjects": int(of.loc[~np.isnan(labels) & of["dataset"].eq(dataset).to_numpy(), "group"].nunique()),
            "licence": LICENCES.get(dataset, "given by the user"),
        }
        for dataset in datasets
    }
    return {
        "learned": _LEARNED,
        "words": [rule.model_dump() for rule in word.rules],
        "union_with": [t for t in word.targets if t != target],
        "painted": config.painted.get(target, 0),
        "trained_on": datasets,
        "photographs": counts,
        **entry,
        "confidence": None,
        "confidence_reason": _NO_CONFIDENCE,
        "scores": scores,
        **_status(config, scores),
    }


def _status(config: WeakConfig, scores: dict) -> dict[str, str]:
    """Whether a head is worth shipping, by the first data set that it was judged on; the reason where it is not."""
    first = next(iter(scores.values()), {}).get("auc", {}).get("value")
    if first is not None and first >= config.least_auc:
        return {"status": "weak"}
    return {"status": "not_available", "reason": f"area under the curve {first} on held-out photographs is below {config.least_auc}"}


def learned_from(config: WeakConfig, features: Features, rows: pd.DataFrame) -> pd.DataFrame:
    """Photographs whose words taught or tuned heads: ``content_hash``, ``dataset`` and ``heads`` (joined by ``;``)."""
    plain = (features.table["version"] == 0).to_numpy()
    positions, labels = features.table["row"].to_numpy()[plain], features.words[plain]
    own = rows.iloc[positions].reset_index(drop=True)
    words = list(config.words.values())
    heads = [";".join(t for word, value in zip(words, line, strict=True) if not np.isnan(value) for t in word.targets) for line in labels]
    table = pd.DataFrame({"content_hash": content_hashes(config, own), "dataset": own["dataset"], "heads": heads})
    return table.drop_duplicates("content_hash").sort_values("content_hash")
